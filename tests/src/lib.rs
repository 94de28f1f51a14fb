//! A hermetic world for every test that drives the real `gate`.
//!
//! A *world* is a home of its own under /tmp: a source, the view of it, a broker, and a bare
//! *twin* beside them, the oracle that every workload is compared with. What acts in it is a
//! command ([`run`]) or an *actor* ([`actor`]), a small process told what to do line by line, so
//! that holders and waiters are moved by events and never by the clock. Everything has a deadline;
//! whatever overruns it is killed and the FUSE connection aborted, so that no test hangs. Dropping
//! a world unmounts, ends what it started and asserts that nothing is left.

pub mod actor;
pub mod dice;
pub mod history;
pub mod http;
pub mod kernel;
pub mod locks;
pub mod older;
pub mod rest;
pub mod run;
pub mod terminal;
pub mod tree;
pub mod wait;
pub mod workload;
pub mod world;

pub use actor::Actor;
pub use run::Outcome;
pub use world::World;

/// How much larger the counts of a test are in the long tier (`cargo xtask soak`).
#[must_use]
pub fn scaled(usual: usize, soak: usize) -> usize {
    if is_soak() { soak } else { usual }
}

/// Tells whether this is the long tier.
#[must_use]
pub fn is_soak() -> bool {
    std::env::var_os("GATE_SOAK").is_some()
}
