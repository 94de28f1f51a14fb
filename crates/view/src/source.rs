//! What is behind a view: a tree of nodes, and every operation on them.
//!
//! A *node* is a file, directory, … that the kernel knows by number; a *link* is a name that leads
//! to it. What is open is the caller's to keep: [`File`], [`Listing`].
//!
//! It must hold: each call is synchronous and answers with the errno that its caller is to see; a
//! source tells nobody of what it did, for that is the view's to do; it waits for disks, and never for
//! the broker, the kernel or another request; what a name leads to is found from a node and one
//! component, so no path leaves it; a node never comes to stand for another file, but by
//! [`Nodes::succeed`](crate::nodes::Nodes::succeed). Who finds or makes a node counts a lookup of it
//! ([`Found`]).
//!
//! Not here: locks, handles' numbers, time-outs of caches.

mod news;

use std::ffi::CStr;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use gate_core::id::Token;
use gate_core::lock::claim::Process;
use gate_core::lock::key::FileKey;
use gate_fuse::{
    Attr, Caller, CopyFileRange, DirEntry, Errno, NodeId, SetAttr, StatFs, Statx, Write,
};

pub use crate::directory::{Control, Doing};
use crate::nodes::{Book, Review};
pub use news::{Change, Happening, Heard, News, What};

