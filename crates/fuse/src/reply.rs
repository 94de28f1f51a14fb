//! What the kernel is answered.
//!
//! A [`Reply`] is owned and can be sent to any thread; it is answered exactly once. One that
//! is dropped answers EIO, so no caller hangs on a forgotten request. Which method fits which
//! operation is the kernel's rule; an unfit answer reaches the caller as EIO.

mod listing;
#[cfg(test)]
mod tests;

pub use listing::{DirBuffer, DirEntry, DirPlusBuffer};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::abi::{self, Attr, FileLock, OpenFlags, Statx};
use crate::channel::Channel;
use crate::park::{Parked, Parking};
use crate::request::{HandleId, NodeId, Unique};
use crate::scratch::ANSWERS;
use crate::session::MESSAGE_MAX;

/// A node as the answer to a lookup. Each one sent counts as one lookup of the node, to be
/// given back by `forget`.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The node.
    pub node: NodeId,
    /// Tells apart nodes that bear one number one after another; 0 where numbers are not reused.
    pub generation: u64,
    /// Its attributes.
    pub attr: Attr,
    /// How long the name may be cached.
    pub entry_valid: Duration,
    /// How long the attributes may be cached.
    pub attr_valid: Duration,
}

impl Entry {
    pub(crate) fn wire(&self) -> abi::EntryOut {
        abi::EntryOut {
            node: self.node.0,
            generation: self.generation,
            entry_valid: self.entry_valid.as_secs(),
            attr_valid: self.attr_valid.as_secs(),
            entry_valid_nsec: self.entry_valid.subsec_nanos(),
            attr_valid_nsec: self.attr_valid.subsec_nanos(),
            attr: self.attr,
        }
    }
}

/// An open file as the answer to OPEN, OPENDIR and CREATE.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// What later requests will call it.
    pub handle: HandleId,
    /// How the kernel shall treat it.
    pub flags: OpenFlags,
    /// The backing file, with [`OpenFlags::PASSTHROUGH`].
    pub backing: Option<BackingId>,
}

impl Opened {
    fn wire(&self) -> abi::OpenOut {
        let mut flags = self.flags;
        if flags.contains(OpenFlags::PASSTHROUGH) {
            // Of a backed file nothing is cached here, and the kernel fails an open that says so.
            flags.remove(OpenFlags::KEEP_CACHE);
        }
        abi::OpenOut {
            handle: self.handle.0,
            open_flags: flags.bits(),
            backing: self.backing.map_or(0, |backing| backing.0),
        }
    }
}

/// The figures of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// Size, in units of `frsize`.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Free blocks for ordinary users.
    pub bavail: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// Preferred size of I/O.
    pub bsize: u32,
    /// Longest name.
    pub namelen: u32,
    /// Unit of `blocks`.
    pub frsize: u32,
}

impl StatFs {
    fn wire(&self) -> abi::StatfsOut {
        let StatFs { blocks, bfree, bavail, files, ffree, bsize, namelen, frsize } = *self;
        let (padding, spare) = (0, [0; 6]);
        abi::StatfsOut {
            blocks,
            bfree,
            bavail,
            files,
            ffree,
            bsize,
            namelen,
            frsize,
            padding,
            spare,
        }
    }
}

/// A file of the server that the kernel reads and writes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackingId(pub(crate) i32);

/// The duty to answer one request.
#[must_use = "dropping it answers EIO"]
pub struct Reply {
    unique: Unique,
    channel: Arc<Channel>,
    parking: Arc<Parking>,
    answered: bool,
}

impl Reply {
    pub(crate) fn new(unique: Unique, channel: Arc<Channel>, parking: Arc<Parking>) -> Reply {
        Reply { unique, channel, parking, answered: false }
    }

    /// The number of the request.
    pub fn unique(&self) -> Unique {
        self.unique
    }

    /// Lays the reply aside until [`Parked::resume`]. If the request is interrupted first, was
    /// already, or the mount ends, `on_interrupt` gets it instead, once, on a thread that
    /// serves other requests too: let it not wait.
    pub fn park(self, on_interrupt: impl FnOnce(Reply) + Send + 'static) -> Parked {
        Arc::clone(&self.parking).park(self, Box::new(on_interrupt))
    }

    /// Done, with nothing to tell.
    pub fn ok(self) {
        self.send(0, &[], &[]);
    }

    /// Refused.
    pub fn error(self, errno: Errno) {
        self.send(-wire_errno(errno), &[], &[]);
    }

