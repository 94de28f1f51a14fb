//! A directory as the source of a view: its nodes, and every ordinary operation on them.
//!
//! A *node* is a file, directory, … that the kernel knows by number; a *link* is a name that
//! leads to it. Operations are thin and synchronous and answer with the source's own errno.
//! What is open is the caller's to keep: [`OpenFile`], [`listing::OpenDirectory`].
//!
//! It must hold: no path leaves the source, for only single components are walked, from
//! descriptors of nodes, and ".." is answered from the links; a node never comes to stand for
//! another file; what a caller makes is the caller's. Permissions are the kernel's to check
//! (`default_permissions`), so there is no ACCESS. No view that is mounted in the source is walked
//! into. `/proc` must be mounted.
//!
//! Not here: locks, handles' numbers, time-outs of caches.

mod advisory;
mod apart;
mod attributes;
mod bare;
mod caller;
mod change;
mod control;
mod file;
mod listing;
mod own;
mod sighting;
mod source;
#[cfg(test)]
mod tests;
mod watch;

use std::ffi::{CStr, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use gate_api::mounts;
use gate_core::lock::key::FileKey;
use gate_fuse::{Attr, Errno, NodeId, StatFs};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::process::{Resource, Rlimit};

pub use advisory::{Bytes, Kind, flock, lock_bytes, lock_in_the_way};
pub use apart::KeptName;
pub use attributes::copy_attributes;
pub use control::Control;
pub use file::{OpenFile, back};

pub use own::Doing;
pub use sighting::{Pinned, Sighting, Stamp};

use bare::{Bare, Node, NodeKey};
use own::Own;
use watch::Watches;

use crate::nodes::{Anchor, Book, Nodes};
use crate::source::Found;

/// A directory of this machine, as a tree of nodes.
#[derive(Debug)]
pub struct Directory {
    nodes: Nodes<Bare>,
    /// Folded into file keys.
    machine: u64,
    /// `None` if nothing can be watched here.
    watches: Option<Arc<Watches>>,
    own: Own,
}

/// A file of this machine, whatever its names. While a node or a handle of it exists the number
/// is no other file's, for a descriptor pins the inode; so a generation (an ioctl on an open
/// file, which a lookup does not have) would tell nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode {
    /// File system: major and minor number.
    pub device: (u32, u32),
    /// Its number there.
    pub number: u64,
}

impl Inode {
    fn of(stat: &Statx) -> Inode {
        Inode { device: (stat.stx_dev_major, stat.stx_dev_minor), number: stat.stx_ino }
    }

    /// Its key at the broker: the machine and the device are one volume there.
    fn key(self, machine: u64) -> FileKey {
        let volume = gate_api::source::volume(machine, self.device.0, self.device.1);
        FileKey { volume, inode: self.number, generation: 0 }
    }
}

