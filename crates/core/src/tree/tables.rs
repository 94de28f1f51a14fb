//! Where a state keeps what it knows.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Bound;

use serde::Serialize;

use super::encode;
use super::id::{EntryId, FileId, LinkId, OpId};
use super::op::Name;
use super::record::{FileRecord, LinkRecord, MoveRecord, Rank, Touched, Written};
use super::seen::Seen;

/// Tables of records, to look things up in.
pub trait Look {
    type Error;

    fn file(&self, id: FileId) -> Result<Option<FileRecord>, Self::Error>;

    fn link(&self, id: LinkId) -> Result<Option<LinkRecord>, Self::Error>;

    /// Returns the links that are shown under a name.
    fn named(&self, parent: FileId, name: &Name) -> Result<BTreeSet<LinkId>, Self::Error>;

    /// Returns the names of a directory after one of them, at most so many.
    fn names(
        &self,
        parent: FileId,
        after: Option<&Name>,
        most: usize,
    ) -> Result<Vec<(Name, BTreeSet<LinkId>)>, Self::Error>;

    fn touches(&self, what: Touched) -> Result<Vec<OpId>, Self::Error>;

    /// Returns the moves of directories from a place in the order on, the first first.
    fn moves_from(&self, rank: Rank) -> Result<Vec<(Rank, MoveRecord)>, Self::Error>;

    /// Returns a version as it was written, also one in whose place others came.
    fn version(&self, id: OpId) -> Result<Option<Written>, Self::Error>;

    /// Returns what the author of an entry had seen.
    fn seen(&self, entry: EntryId) -> Result<Option<Seen>, Self::Error>;

    /// Returns the sum of all records.
    fn sum(&self) -> Result<Sum, Self::Error>;
}

impl<T: Look> Look for &T {
    type Error = T::Error;

    fn file(&self, id: FileId) -> Result<Option<FileRecord>, T::Error> {
        (**self).file(id)
    }

    fn link(&self, id: LinkId) -> Result<Option<LinkRecord>, T::Error> {
        (**self).link(id)
    }

    fn named(&self, parent: FileId, name: &Name) -> Result<BTreeSet<LinkId>, T::Error> {
        (**self).named(parent, name)
    }

    fn names(
        &self,
        parent: FileId,
        after: Option<&Name>,
        most: usize,
    ) -> Result<Vec<(Name, BTreeSet<LinkId>)>, T::Error> {
        (**self).names(parent, after, most)
    }

    fn touches(&self, what: Touched) -> Result<Vec<OpId>, T::Error> {
        (**self).touches(what)
    }

    fn moves_from(&self, rank: Rank) -> Result<Vec<(Rank, MoveRecord)>, T::Error> {
        (**self).moves_from(rank)
    }

    fn version(&self, id: OpId) -> Result<Option<Written>, T::Error> {
        (**self).version(id)
    }

    fn seen(&self, entry: EntryId) -> Result<Option<Seen>, T::Error> {
        (**self).seen(entry)
    }

    fn sum(&self) -> Result<Sum, T::Error> {
        (**self).sum()
    }
}

/// Tables of records. What is put there is found at once.
pub trait Tables: Look {
    fn put_file(&mut self, id: FileId, record: &FileRecord) -> Result<(), Self::Error>;
    fn put_link(&mut self, id: LinkId, record: &LinkRecord) -> Result<(), Self::Error>;
    fn put_named(&mut self, parent: FileId, name: &Name, link: LinkId) -> Result<(), Self::Error>;
    fn take_named(&mut self, parent: FileId, name: &Name, link: LinkId) -> Result<(), Self::Error>;
    fn put_touch(&mut self, what: Touched, by: OpId) -> Result<(), Self::Error>;
    fn put_move(&mut self, rank: Rank, record: &MoveRecord) -> Result<(), Self::Error>;
    fn put_version(&mut self, id: OpId, version: &Written) -> Result<(), Self::Error>;
    fn put_seen(&mut self, entry: EntryId, seen: &Seen) -> Result<(), Self::Error>;
    fn put_sum(&mut self, sum: Sum) -> Result<(), Self::Error>;
}

/// A sum over records, whatever their order: two states that are the same have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(pub [u64; 4]);

impl Sum {
    /// Counts a record: what it is of, its id, and what is known of it.
    pub fn add(&mut self, record: &[u8]) {
        self.fold(record, u64::wrapping_add);
    }

    /// Counts a record in place of another of the same id. Of what nothing is known nothing is counted, whether it was
    /// spoken of or not.
    pub(super) fn replace<R>(&mut self, kind: u8, id: &[u8; 16], before: &R, now: &R)
    where
        R: Serialize + Default + PartialEq,
    {
        if before == now {
            return;
        }
        let nothing = R::default();
        let written = |record| encode::append(record, [&[kind], &id[..]].concat());
        if *before != nothing {
            self.fold(&written(before), u64::wrapping_sub);
        }
        if *now != nothing {
            self.add(&written(now));
        }
    }