    /// A node: LOOKUP, SYMLINK, MKNOD, MKDIR, LINK.
    pub fn entry(self, entry: &Entry) {
        self.send(0, entry.wire().as_bytes(), &[]);
    }

    /// There is no such name, and that may be cached: LOOKUP.
    pub fn no_entry(self, valid: Duration) {
        let wire = abi::EntryOut {
            entry_valid: valid.as_secs(),
            entry_valid_nsec: valid.subsec_nanos(),
            ..abi::EntryOut::default()
        };
        self.send(0, wire.as_bytes(), &[]);
    }

    /// Attributes: GETATTR, SETATTR.
    pub fn attr(self, attr: &Attr, valid: Duration) {
        let wire = abi::AttrOut {
            valid: valid.as_secs(),
            valid_nsec: valid.subsec_nanos(),
            dummy: 0,
            attr: *attr,
        };
        self.send(0, wire.as_bytes(), &[]);
    }

    /// More attributes: STATX.
    pub fn statx(self, stat: &Statx, valid: Duration) {
        let wire = abi::StatxOut {
            valid: valid.as_secs(),
            valid_nsec: valid.subsec_nanos(),
            stat: *stat,
            ..abi::StatxOut::default()
        };
        self.send(0, wire.as_bytes(), &[]);
    }

    /// What an ioctl(2) that succeeded has put where its argument points to: IOCTL.
    pub fn ioctl(self, output: &[u8]) {
        self.send(0, abi::IoctlOut::default().as_bytes(), output);
    }

    /// An open file: OPEN, OPENDIR.
    pub fn opened(self, opened: &Opened) {
        self.send(0, opened.wire().as_bytes(), &[]);
    }

    /// A new file, open: CREATE, TMPFILE.
    pub fn created(self, entry: &Entry, opened: &Opened) {
        self.send(0, entry.wire().as_bytes(), opened.wire().as_bytes());
    }

    /// Bytes: READ, READLINK, GETXATTR, LISTXATTR.
    pub fn data(self, data: &[u8]) {
        self.send(0, data, &[]);
    }

    /// Bytes that `fill` puts at the start of a buffer of `size` bytes, saying how many. The
    /// buffer is the thread's own and kept: nothing is allocated, cleared or copied per call.
    pub fn data_with(self, size: u32, fill: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) {
        ANSWERS.with_borrow_mut(|answers| {
            let buffer = answers.first((size as usize).min(MESSAGE_MAX));
            match fill(buffer) {
                Ok(len) => {
                    self.data(&buffer[..len]);
                    answers.filled(len);
                }
                Err(errno) => self.error(errno),
            }
        });
    }

    /// How much was written or copied: WRITE, COPY_FILE_RANGE.
    pub fn written(self, size: u32) {
        self.send(0, abi::WriteOut { size, padding: 0 }.as_bytes(), &[]);
    }

    /// Figures: STATFS.
    pub fn statfs(self, figures: &StatFs) {
        self.send(0, figures.wire().as_bytes(), &[]);
    }

    /// The size of a value or list: GETXATTR and LISTXATTR of size 0.
    pub fn xattr_size(self, size: u32) {
        self.send(0, abi::GetxattrOut { size, padding: 0 }.as_bytes(), &[]);
    }

    /// A part of a listing: READDIR with a [`DirBuffer`], READDIRPLUS with a [`DirPlusBuffer`].
    pub fn directory(self, listing: impl AsRef<[u8]>) {
        self.send(0, listing.as_ref(), &[]);
    }

    /// An offset: LSEEK.
    pub fn lseek(self, offset: u64) {
        self.send(0, abi::LseekOut { offset }.as_bytes(), &[]);
    }

    /// The lock in the way: GETLK.
    pub fn lock(self, lock: &FileLock) {
        self.send(0, lock.as_bytes(), &[]);
    }

    pub(crate) fn init(self, agreed: &abi::InitOut) {
        self.send(0, agreed.as_bytes(), &[]);
    }

    fn send(mut self, error: i32, first: &[u8], second: &[u8]) {
        self.answered = true;
        self.channel.answer(self.unique, error, first, second);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            tracing::error!(unique = self.unique.0, "a request was dropped unanswered");
            self.channel.answer(self.unique, -wire_errno(Errno::IO), &[], &[]);
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reply").field(&self.unique).finish()
    }
}

/// The kernel takes only numbers below 512 for an answer; those above are its own.
fn wire_errno(errno: Errno) -> i32 {
    const ERRNO_MAX: i32 = 511;
    let raw = errno.raw_os_error();
    if (1..=ERRNO_MAX).contains(&raw) { raw } else { Errno::IO.raw_os_error() }
}
