//! The rules of Gate, pure: no I/O, no clock, no randomness, no threads.
//!
//! Everything that decides lives here; everything that does lives above. Time, ids and the state
//! of the world come in as arguments, decisions go out as values. The crate's own `clippy.toml`
//! bans what would break that.

pub mod fold;
pub mod id;
pub mod lock;
pub mod mount;
pub mod path;
pub mod time;
pub mod tree;
