//! What is locked: files, paths, all beneath a directory, and there the holds and the new files.

use super::mode::Mode;
use crate::id::SpaceId;
use crate::path::ViewPath;

/// A file's identity, whatever its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    /// The machine and file system, folded into one number by who looks at them.
    pub volume: u64,
    /// The inode number.
    pub inode: u64,
    /// Tells a reused inode number from its former life.
    pub generation: u64,
}

/// What a lock is on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// F: the bytes of a file.
    File(FileKey),
    /// P: a name in a space, alone.
    Path(SpaceId, ViewPath),
    /// T: all beneath a directory.
    Tree(SpaceId, ViewPath),
    /// H: the holds at or beneath a directory.
    Holds(SpaceId, ViewPath),
    /// N: what a name stands for, of what has no other key yet: a file that is being made there or
    /// beneath.
    Names(SpaceId, ViewPath),
}

impl Key {
    /// Returns whether a holder lets its kin pass. A call that is under way waits for nobody, and
    /// nothing but the order of such calls says which file bears a name.
    pub fn knows_kin(&self) -> bool {
        !matches!(self, Key::Names(..))
    }
}

/// The keys of one request, each once, in the strongest mode asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<(Key, Mode)>);

impl Keys {
    /// Adds a key, or strengthens the mode it is asked in.
    pub fn add(&mut self, key: Key, mode: Mode) {
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = known.join(mode),
            None => self.0.push((key, mode)),
        }
    }

    /// Returns each key with its mode.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Key, Mode)> {
        self.0.iter().map(|(key, mode)| (key, *mode))
    }

    /// Returns whether every key of `other` is here in a mode that covers it.
    pub fn cover(&self, other: &Keys) -> bool {
        other
            .iter()
            .all(|(key, mode)| self.0.iter().any(|(known, held)| known == key && held.covers(mode)))
    }
}
