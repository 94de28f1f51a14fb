//! A directory as the source of a view: its nodes, and every ordinary operation on them.
//!
//! A *node* is a file, directory, … that the kernel knows by number; a *link* is a name that
//! leads to it. Operations are thin and synchronous and answer with the source's own errno.
//! What is open is the caller's to keep: [`OpenFile`], [`OpenDirectory`].
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
mod caller;
mod change;
mod control;
mod file;
mod listing;
mod nodes;
mod own;
mod sighting;
#[cfg(test)]
mod tests;
mod tree;
mod watch;

use std::ffi::{CStr, CString, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use gate_api::mounts;
use gate_fuse::{Attr, Errno, NodeId, StatFs};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::path::DecInt;
use rustix::process::{Resource, Rlimit};

pub use advisory::{Bytes, Kind};
pub use apart::KeptName;
pub use attributes::{SetXattr, copy_attributes};
pub use change::Make;
pub use control::Control;
pub use file::OpenFile;
pub use listing::OpenDirectory;
pub use own::{Doing, Heard};
pub use sighting::{Pinned, Sighting, Stamp};
pub use watch::{Change, Happening, Watches, What};

pub use nodes::{Idle, Population};
use nodes::{Node, Nodes};
use own::Own;

/// A directory of this machine, as a tree of nodes.
#[derive(Debug)]
pub struct Directory {
    nodes: Nodes,
    /// `None` if nothing can be watched here.
    watches: Option<Arc<Watches>>,
    own: Own,
    /// Somebody has looked into the root.
    is_entered: AtomicBool,
}

/// A file of this machine, whatever its names. While a node or a handle of it exists the number
/// is no other file's, for a descriptor pins the inode; so a generation (an ioctl on an open
/// file, which a lookup does not have) would tell nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// File system: major and minor number.
    pub device: (u32, u32),
    /// Inode number.
    pub inode: u64,
}

impl FileKey {
    fn of(stat: &Statx) -> FileKey {
        FileKey { device: (stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino }
    }
}

/// A node and its attributes. Each one counts as a lookup, which the kernel gives back when it
/// was told, and the holder must give back ([`Directory::forget`]) when it was not.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The node.
    pub node: NodeId,
    /// Its attributes.
    pub attr: Attr,
}

/// Which changes by others are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Those of the newest name.
    pub name: bool,
    /// Those of the attributes.
    pub attributes: bool,
}

/// A file that is being opened.
#[derive(Clone, Copy, Debug)]
pub struct Review {
    /// Its attributes.
    pub attr: Attr,
    /// Whether the content that the kernel has read of it still holds.
    pub content_holds: bool,
    /// Whether the kernel may take it for longer or shorter than it is, whatever it was told.
    pub size_is_unsure: bool,
    /// Whether the kernel is yet to be told to ask for its attributes.
    pub is_news: bool,
}

impl Directory {
    /// Takes a directory, opened before anything is mounted over it.
    pub fn new(root: impl AsFd) -> Result<Directory, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(root, c".", flags, Mode::empty())?;
        let stat = stat(&root)?;
        let watches = Watches::new().inspect_err(|errno| tracing::warn!(%errno, "no inotify"));
        let watches = watches.ok().map(Arc::new);
        let nodes = Nodes::new(root, &stat);
        let is_entered = AtomicBool::new(false);
        let directory = Directory { nodes, watches, own: Own::default(), is_entered };
        directory.watch(&*directory.nodes.get(NodeId::ROOT)?);
        Ok(directory)
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

    /// Takes back lookups of a node.
    pub fn forget(&self, node: NodeId, lookups: u64) {
        self.nodes.forget(node, lookups);
    }

    /// Returns how many nodes there are; each one that is known holds a descriptor.
    pub fn population(&self) -> Population {
        self.nodes.population()
    }

    /// Returns at most so many nodes that the kernel may be asked to forget, oldest first, those
    /// up to `after` last.
    pub fn idle(&self, after: NodeId, most: usize, busy: impl Fn(NodeId) -> bool) -> Vec<Idle> {
        self.nodes.idle(after, most, busy)
    }

