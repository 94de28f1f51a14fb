//! The kernel's FUSE protocol, and nothing of Gate.
//!
//! [`mount`] makes a mount and hands out its [`Device`]; [`Session::start`] agrees with the
//! kernel; [`Session::serve`] reads requests with a channel and a thread per worker and gives
//! them to a [`FileSystem`], each with a [`Reply`] that may be answered later and from anywhere.
//! A reply that waits is parked ([`Reply::park`]), so that a signal ends the waiting. A
//! [`Notifier`] drops what the kernel has cached; a [`Backer`] lets it read and write files itself.
//!
//! It must hold: every request is answered once; no bytes of a frame make the decoder panic;
//! an unmount ends the session. Not here: paths, policies, files.

mod abi;
mod backing;
mod channel;
mod crew;
mod guardian;
mod intake;
mod mount;
mod names;
mod notify;
mod park;
mod reply;
mod request;
mod scratch;
mod session;
#[cfg(feature = "shuttle")]
pub mod staged;
#[cfg(test)]
mod tests;

pub use abi::{Attr, FileLock, InitFlags, OpenFlags, Statx, StatxTime};
pub use backing::{Backer, Backing};
pub use channel::Device;
pub use mount::{
    Cover, Detached, MADE_NAME_BYTES_MAX, Made, MountError, MountOptions, Place, UnmountError,
    detach, is_of_dead, make, may_mount, mount, mount_directly, unmount,
};
pub use notify::{Notifier, Stale};
pub use park::Parked;
pub use reply::{BackingId, DirBuffer, DirEntry, DirPlusBuffer, Entry, Opened, Reply, StatFs};
pub use request::{
    Caller, CopyFileRange, Fault, Forgets, HandleId, Incoming, LockRequest, Malformed, NodeId,
    Offer, Operation, Request, SetAttr, SetTime, Unique, Write, decode,
};
pub use rustix::io::Errno;
pub use session::{FileSystem, Negotiated, Session, StartError, Wishes, is_answering};
