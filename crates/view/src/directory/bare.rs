//! What a node of a directory stands for: an inode, pinned by a descriptor.
//!
//! As long as the node lives the inode's number is no other file's.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use gate_fuse::{Errno, NodeId};
use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::path::DecInt;

use super::watch::{Watch, Watches};
use super::{Inode, descriptor_path, descriptors};
use crate::nodes::Anchor;

/// A node, as it is used here.
pub(super) type Node = crate::nodes::Node<Bare>;

/// An inode.
#[derive(Debug)]
pub(super) struct Bare {
    pub key: NodeKey,
    kind: FileType,
    /// `O_PATH`: good for `*at` calls and for reopening, not for reading.
    pub descriptor: OwnedFd,
    /// Of a directory: `Some(None)` if it cannot be watched.
    watch: OnceLock<Option<Watch>>,
}

/// The file, and the mount it was found on: a bind mount shows one directory in two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NodeKey {
    pub file: Inode,
    pub mount: u64,
}

impl NodeKey {
    pub fn of(stat: &Statx) -> NodeKey {
        NodeKey { file: Inode::of(stat), mount: stat.stx_mnt_id }
    }
}

impl Bare {
    /// Of a freshly opened descriptor.
    pub fn new(descriptor: OwnedFd, stat: &Statx) -> Bare {
        let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
        Bare { key: NodeKey::of(stat), kind, descriptor, watch: OnceLock::new() }
    }

    /// Watches a directory, if that was not tried before.
    pub fn watch(&self, node: NodeId, watches: &Arc<Watches>) {
        self.watch.get_or_init(|| watches.add(node, &self.descriptor));
    }

    /// Opens it anew, for reading or writing.
    pub fn reopen(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let number = DecInt::from_fd(&self.descriptor);
        rustix::fs::openat(descriptors()?, number, flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// A path that leads to this very inode, for calls that take nothing but paths. It is not
    /// followed further: of a symbolic link it names the link.
    pub fn reopen_path(&self) -> String {
        descriptor_path(&self.descriptor)
    }
}

impl Anchor for Bare {
    type Key = NodeKey;

    fn key(&self) -> NodeKey {
        self.key
    }

    fn kind(&self) -> FileType {
        self.kind
    }

    fn is_told(&self) -> bool {
        self.watch.get().is_some_and(Option::is_some)
    }
}