/// A tree of nodes.
pub trait Source: Send + Sync + 'static {
    /// What the kernel knows of the nodes: kept by the source, which alone knows what a node is. It
    /// notes there each name that it finds, makes, moves or removes.
    fn book(&self) -> &dyn Book;

    /// Finds a name. "." and ".." are answered for NFS, from what is known.
    fn lookup(&self, parent: NodeId, name: &CStr) -> Result<Found, Errno>;

    /// What bears a name now, known or not; counts as no lookup.
    fn peek(&self, parent: NodeId, name: &CStr) -> Result<(FileKey, Attr), Errno>;

    /// The attributes of a node.
    fn getattr(&self, node: NodeId) -> Result<Attr, Errno>;

    /// The attributes of a node, its birth among them if the source tells it.
    fn statx(&self, node: NodeId) -> Result<(Attr, Statx), Errno>;

    /// The file that a node stands for, as the broker knows it: the same in all views of the file.
    fn file_key(&self, node: NodeId) -> Result<FileKey, Errno>;

    /// The target of a symbolic link.
    fn readlink(&self, node: NodeId) -> Result<Vec<u8>, Errno>;

    /// The figures of the file system that a node lies on.
    fn statfs(&self, node: NodeId) -> Result<StatFs, Errno>;

    /// Whether a directory has no names but its own.
    fn is_empty(&self, parent: NodeId, name: &CStr) -> Result<bool, Errno>;

    /// Opens a directory.
    fn opendir(&self, node: NodeId) -> Result<Box<dyn Listing>, Errno>;

    /// Opens a file.
    fn open(&self, node: NodeId, opening: &Opening<'_>) -> Result<Box<dyn File>, Errno>;

    /// Makes a file and opens it. Without O_EXCL a file that somebody has just made is opened instead,
    /// if the caller may.
    fn create(
        &self,
        at: (NodeId, &CStr),
        make: &Make<'_>,
        opening: &Opening<'_>,
    ) -> Result<(Found, Box<dyn File>), Errno>;

    /// Makes a file without a name, and opens it. O_EXCL says that it will never get one.
    fn tmpfile(
        &self,
        parent: NodeId,
        make: &Make<'_>,
        opening: &Opening<'_>,
    ) -> Result<(Found, Box<dyn File>), Errno>;

    /// Makes a directory.
    fn mkdir(&self, parent: NodeId, name: &CStr, make: &Make<'_>) -> Result<Found, Errno>;

    /// Makes a file, FIFO, socket or device node.
    fn mknod(
        &self,
        parent: NodeId,
        name: &CStr,
        make: &Make<'_>,
        rdev: u32,
    ) -> Result<Found, Errno>;

    /// Makes a symbolic link.
    fn symlink(
        &self,
        parent: NodeId,
        name: &CStr,
        target: &CStr,
        caller: &Caller,
    ) -> Result<Found, Errno>;

    /// Gives a node a further name.
    fn link(&self, existing: NodeId, parent: NodeId, name: &CStr) -> Result<Found, Errno>;

    /// Removes the name of anything but a directory.
    fn unlink(&self, parent: NodeId, name: &CStr) -> Result<(), Errno>;

    /// Removes an empty directory.
    fn rmdir(&self, parent: NodeId, name: &CStr) -> Result<(), Errno>;

    /// Renames, with the flags of renameat2(2).
    fn rename(
        &self,
        from: (NodeId, &CStr),
        to: (NodeId, &CStr),
        flags: u32,
        by: &Who,
    ) -> Result<(), Errno>;

    /// Changes attributes and returns those that then hold. `file` is the open file that a truncation
    /// came through, if any; it is one of this source's.
    fn setattr(
        &self,
        caller: &Caller,
        node: NodeId,
        file: Option<&dyn File>,
        change: &SetAttr,
    ) -> Result<Attr, Errno>;

    /// An extended attribute of at most `size` bytes.
    fn getxattr(&self, node: NodeId, name: &CStr, size: u32) -> Result<Vec<u8>, Errno>;

    /// The size of an extended attribute.
    fn xattr_size(&self, node: NodeId, name: &CStr) -> Result<usize, Errno>;

    /// The names of the extended attributes that a caller may see, each ended by NUL.
    fn listxattr(&self, caller: &Caller, node: NodeId) -> Result<Vec<u8>, Errno>;

    /// Sets an extended attribute.
    fn setxattr(&self, caller: &Caller, node: NodeId, xattr: &SetXattr<'_>) -> Result<(), Errno>;

    /// Removes an extended attribute.
    fn removexattr(&self, node: NodeId, name: &CStr) -> Result<(), Errno>;

    /// Writes everything of the node's file system to its disk.
    fn syncfs(&self, node: NodeId) -> Result<(), Errno>;

    /// Does what ioctl(2) asks of a file, and returns what it tells.
    fn control(&self, _: NodeId, _: &Caller, _: (Control, &[u8])) -> Result<Vec<u8>, Errno> {
        Err(Errno::NOTTY)
    }

    /// Whether all changes of what is in a directory are told. The kernel then keeps its listing for as
    /// long as the time at which it was changed stays the same.
    fn is_watched(&self, _directory: NodeId) -> bool {
        false
    }

    /// What waits for news, if there ever are any.
    fn news(&self) -> Option<Arc<dyn News>> {
        None
    }

    /// Returns what was told since this was last asked.
    fn heard(&self) -> Heard {
        Heard::default()
    }

    /// Begins to change what is in a file, where that could be taken for news.
    fn begin_to_write(&self, _: NodeId) -> Option<Doing<'_>> {
        None
    }
}

/// Written once for all.
impl dyn Source {
    /// Whether a name leads to a known node.
    pub fn leads_to(&self, (parent, name): (NodeId, &CStr), node: NodeId) -> bool {
        match (self.file_key(node), self.peek(parent, name)) {
            (Ok(key), Ok((there, _))) => key == there,
            (Err(_), _) | (_, Err(_)) => false,
        }
    }

    /// Looks at a file that is being opened. What the kernel then reads counts as seen now.
    pub fn review(&self, node: NodeId) -> Result<Review, Errno> {
        Ok(self.book().review(node, &self.getattr(node)?))
    }

    /// Whether a node's attributes are others than the kernel was last told.
    pub fn has_news(&self, node: NodeId) -> bool {
        self.getattr(node).is_ok_and(|attr| !self.book().was_told(node, &attr))
    }

    /// Whether a node has no name any more, anywhere.
    pub fn is_gone(&self, node: NodeId) -> bool {
        self.getattr(node).is_ok_and(|attr| attr.nlink == 0)
    }
}

/// An open file; dropping it closes it. What it holds stays readable whatever becomes of its names.
pub trait File: Send + Sync + fmt::Debug {
    /// Reads; less than the buffer's length only at the end of the file.
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno>;

    /// Reads one byte as nobody who reads: that does not count as an access. `None` beyond the end.
    fn peek(&self, offset: u64) -> Result<Option<u8>, Errno>;

    /// Writes. What was opened to append is appended, wherever the kernel believed the end to be; but
    /// not what was stored in a mapping.
    fn write(&self, write: &Write<'_>) -> Result<usize, Errno>;

    /// Puts what was written on the disk.
    fn sync(&self, data_only: bool) -> Result<(), Errno>;

    /// Reports errors of earlier writes as close(2) does.
    fn flush(&self) -> Result<(), Errno>;

    /// Returns whether a close may bring errors that no earlier call did, as far as is known.
    fn may_fail_at_close(&self) -> bool;

    /// Reserves, punches or zeroes a range, with the modes of fallocate(2).
    fn allocate(&self, caller: &Caller, mode: u32, offset: u64, length: u64) -> Result<(), Errno>;

    /// Finds data or a hole. Other ways to seek are the kernel's own.
    fn seek(&self, offset: u64, whence: u32) -> Result<u64, Errno>;

    /// Copies a range into another file of the source. Whoever cannot is asked no more: the kernel
    /// reads and writes instead.
    fn copy_to(&self, _to: &dyn File, _: &Caller, _: &CopyFileRange) -> Result<u32, Errno> {
        Err(Errno::NOSYS)
    }

    /// The file of this machine that it is, if it is one: for what goes past the view, and for locks
    /// that others see.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// An open directory; dropping it closes it.
pub trait Listing: Send + Sync + fmt::Debug {
    /// Shows entries, with their names once more, from a mark on until one is not taken; that one is the
    /// next to be shown. A mark is the `offset` of the entry before, and 0 begins anew.
    fn visit(
        &self,
        mark: u64,
        take: &mut dyn FnMut(&DirEntry<'_>, &CStr) -> bool,
    ) -> Result<(), Errno>;

    /// Puts the directory's entries on the disk.
    fn sync(&self, data_only: bool) -> Result<(), Errno>;
}

/// A node and its attributes. Each one counts as a lookup, which the kernel gives back when it
/// was told, and the holder must give back ([`Book::forget`]) when it was not.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The node.
    pub node: NodeId,
    /// Its attributes.
    pub attr: Attr,
}

/// One open, as far as it matters to what is opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// Those of open(2).
    pub flags: u32,
    /// The kernel's wish for O_TRUNC.
    pub kill_suidgid: bool,
    /// That of its turn; `None` without one.
    pub token: Option<Token>,
    /// Whose it is.
    pub by: &'a Who,
}

/// Who does it: what it has seen is what it may replace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Who {
    /// `None` if it lies beyond this pid namespace.
    pub process: Option<Process>,
    /// Whom it speaks for, told from others of the same name.
    pub agent: Option<Arc<str>>,
}

/// Who makes a node, and with which permissions.
#[derive(Clone, Copy, Debug)]
pub struct Make<'a> {
    /// Whose it will be.
    pub caller: &'a Caller,
    /// Type and permissions.
    pub mode: u32,
    /// The caller's umask; a default ACL of the directory overrides it.
    pub umask: u32,
}

/// An extended attribute to set.
#[derive(Clone, Copy, Debug)]
pub struct SetXattr<'a> {
    /// Its name.
    pub name: &'a CStr,
    /// Its value.
    pub value: &'a [u8],
    /// `XATTR_CREATE`, `XATTR_REPLACE`.
    pub flags: u32,
    /// An ACL is set by somebody who is not in the file's group: strip sgid.
    pub kill_sgid: bool,
}
