//! What is remembered of files and of their names.
//!
//! All of it follows from the set of operations alone, whatever the order in which they came.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::id::{EntryId, FeedId, FileId, LinkId, OpId};
use super::op::{Content, Fence, Kind, Name, Stamp};

/// Where an operation stands in the order of all: of two that contradict each other the later counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rank {
    pub lamport: u64,
    pub op: OpId,
}

impl Rank {
    /// No operation stands before this.
    pub const FIRST: Rank = {
        let entry = EntryId { feed: FeedId([0; 32]), number: 0 };
        Rank { lamport: 0, op: OpId { entry, place: 0 } }
    };
}

/// A value that was set, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set<T> {
    pub rank: Rank,
    pub value: T,
}

/// What is known of a file, a symbolic link or a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// What it is, as the first said who made it. Nobody said so yet of what is only spoken of.
    pub made: Option<Set<Kind>>,
    pub mode: Option<Set<u32>>,
    pub modified: Option<Set<Stamp>>,
    /// Extended attributes, those that were removed among them.
    pub extended: BTreeMap<Vec<u8>, Set<Option<Vec<u8>>>>,
    /// The versions of its content that no other came in place of.
    pub heads: BTreeMap<OpId, Version>,
    /// All names that it ever had.
    pub links: BTreeSet<LinkId>,
    /// Of a directory: how many names in it are shown.
    pub shown: u64,
}

/// One version of a file's content. What it holds is told by [`State::whole`](super::state::State::whole): a record
/// is read and written whenever anything about its file is, and a list of extents may be long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub rank: Rank,
    pub size: u64,
    pub fence: Option<Fence>,
}

/// A version as it was written. It never changes, whatever comes in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Where it stands in the order of all, with its operation.
    pub lamport: u64,
    pub size: u64,
    pub content: Content,
    /// The versions in whose place it came.
    pub base: Vec<OpId>,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    pub parent: FileId,
    pub name: Name,
}

/// What is known of a name that something has or had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// What bears it, as the first said who gave it.
    pub born: Option<Set<FileId>>,
    /// Where it is.
    pub place: Option<Set<Place>>,
    /// Who deleted it, and whether that counts for nothing: there was something that they had not seen.
    pub deletes: BTreeMap<OpId, bool>,
    /// Whether people see it.
    pub is_shown: bool,
}

/// A move of a directory, in the order of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveRecord {
    pub link: LinkId,
    pub to: Place,
    /// Where it was before.
    pub from: Option<Set<Place>>,
    /// A move that would have put it into itself was not.
    pub was_done: bool,
}

/// What an operation changes in such a way that a deletion must have seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Touched {
    File(FileId),
    Link(LinkId),
}

impl LinkRecord {
    /// Whether nobody deleted it who saw all of it.
    pub fn is_alive(&self) -> bool {
        self.deletes.values().all(|is_void| *is_void)
    }
}

impl FileRecord {
    /// Returns the version that bears the file's name: of several that of the latest turn.
    pub fn winner(&self) -> Option<(&OpId, &Version)> {
        self.heads.iter().max_by_key(|(_, version)| (version.fence, version.rank))
    }

    /// Returns all versions, the one that bears the name first, each before those of earlier turns.
    pub fn by_rank(&self) -> Vec<(&OpId, &Version)> {
        let mut heads: Vec<_> = self.heads.iter().collect();
        heads.sort_unstable_by_key(|(_, version)| std::cmp::Reverse((version.fence, version.rank)));
        heads
    }
}

/// Sets a value unless a later one is there.
pub(super) fn set<T>(place: &mut Option<Set<T>>, rank: Rank, value: T) {
    if place.as_ref().is_none_or(|former| former.rank < rank) {
        *place = Some(Set { rank, value });
    }
}

/// Sets a value unless an earlier one is there.
pub(super) fn set_first<T>(place: &mut Option<Set<T>>, rank: Rank, value: T) {
    if place.as_ref().is_none_or(|former| rank < former.rank) {
        *place = Some(Set { rank, value });
    }
}
