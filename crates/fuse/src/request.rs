//! What the kernel asks.
//!
//! A [`Request`] says who asks and about which node; its [`Operation`] says what. Names and
//! data borrow from the frame that was read. What needs no answer by the file system (INIT,
//! FORGET, INTERRUPT, …) is an [`Incoming`] of its own, so that no file system has to sort
//! it out. Decoding lives in `decode`; it accepts any bytes and never panics.

mod decode;
#[cfg(test)]
mod tests;

pub use decode::{Fault, Forgets, Malformed, decode};

use std::ffi::CStr;

use rustix::fs::Timespec;

use crate::abi::{FileLock, InitFlags};

/// A node of the mounted tree, numbered by the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root of the mount; it is known from the start and never forgotten.
    pub const ROOT: NodeId = NodeId(1);
}

/// An open file or directory, numbered by the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(pub u64);

/// A request's number; the kernel never uses one twice in a mount's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unique(pub u64);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// File-system user id.
    pub uid: u32,
    /// File-system group id.
    pub gid: u32,
    /// **Thread** id in the mount's pid namespace; 0 when it is not visible there, and for
    /// RELEASE and writes out of the page cache.
    pub tid: u32,
    /// The directory's group, if the caller has it among its supplementary ones; told only by
    /// requests that create a node (Linux ≥ 6.3).
    pub supplementary_gid: Option<u32>,
}

/// A message of the kernel.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// The first message: versions and abilities.
    Init {
        /// Its number.
        unique: Unique,
        /// The kernel's offer.
        offer: Offer,
    },
    /// Lookups of nodes that the kernel gives back.
    Forget(Forgets<'a>),
    /// The process behind the request `target` has a signal to attend to.
    Interrupt {
        /// The interrupted request.
        target: Unique,
    },
    /// The last message of some mounts.
    Destroy {
        /// Its number.
        unique: Unique,
    },
    /// Everything that the file system answers.
    Request(Request<'a>),
}

/// What the kernel offers in INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Protocol version, major.
    pub major: u32,
    /// Protocol version, minor.
    pub minor: u32,
    /// Largest read-ahead, in bytes.
    pub readahead_max: u32,
    /// What the kernel can do.
    pub flags: InitFlags,
}

/// A request that must be answered.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its number.
    pub unique: Unique,
    /// The node it is about; the directory, where the operation has a name.
    pub node: NodeId,
    /// Who asks.
    pub caller: Caller,
    /// What is asked.
    pub operation: Operation<'a>,
}

/// What is asked. `flags` of open files are those of open(2).
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the arguments of the system calls of these names")]
#[rustfmt::skip]
pub enum Operation<'a> {
    Lookup { name: &'a CStr },
    Getattr { handle: Option<HandleId> },
    Setattr(SetAttr),
    Readlink,
    Symlink { name: &'a CStr, target: &'a CStr },
    Mknod { name: &'a CStr, mode: u32, rdev: u32, umask: u32 },
    Mkdir { name: &'a CStr, mode: u32, umask: u32 },
    Unlink { name: &'a CStr },
    Rmdir { name: &'a CStr },
    Rename { name: &'a CStr, new_parent: NodeId, new_name: &'a CStr, flags: u32 },
    /// Gives `existing` a further name.
    Link { existing: NodeId, name: &'a CStr },
    Open { flags: u32, kill_suidgid: bool },
    Read { handle: HandleId, offset: u64, size: u32 },
    Write(Write<'a>),
    Statfs,
    /// The last descriptor and the last mapping are gone.
    Release { handle: HandleId, lock_owner: u64, flock_unlock: bool },
    Fsync { handle: HandleId, data_only: bool },
    Setxattr { name: &'a CStr, value: &'a [u8], flags: u32, kill_sgid: bool },
    /// Size 0 asks for the value's size.
    Getxattr { name: &'a CStr, size: u32 },
    /// Size 0 asks for the list's size.
    Listxattr { size: u32 },
    Removexattr { name: &'a CStr },
    /// One descriptor of the handle was closed; others may be open.
    Flush { handle: HandleId, lock_owner: u64 },
    Opendir { flags: u32 },
    Readdir { handle: HandleId, offset: u64, size: u32 },
    Readdirplus { handle: HandleId, offset: u64, size: u32 },
    Releasedir { handle: HandleId },
    Fsyncdir { handle: HandleId, data_only: bool },
    Access { mask: u32 },
    Create { name: &'a CStr, flags: u32, mode: u32, umask: u32, kill_suidgid: bool },
    Fallocate { handle: HandleId, offset: u64, length: u64, mode: u32 },
    Lseek { handle: HandleId, offset: u64, whence: u32 },
    CopyFileRange(CopyFileRange),
    Syncfs,
    /// Makes a file without a name, in the directory's file system.
    Tmpfile { flags: u32, mode: u32, umask: u32 },
    /// `on_directory` tells whose numbers `handle` is of.
    Ioctl { handle: HandleId, on_directory: bool, command: u32, input: &'a [u8], out_size: u32 },
    Poll { handle: HandleId, kernel_handle: u64, flags: u32, events: u32 },
    Getlk(LockRequest),
    Setlk(LockRequest),
    /// As `Setlk`, but waits.
    Setlkw(LockRequest),
    Bmap { block: u64, blocksize: u32 },
    Statx { handle: Option<HandleId>, flags: u32, mask: u32 },
    /// An operation that is not known here; ENOSYS tells the kernel to do without.
    Unknown { opcode: u32 },
}

/// A change of attributes; only what is `Some` changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permissions (and type, unchanged).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the content.
    pub mtime: Option<SetTime>,
    /// The handle it came through: ftruncate, but never fchmod, fchown or futimens.
    pub handle: Option<HandleId>,
    /// Who truncates.
    pub lock_owner: Option<u64>,
    /// Strip suid, and sgid of a file that its group may execute.
    pub kill_suidgid: bool,
}

/// A new time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The time at which it is carried out.
    Now,
    /// This time.
    At(Timespec),
}

/// Bytes to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// The handle; any handle of the node when `cached`.
    pub handle: HandleId,
    /// Where to.
    pub offset: u64,
    /// The bytes.
    pub data: &'a [u8],
    /// Flags of the open file as they are now.
    pub flags: u32,
    /// A page of a mapping goes back, not a write(2): it belongs at `offset` whatever `flags` say.
    pub cached: bool,
    /// Strip suid, and sgid of a file that its group may execute.
    pub kill_suidgid: bool,
}

/// A copy inside the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the arguments of copy_file_range(2)")]
pub struct CopyFileRange {
    pub handle_in: HandleId,
    pub offset_in: u64,
    pub node_out: NodeId,
    pub handle_out: HandleId,
    pub offset_out: u64,
    pub length: u64,
    pub flags: u64,
}

/// A byte-range or whole-file lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRequest {
    /// The handle it came through.
    pub handle: HandleId,
    /// Whose lock.
    pub owner: u64,
    /// Range and kind.
    pub lock: FileLock,
    /// flock(2), not fcntl(2).
    pub flock: bool,
}
