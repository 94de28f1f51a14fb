//! What the server tells the kernel unasked.

use std::sync::{Arc, Weak};

use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::abi::{self, notify};
use crate::channel::Channel;
use crate::names::Names;
use crate::request::NodeId;

/// Tells the kernel to drop what it has cached. What is not cached is no error, nor is a mount
/// that has ended.
#[derive(Clone, Debug)]
pub struct Notifier {
    /// Weak, so that a forgotten notifier does not keep a mount without a server half alive.
    channel: Weak<Channel>,
    /// `None` where all is dropped on the same channel.
    names: Option<Weak<Names>>,
}

/// Which part of a node is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// The attributes.
    Attributes,
    /// The attributes and all content.
    Everything,
    /// The attributes and the content in this range.
    Range {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
}

impl Notifier {
    pub(crate) fn new(channel: &Arc<Channel>, names: Option<&Arc<Names>>) -> Notifier {
        Notifier { channel: Arc::downgrade(channel), names: names.map(Arc::downgrade) }
    }

    /// Drops attributes, and maybe content, of a node. With content the kernel takes page locks
    /// that a READ or WRITE in progress may hold: not from a thread that has yet to answer one.
    ///
    /// Returns whether the kernel knows the node. If not, answers that bring it may be on their way,
    /// and are believed.
    pub fn inval_inode(&self, node: NodeId, stale: Stale) -> Result<bool, Errno> {
        // A length of 0 means: to the end. A negative offset means: no content.
        let (offset, length) = match stale {
            Stale::Attributes => (-1, 0),
            Stale::Everything => (0, 0),
            Stale::Range { offset, length } => (offset.cast_signed(), length.cast_signed()),
        };
        let message = abi::InvalInodeOut { node: node.0, offset, length };
        match stale {
            Stale::Attributes => self.tell(notify::INVAL_INODE, message.as_bytes(), &[]),
            Stale::Everything | Stale::Range { .. } => {
                self.drop_apart(notify::INVAL_INODE, message.as_bytes(), &[])
            }
        }
    }

    /// Puts bytes into what the kernel has cached of a node, which it takes to be at least as long from
    /// then on, whatever answer is on its way. It takes page locks as for content that is dropped.
    pub fn store(&self, node: NodeId, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let size = u32::try_from(bytes.len()).map_err(|_| Errno::TOOBIG)?;
        let message = abi::StoreOut { node: node.0, offset, size, padding: 0 };
        self.send(notify::STORE, message.as_bytes(), bytes)
    }

    /// Drops a name. The kernel takes the directory's lock, which a CREATE, UNLINK, … that is
    /// not yet answered holds: only from a thread that nobody's answer waits for.
    pub fn inval_entry(&self, parent: NodeId, name: &[u8]) -> Result<(), Errno> {
        let message = abi::InvalEntryOut { parent: parent.0, name_len: len_of(name)?, flags: 0 };
        self.drop_apart(notify::INVAL_ENTRY, message.as_bytes(), &terminated(name)).map(drop)
    }

    /// Has the kernel forget nodes, in this order, that nobody uses (Linux ≥ 6.18; `EINVAL` before).
    /// A directory is in use while something in it is known. Takes no locks of directories.
    pub fn prune(&self, nodes: &[NodeId]) -> Result<(), Errno> {
        let count = u32::try_from(nodes.len()).map_err(|_| Errno::TOOBIG)?;
        let message = abi::PruneOut { count, padding: 0, spare: 0 };
        let nodes: Vec<u64> = nodes.iter().map(|node| node.0).collect();
        self.send(notify::PRUNE, message.as_bytes(), nodes.as_bytes())
    }

    /// Returns whether names are dropped by a thread of the session's own. Then whoever drops names
    /// may have other descriptors than the session.
    pub fn drops_names_apart(&self) -> bool {
        self.names.is_some()
    }

    /// As [`Notifier::inval_entry`], but only while the name stands for `child`, and watchers
    /// are told that it is deleted.
    pub fn delete(&self, parent: NodeId, child: NodeId, name: &[u8]) -> Result<(), Errno> {
        let (parent, child, name_len) = (parent.0, child.0, len_of(name)?);
        let message = abi::DeleteOut { parent, child, name_len, padding: 0 };
        self.drop_apart(notify::DELETE, message.as_bytes(), &terminated(name)).map(drop)
    }

    /// Sends what has to wait for a lock of the kernel.
    fn drop_apart(&self, code: i32, message: &[u8], more: &[u8]) -> Result<bool, Errno> {
        let Some(names) = &self.names else { return self.tell(code, message, more) };
        let Some(names) = names.upgrade() else { return Ok(false) };
        is_known(names.tell(code, [message, more].concat()))
    }

    fn send(&self, code: i32, message: &[u8], more: &[u8]) -> Result<(), Errno> {
        self.tell(code, message, more).map(drop)
    }

    fn tell(&self, code: i32, message: &[u8], more: &[u8]) -> Result<bool, Errno> {
        let Some(channel) = self.channel.upgrade() else { return Ok(false) };
        is_known(channel.send(0, code, message, more))
    }
}

/// What the kernel does not know, and a mount that has ended, need not be told of.
fn is_known(outcome: Result<(), Errno>) -> Result<bool, Errno> {
    match outcome {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::NODEV) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn len_of(name: &[u8]) -> Result<u32, Errno> {
    u32::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)
}

fn terminated(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 1);
    bytes.extend_from_slice(name);
    bytes.push(0);
    bytes
}
