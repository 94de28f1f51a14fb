//! The gated view of a source: a file system in which every open takes its turn.
//!
//! [`mount::Ready`] puts a view at a mount point and serves it. Inside, requests that look are
//! answered by the [`directory`]; requests that open or change ask the broker first and wait
//! where that freezes nobody. [`policy`] says which names are gated at all.
//!
//! It must hold: no path leaves the source (N9); a waiting call can be interrupted, occupies no
//! thread and holds no kernel lock that others need (N6); nothing is written through a revoked
//! handle (N7). Not here: who may go first (core), the wire (api), the kernel's protocol (fuse).

mod advisory;
pub mod agent;
pub mod asker;
pub mod backing;
mod beside;
pub mod directory;
mod echo;
mod fence;
pub mod guard;
mod handles;
pub mod kept;
mod line;
pub mod mount;
pub mod nodes;
mod park;
pub mod policy;
#[cfg(test)]
#[cfg(feature = "shuttle")]
mod races;
mod recent;
mod room;
pub mod source;
mod sync;
mod timer;
mod turn;
mod view;
mod walk;
pub mod written;

pub use asker::{Identity, OwnerScope};
pub use mount::{Options, Ready, ServeError};
pub use room::files_at_ease;

/// What only a fuzzer calls.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Reads bytes as the record of a kept version.
    pub fn kept_record(bytes: &[u8]) {
        crate::kept::read_any(bytes);
    }
}