impl Directory {
    /// Takes a directory of this machine, opened before anything is mounted over it.
    pub fn new(root: impl AsFd, machine: u64) -> Result<Directory, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(root, c".", flags, Mode::empty())?;
        let stat = stat(&root)?;
        let watches = Watches::new().inspect_err(|errno| tracing::warn!(%errno, "no inotify"));
        let watches = watches.ok().map(Arc::new);
        let nodes = Nodes::new(Bare::new(root, &stat));
        let directory = Directory { nodes, machine, watches, own: Own::default() };
        directory.watch(&*directory.nodes.get(NodeId::ROOT)?);
        Ok(directory)
    }

    /// What the kernel knows of the nodes; each one that is known holds a descriptor.
    pub fn book(&self) -> &dyn Book {
        &self.nodes
    }

    /// Finds a name. "." and ".." are answered for NFS, from what is known.
    pub fn lookup(&self, parent: NodeId, name: &CStr) -> Result<Found, Errno> {
        match name.to_bytes() {
            b"." => self.found_again(parent),
            b".." if parent == NodeId::ROOT => self.found_again(parent),
            b".." => self.found_again(self.nodes.parent(parent).ok_or(Errno::STALE)?),
            _ => self.find(parent, name).map(|(found, _)| found),
        }
    }

    /// The file that a node stands for.
    pub fn file_key(&self, node: NodeId) -> Result<FileKey, Errno> {
        Ok(self.nodes.get(node)?.key.file.key(self.machine))
    }

    /// Whether all changes of what is in a directory are told.
    pub fn is_watched(&self, directory: NodeId) -> bool {
        self.nodes.get(directory).is_ok_and(|node| node.is_told())
    }

    /// What bears a name now, known or not; counts as no lookup.
    pub fn peek(&self, parent: NodeId, name: &CStr) -> Result<(FileKey, Attr), Errno> {
        let parent = self.nodes.get(parent)?;
        let stat = stat_at(&parent.descriptor, name)?;
        Ok((Inode::of(&stat).key(self.machine), attributes::attr_of(&stat)))
    }

    /// The attributes of a node.
    pub fn getattr(&self, node: NodeId) -> Result<Attr, Errno> {
        let node = self.nodes.get(node)?;
        Ok(attributes::attr_of(&stat(&node.descriptor)?))
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, node: NodeId) -> Result<Vec<u8>, Errno> {
        let node = self.nodes.get(node)?;
        Ok(rustix::fs::readlinkat(&node.descriptor, c"", Vec::new())?.into_bytes())
    }

    /// The figures of the file system that a node lies on.
    pub fn statfs(&self, node: NodeId) -> Result<StatFs, Errno> {
        let node = self.nodes.get(node)?;
        Ok(attributes::figures_of(&rustix::fs::fstatvfs(&node.descriptor)?))
    }

    /// Writes everything of the node's file system to its disk.
    pub fn syncfs(&self, node: NodeId) -> Result<(), Errno> {
        let node = self.nodes.get(node)?;
        rustix::fs::syncfs(node.reopen(OFlags::RDONLY)?)
    }

    fn found_again(&self, node: NodeId) -> Result<Found, Errno> {
        let node = self.nodes.found_again(node)?;
        match stat(&node.descriptor) {
            Ok(stat) => Ok(Found { node: node.id, attr: attributes::attr_of(&stat) }),
            Err(errno) => {
                self.nodes.forget(node.id, 1);
                Err(errno)
            }
        }
    }

    /// Who watches a directory in the view asks for nothing in it.
    fn watch_if_directory(&self, node: &Node) {
        if node.kind() == FileType::Directory {
            self.watch(node);
        }
    }

    fn enter(&self, directory: &Node) {
        self.nodes.enter();
        self.watch(directory);
    }

    fn watch(&self, directory: &Node) {
        if let Some(watches) = &self.watches {
            directory.watch(directory.id, watches);
        }
    }

    /// Finds a name. One that is not known is found by opening it: the open file pins the inode
    /// while the table is asked for it.
    fn find(&self, parent: NodeId, name: &CStr) -> Result<(Found, Arc<Node>), Errno> {
        let directory = self.nodes.get(parent)?;
        // Before it is looked at: what changes later is told.
        self.enter(&directory);
        let place = (parent, name.to_bytes());
        if self.nodes.child(place).is_some()
            && let Ok(stat) = stat_at(&directory.descriptor, name)
            && let Some(node) = self.nodes.found_known(&NodeKey::of(&stat), place)
        {
            self.watch_if_directory(&node);
            return Ok((Found { node: node.id, attr: attributes::attr_of(&stat) }, node));
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(&directory.descriptor, name, flags, Mode::empty())
            .inspect_err(|errno| {
                if *errno == Errno::NOENT {
                    self.nodes.unlinked(place);
                }
            })?;
        let stat = stat(&descriptor)?;
        if stat.stx_mnt_id != directory.key.mount && is_view(stat.stx_mnt_id)? {
            return Err(Errno::XDEV);
        }
        let node = self.nodes.found(Bare::new(descriptor, &stat), place);
        self.watch_if_directory(&node);
        Ok((Found { node: node.id, attr: attributes::attr_of(&stat) }, node))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(watches) = &self.watches {
            watches.close();
        }
    }
}

/// Lets this process open as many files as it may: every node that the kernel knows needs a
/// descriptor. Returns the new limit.
pub fn raise_descriptor_limit() -> Result<u64, Errno> {
    /// Linux' default for the most that any process may have (`fs.nr_open`).
    const DESCRIPTORS_MAX: u64 = 1 << 20;
    let had = rustix::process::getrlimit(Resource::Nofile);
    let hard = had.maximum.unwrap_or(DESCRIPTORS_MAX);
    // Only root may raise the hard limit.
    for limit in [DESCRIPTORS_MAX.max(hard), hard] {
        let wanted = Rlimit { current: Some(limit), maximum: Some(limit) };
        if rustix::process::setrlimit(Resource::Nofile, wanted).is_ok() {
            return Ok(limit);
        }
    }
    Err(Errno::PERM)
}

/// Reads what a call of libc returns that tells nothing but whether it failed.
fn checked(returned: c_int) -> Result<(), Errno> {
    match returned {
        0 => Ok(()),
        _ => Err(errno_of(&io::Error::last_os_error())),
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Returns the directory of this process's descriptors, which is walked to once.
fn descriptors() -> Result<BorrowedFd<'static>, Errno> {
    static OPEN: OnceLock<OwnedFd> = OnceLock::new();
    if OPEN.get().is_none() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Another thread may be faster: either will do.
        let _ = OPEN.set(rustix::fs::open("/proc/self/fd", flags, Mode::empty())?);
    }
    Ok(OPEN.get().expect("set above").as_fd())
}

/// Returns whether a mount, which is named by its number, is a gated view. There this process would
/// be a caller like any, and wait for those who wait for it.
fn is_view(mount: u64) -> Result<bool, Errno> {
    let table = mounts::all().map_err(|error| errno_of(&error))?;
    Ok(table.iter().any(|known| known.id == mount && known.is_gated))
}

fn descriptor_path(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

fn stat(descriptor: &OwnedFd) -> Result<Statx, Errno> {
    rustix::fs::statx(descriptor, c"", AtFlags::EMPTY_PATH, STAT_FIELDS)
}

fn stat_at(directory: &OwnedFd, name: &CStr) -> Result<Statx, Errno> {
    rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, STAT_FIELDS)
}

const STAT_FIELDS: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);
