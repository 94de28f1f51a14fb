//! Directory listings, built up to the size the kernel asked for.

use zerocopy::IntoBytes;

use super::Entry;
use crate::abi;

/// One name of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Inode number shown to users.
    pub ino: u64,
    /// Where the listing goes on after this entry.
    pub offset: u64,
    /// Type of the node, `DT_*` of readdir(3).
    pub kind: u8,
    /// The name.
    pub name: &'a [u8],
}

/// The answer to READDIR.
#[derive(Debug)]
pub struct DirBuffer(Records);

impl DirBuffer {
    /// An empty listing of at most `size` bytes.
    pub fn new(size: u32) -> DirBuffer {
        DirBuffer(Records::new(size))
    }

    /// Adds an entry if it fits, and says whether it did.
    #[must_use = "an entry that does not fit belongs to the next answer"]
    pub fn push(&mut self, entry: &DirEntry<'_>) -> bool {
        self.0.push(&[], entry)
    }
}

impl AsRef<[u8]> for DirBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

/// The answer to READDIRPLUS.
#[derive(Debug)]
pub struct DirPlusBuffer(Records);

impl DirPlusBuffer {
    /// An empty listing of at most `size` bytes.
    pub fn new(size: u32) -> DirPlusBuffer {
        DirPlusBuffer(Records::new(size))
    }

    /// Whether an entry of this name fits. To be asked before the node is looked up: an entry
    /// that is sent counts as a lookup, one that is not sent must not.
    pub fn fits(&self, name: &[u8]) -> bool {
        self.0.fits(size_of::<abi::EntryOut>(), name)
    }

    /// Adds an entry if it fits, and says whether it did. Without a node the kernel learns
    /// the name alone, as it must for "." and "..".
    #[must_use = "an entry that does not fit belongs to the next answer"]
    pub fn push(&mut self, node: Option<&Entry>, entry: &DirEntry<'_>) -> bool {
        let wire = node.map_or_else(abi::EntryOut::default, Entry::wire);
        self.0.push(wire.as_bytes(), entry)
    }
}

impl AsRef<[u8]> for DirPlusBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

#[derive(Debug)]
struct Records {
    bytes: Vec<u8>,
    size_max: usize,
}

impl Records {
    fn new(size: u32) -> Records {
        let size_max = size as usize;
        Records { bytes: Vec::with_capacity(size_max.min(crate::session::MESSAGE_MAX)), size_max }
    }

    fn fits(&self, prefix_len: usize, name: &[u8]) -> bool {
        let len = prefix_len + size_of::<abi::Dirent>() + name.len();
        self.bytes.len() + len.next_multiple_of(abi::RECORD_ALIGN) <= self.size_max
    }

    fn push(&mut self, prefix: &[u8], entry: &DirEntry<'_>) -> bool {
        let Ok(name_len) = u32::try_from(entry.name.len()) else { return false };
        if !self.fits(prefix.len(), entry.name) {
            return false;
        }
        let DirEntry { ino, offset, kind, name } = *entry;
        let dirent = abi::Dirent { ino, offset, name_len, kind: u32::from(kind) };
        self.bytes.extend_from_slice(prefix);
        self.bytes.extend_from_slice(dirent.as_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.resize(self.bytes.len().next_multiple_of(abi::RECORD_ALIGN), 0);
        true
    }
}