    fn fold(&mut self, record: &[u8], with: impl Fn(u64, u64) -> u64) {
        let hash = blake3::hash(record);
        for (sum, part) in self.0.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
            *sum = with(*sum, u64::from_le_bytes(part.try_into().expect("parts have eight bytes")));
        }
    }
}

/// Tables in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    files: BTreeMap<FileId, FileRecord>,
    links: BTreeMap<LinkId, LinkRecord>,
    names: BTreeMap<FileId, BTreeMap<Name, BTreeSet<LinkId>>>,
    touches: BTreeMap<Touched, BTreeSet<OpId>>,
    moves: BTreeMap<Rank, MoveRecord>,
    versions: BTreeMap<OpId, Written>,
    seen: BTreeMap<EntryId, Seen>,
    sum: Sum,
}

impl Look for Memory {
    type Error = Infallible;

    fn file(&self, id: FileId) -> Result<Option<FileRecord>, Infallible> {
        Ok(self.files.get(&id).cloned())
    }

    fn link(&self, id: LinkId) -> Result<Option<LinkRecord>, Infallible> {
        Ok(self.links.get(&id).cloned())
    }

    fn named(&self, parent: FileId, name: &Name) -> Result<BTreeSet<LinkId>, Infallible> {
        let links = self.names.get(&parent).and_then(|names| names.get(name));
        Ok(links.cloned().unwrap_or_default())
    }

    fn names(
        &self,
        parent: FileId,
        after: Option<&Name>,
        most: usize,
    ) -> Result<Vec<(Name, BTreeSet<LinkId>)>, Infallible> {
        let Some(names) = self.names.get(&parent) else { return Ok(Vec::new()) };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let some = names.range::<Name, _>((from, Bound::Unbounded)).take(most);
        Ok(some.map(|(name, links)| (name.clone(), links.clone())).collect())
    }

    fn touches(&self, what: Touched) -> Result<Vec<OpId>, Infallible> {
        Ok(self.touches.get(&what).into_iter().flatten().copied().collect())
    }

    fn moves_from(&self, rank: Rank) -> Result<Vec<(Rank, MoveRecord)>, Infallible> {
        Ok(self.moves.range(rank..).map(|(rank, record)| (*rank, record.clone())).collect())
    }

    fn version(&self, id: OpId) -> Result<Option<Written>, Infallible> {
        Ok(self.versions.get(&id).cloned())
    }

    fn seen(&self, entry: EntryId) -> Result<Option<Seen>, Infallible> {
        Ok(self.seen.get(&entry).cloned())
    }

    fn sum(&self) -> Result<Sum, Infallible> {
        Ok(self.sum)
    }
}

impl Tables for Memory {
    fn put_file(&mut self, id: FileId, record: &FileRecord) -> Result<(), Infallible> {
        self.files.insert(id, record.clone());
        Ok(())
    }

    fn put_link(&mut self, id: LinkId, record: &LinkRecord) -> Result<(), Infallible> {
        self.links.insert(id, record.clone());
        Ok(())
    }

    fn put_named(&mut self, parent: FileId, name: &Name, link: LinkId) -> Result<(), Infallible> {
        self.names.entry(parent).or_default().entry(name.clone()).or_default().insert(link);
        Ok(())
    }

    fn take_named(&mut self, parent: FileId, name: &Name, link: LinkId) -> Result<(), Infallible> {
        let Some(names) = self.names.get_mut(&parent) else { return Ok(()) };
        if let Some(links) = names.get_mut(name) {
            links.remove(&link);
            if links.is_empty() {
                names.remove(name);
            }
        }
        if names.is_empty() {
            self.names.remove(&parent);
        }
        Ok(())
    }

    fn put_touch(&mut self, what: Touched, by: OpId) -> Result<(), Infallible> {
        self.touches.entry(what).or_default().insert(by);
        Ok(())
    }

    fn put_move(&mut self, rank: Rank, record: &MoveRecord) -> Result<(), Infallible> {
        self.moves.insert(rank, record.clone());
        Ok(())
    }

    fn put_version(&mut self, id: OpId, version: &Written) -> Result<(), Infallible> {
        self.versions.insert(id, version.clone());
        Ok(())
    }

    fn put_seen(&mut self, entry: EntryId, seen: &Seen) -> Result<(), Infallible> {
        self.seen.insert(entry, seen.clone());
        Ok(())
    }

    fn put_sum(&mut self, sum: Sum) -> Result<(), Infallible> {
        self.sum = sum;
        Ok(())
    }
}
