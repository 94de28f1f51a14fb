//! What the things of a bucket are called.
//!
//! All of them are bytes that mean the same on every machine, for ever: `docs/bucket-format.md`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The context under which ids of directories are derived.
const DIRECTORY: &str = "gate 2026 bucket v1 directory";

/// The highest bit of the first byte: set in ids of directories, clear in all others.
const IS_DIRECTORY: u8 = 0x80;

/// A feed: one device's run of entries, by the key that signs them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FeedId(pub [u8; 32]);

/// An entry: a feed, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntryId {
    pub feed: FeedId,
    pub number: u64,
}

/// One operation: its entry, and its place in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpId {
    pub entry: EntryId,
    pub place: u32,
}

/// A file, a symbolic link or a directory, whatever it is called.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId([u8; 16]);

/// A name that something has: a file may have several, a directory has one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkId([u8; 16]);

/// A chunk, by the hash of its sealed bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address(pub [u8; 32]);

impl FileId {
    /// The directory that has no name.
    pub const ROOT: FileId = {
        let mut bytes = [0; 16];
        bytes[0] = IS_DIRECTORY;
        FileId(bytes)
    };

    /// What is in no directory, and under which files are noted that have several versions. Nobody can put anything
    /// there, for it is that of no directory.
    pub(super) const SEVERAL: FileId = FileId([0; 16]);

    /// The directory in which versions are shown that are not beside their files. Nobody makes one of this id, for it
    /// is no hash.
    pub(super) const CONFLICTS: FileId = {
        let mut bytes = [0; 16];
        (bytes[0], bytes[15]) = (IS_DIRECTORY, 1);
        FileId(bytes)
    };

    /// Makes the id of something that is no directory from random bytes.
    pub fn of_file(mut random: [u8; 16]) -> FileId {
        random[0] &= !IS_DIRECTORY;
        FileId(random)
    }

    /// Returns the id of a directory: who makes the same one at the same time makes the same.
    ///
    /// `former` is the least number for which its maker knew no directory of that id.
    pub fn of_directory(parent: FileId, name: &[u8], former: u32) -> FileId {
        let mut hasher = blake3::Hasher::new_derive_key(DIRECTORY);
        hasher.update(&parent.0).update(&former.to_le_bytes()).update(name);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        bytes[0] |= IS_DIRECTORY;
        FileId(bytes)
    }

    /// Whether it is that of a directory.
    pub fn is_directory(self) -> bool {
        self.0[0] & IS_DIRECTORY != 0
    }

    /// Returns its bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl LinkId {
    /// Makes the id of a name of something that is no directory from random bytes.
    pub fn of_file(mut random: [u8; 16]) -> LinkId {
        random[0] &= !IS_DIRECTORY;
        LinkId(random)
    }

    /// Returns the id of the only name of a directory.
    pub fn of_directory(directory: FileId) -> LinkId {
        LinkId(directory.0)
    }

    /// Whether it is that of a directory.
    pub fn is_directory(self) -> bool {
        self.0[0] & IS_DIRECTORY != 0
    }

    /// Returns its bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

fn show(name: &str, bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{name}:")?;
    bytes.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Debug for FeedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("feed", &self.0, f)
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(if self.is_directory() { "directory" } else { "file" }, &self.0, f)
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("link", &self.0, f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("chunk", &self.0, f)
    }
}