    /// The path of a node from the root (which is empty), by its newest known name. `None` when
    /// no name of it is known, or the path is longer than 4095 bytes.
    pub fn path_of(&self, node: NodeId) -> Option<Vec<u8>> {
        self.nodes.path_of(node)
    }

    /// As [`Directory::path_of`], by each of its known names, the newest first.
    pub fn paths_of(&self, node: NodeId) -> Vec<Vec<u8>> {
        self.nodes.paths_of(node)
    }

    /// The newest known name of a node, and the directory that it is in; the root has none.
    pub fn link_of(&self, node: NodeId) -> Option<(NodeId, CString)> {
        let (parent, name) = self.nodes.newest(node)?;
        Some((parent, CString::new(&*name).ok()?))
    }

    /// The file that a node stands for.
    pub fn file_key(&self, node: NodeId) -> Result<FileKey, Errno> {
        Ok(self.nodes.get(node)?.key.file)
    }

    /// Notes that the kernel is told these attributes, and returns for which of the node's changes
    /// it need not ask: they are told from now on. What is done under other names of a file may be
    /// done where nobody looks.
    pub fn tell(&self, node: NodeId, attr: &Attr) -> Told {
        let Ok(node) = self.nodes.get(node) else { return Told { name: false, attributes: false } };
        node.tell(attr);
        let parent = self.nodes.parent_by_newest(node.id);
        let name = parent.is_some_and(|parent| parent.is_watched());
        let inside = match node.kind {
            FileType::Directory => node.is_watched(),
            _ => attr.nlink == 1,
        };
        // Of what changes again and again two answers may be on their way, and the kernel keeps
        // the one that it takes first.
        let attributes = name && inside && !nodes::is_fresh(attr, SystemTime::now());
        if attributes {
            node.trust();
        }
        Told { name, attributes }
    }

    /// Notes that the kernel, which asks next, will hear these.
    pub fn expect(&self, node: NodeId, attr: &Attr) {
        if let Ok(node) = self.nodes.get(node) {
            node.expect(attr);
        }
    }

    /// Notes that the kernel was told to ask for a node's attributes, which were these.
    pub fn asked(&self, node: NodeId, attr: &Attr) {
        if let Ok(node) = self.nodes.get(node) {
            node.ask(attr);
        }
    }

    /// Notes whether the kernel did not know a node when it was told to ask.
    pub fn set_unknown(&self, node: NodeId, is_unknown: bool) {
        if let Ok(node) = self.nodes.get(node) {
            node.set_unknown(is_unknown);
        }
    }

    /// Whether the kernel did not know a node when it was last told to ask, and is to be told again.
    pub fn is_unknown(&self, node: NodeId) -> bool {
        self.nodes.get(node).is_ok_and(|node| node.is_unknown())
    }

    /// Notes that the kernel is made to take a file to be as long as these say; returns whether it was
    /// not before.
    pub fn stretch(&self, node: NodeId, attr: &Attr) -> bool {
        self.nodes.get(node).is_ok_and(|node| node.stretch(attr))
    }

    /// Whether the kernel goes by these attributes of a node, or asks for them.
    ///
    /// That it was told them is not enough as long as an older answer may come before that one.
    pub fn is_sure(&self, node: NodeId, attr: &Attr) -> bool {
        self.nodes.get(node).is_ok_and(|node| node.is_sure(attr, SystemTime::now()))
    }

    /// Notes that the kernel trusts what it hears of a node for long.
    pub fn trust(&self, node: NodeId) {
        if let Ok(node) = self.nodes.get(node) {
            node.trust();
        }
    }

    /// Notes that the kernel asks for a node's attributes next; returns whether it would not have
    /// for long.
    pub fn distrust(&self, node: NodeId) -> bool {
        self.nodes.get(node).is_ok_and(|node| node.distrust())
    }

    /// Whether the kernel may have heard something older of a node after it was told what is so, and
    /// trust that.
    pub fn is_doubtful(&self, node: NodeId, attr: &Attr) -> bool {
        let is_doubtful =
            |node: &Node| node.is_unknown() || (node.trusts() && !node.was_asked(attr));
        self.nodes.get(node).is_ok_and(|node| is_doubtful(&node))
    }

    /// Whether a node has no name any more, anywhere.
    pub fn is_gone(&self, node: NodeId) -> bool {
        let Ok(node) = self.nodes.get(node) else { return false };
        stat(&node.descriptor).is_ok_and(|stat| stat.stx_nlink == 0)
    }

