//! Who may open a resource, and in which order.
//!
//! An owner asks, waits in line, holds, lets go. One writer or many readers; first come, first
//! granted; tokens only rise. A request is a [`claim::Claim`]: what it wants ([`want`]) tells its
//! keys ([`key`]) and modes ([`mode`]), all of them one place in the line. The [`table::Table`]
//! decides, applies and settles; [`event`] is its language, [`limits`] are its bounds.
//!
//! Not here: clocks, disks, sockets, processes. Who is kin of whom is looked up elsewhere and
//! comes in as a command.

pub mod claim;
pub mod event;
pub mod key;
pub mod limits;
pub mod mode;
mod queue;
mod slot;
pub mod table;
pub mod want;

#[cfg(test)]
mod tests;