    /// Whether a node's attributes are others than the kernel was last told.
    pub fn has_news(&self, node: NodeId) -> bool {
        let Ok(node) = self.nodes.get(node) else { return false };
        stat(&node.descriptor).is_ok_and(|stat| !node.was_told(&attributes::attr_of(&stat)))
    }

    /// Looks at a file that is being opened. What the kernel then reads counts as seen now.
    pub fn review(&self, node: NodeId) -> Result<Review, Errno> {
        let node = self.nodes.get(node)?;
        let attr = attributes::attr_of(&stat(&node.descriptor)?);
        let now = SystemTime::now();
        let size_is_unsure = !node.is_size_sure(&attr, now);
        let is_news = !node.is_sure(&attr, now);
        Ok(Review { attr, content_holds: node.see(&attr, now), size_is_unsure, is_news })
    }

    /// Whether the kernel knows more of a node than its number, as it does of all but the root: it
    /// drops an answer that is on its way when the node is declared stale, and without the first of
    /// all lets nobody in.
    pub fn has_face(&self, node: NodeId) -> bool {
        node != NodeId::ROOT || self.is_entered.load(Ordering::Relaxed)
    }

    /// What others change in the directories that are watched, if any can be.
    pub fn watches(&self) -> Option<Arc<Watches>> {
        self.watches.clone()
    }

    /// Whether all changes of what is in a directory are told.
    pub fn is_watched(&self, directory: NodeId) -> bool {
        self.nodes.get(directory).is_ok_and(|node| node.is_watched())
    }

    /// Whether the kernel was told these attributes of a node.
    pub fn was_told(&self, node: NodeId, attr: &Attr) -> bool {
        self.nodes.get(node).is_ok_and(|node| node.was_told(attr))
    }

    /// All names that are known, each in its directory, with what they lead to.
    pub fn places(&self) -> Vec<(NodeId, Arc<[u8]>, NodeId)> {
        self.nodes.places()
    }

    /// Lets a file be found as another node from now on: what the kernel has cached of this one is not
    /// shared with those who open it later.
    pub fn retire(&self, node: NodeId) {
        self.nodes.retire(node);
    }

    /// Whether a file would be found as another node.
    pub fn is_retired(&self, node: NodeId) -> bool {
        self.nodes.is_retired(node)
    }

    /// Whether a name leads to a known node.
    pub fn leads_to(&self, (parent, name): (NodeId, &CStr), node: NodeId) -> bool {
        match (self.file_key(node), self.peek(parent, name)) {
            (Ok(key), Ok((there, _))) => key == there,
            (Err(_), _) | (_, Err(_)) => false,
        }
    }

    /// What bears a name now, known or not; counts as no lookup.
    pub fn peek(&self, parent: NodeId, name: &CStr) -> Result<(FileKey, Attr), Errno> {
        let parent = self.nodes.get(parent)?;
        let stat = stat_at(&parent.descriptor, name)?;
        Ok((FileKey::of(&stat), attributes::attr_of(&stat)))
    }

    /// The known node that bore a name when that was last looked up.
    pub fn known(&self, parent: NodeId, name: &CStr) -> Option<NodeId> {
        self.nodes.child((parent, name.to_bytes()))
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
        if node.kind == FileType::Directory {
            self.watch(node);
        }
    }

    fn enter(&self, directory: &Node) {
        self.is_entered.store(true, Ordering::Relaxed);
        self.watch(directory);
    }

    fn watch(&self, directory: &Node) {
        if let Some(watches) = &self.watches {
            directory.watch(watches);
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
            && let Some(node) = self.nodes.found_known(&stat, place)
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
        let node = self.nodes.found(descriptor, &stat, place);
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

impl Node {
    /// Opens the node anew, for reading or writing.
    fn reopen(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let number = DecInt::from_fd(&self.descriptor);
        rustix::fs::openat(descriptors()?, number, flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// A path that leads to this very inode, for calls that take nothing but paths. It is not
    /// followed further: of a symbolic link it names the link.
    fn reopen_path(&self) -> String {
        descriptor_path(&self.descriptor)
    }
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
