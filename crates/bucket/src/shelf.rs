//! A state's tables in the index: one table, whose keys begin with what they are of.
//!
//! | key | value |
//! |---|---|
//! | `f` file | its record |
//! | `l` link | its record |
//! | `n` directory, name, 0, link | nothing: that link is shown under that name |
//! | `t` 0 file or 1 link, operation | nothing: that touched it |
//! | `m` lamport, operation | a move of a directory |
//! | `v` operation | a version as it was written: lamport, size, content, and in whose place it came |
//! | `s` entry | what its author had seen: feeds and counts |
//! | `r` | the sum of all records |
//! | `a` | the entries that were applied: feeds and counts |
//!
//! Numbers are big-endian, so that keys stand in the order of what they mean; values are as
//! `docs/bucket-format.md` writes records. All of it can be made again from the entries.

pub mod rows;

use std::collections::BTreeSet;
use std::fmt;

use gate_core::tree::encode::encode;
use gate_core::tree::id::{EntryId, FeedId, FileId, LinkId, OpId};
use gate_core::tree::op::Name;
use gate_core::tree::record::{FileRecord, LinkRecord, MoveRecord, Rank, Touched, Written};
use gate_core::tree::seen::Seen;
use gate_core::tree::tables::{Look, Sum, Tables};
use redb::{ReadOnlyTable, ReadableTable, StorageError, Table, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::index::{self, Suspect};

type Bytes = &'static [u8];

/// The table of a state.
pub const TREE: TableDefinition<'static, Bytes, Bytes> = TableDefinition::new("tree 1");

/// Tables of a state, in a table of the index that is open to read or to write.
#[derive(Debug)]
pub struct Shelf<T>(pub T);

/// Why a record is not found or not put down.
#[derive(Debug)]
pub enum ShelfError {
    Storage(StorageError),
    /// What is there was not written by this: the index is to be made again.
    Damaged,
}

/// Tables of a state as they were at some time. What redb makes of pages that are damaged is an error here.
pub struct Snapshot {
    shelf: Shelf<ReadOnlyTable<Bytes, Bytes>>,
    suspect: Suspect,
}

impl Snapshot {
    pub fn new(shelf: Shelf<ReadOnlyTable<Bytes, Bytes>>, suspect: Suspect) -> Snapshot {
        Snapshot { shelf, suspect }
    }

    fn ask<T>(
        &self,
        ask: impl FnOnce(&Shelf<ReadOnlyTable<Bytes, Bytes>>) -> Result<T, ShelfError>,
    ) -> Result<T, ShelfError> {
        let answer = index::guarded(|| ask(&self.shelf)).unwrap_or(Err(ShelfError::Damaged));
        if let Err(ShelfError::Damaged | ShelfError::Storage(StorageError::Corrupted(_))) = &answer
        {
            self.suspect.raise();
        }
        answer
    }
}

impl Look for Snapshot {
    type Error = ShelfError;

    fn file(&self, id: FileId) -> Result<Option<FileRecord>, ShelfError> {
        self.ask(|shelf| shelf.file(id))
    }

    fn link(&self, id: LinkId) -> Result<Option<LinkRecord>, ShelfError> {
        self.ask(|shelf| shelf.link(id))
    }

    fn named(&self, parent: FileId, name: &Name) -> Result<BTreeSet<LinkId>, ShelfError> {
        self.ask(|shelf| shelf.named(parent, name))
    }

    fn names(
        &self,
        parent: FileId,
        after: Option<&Name>,
        most: usize,
    ) -> Result<Vec<(Name, BTreeSet<LinkId>)>, ShelfError> {
        self.ask(|shelf| shelf.names(parent, after, most))
    }

    fn touches(&self, what: Touched) -> Result<Vec<OpId>, ShelfError> {
        self.ask(|shelf| shelf.touches(what))
    }

    fn moves_from(&self, rank: Rank) -> Result<Vec<(Rank, MoveRecord)>, ShelfError> {
        self.ask(|shelf| shelf.moves_from(rank))
    }

    fn version(&self, id: OpId) -> Result<Option<Written>, ShelfError> {
        self.ask(|shelf| shelf.version(id))
    }

    fn seen(&self, entry: EntryId) -> Result<Option<Seen>, ShelfError> {
        self.ask(|shelf| shelf.seen(entry))
    }

    fn sum(&self) -> Result<Sum, ShelfError> {
        self.ask(Look::sum)
    }
}

impl<T: ReadableTable<Bytes, Bytes>> Shelf<T> {
    fn get<V: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<V>, ShelfError> {
        let found = self.0.get(key)?;
        found.map(|value| postcard::from_bytes(value.value()).map_err(damaged)).transpose()
    }

    /// Returns the entries that were applied.
    pub fn applied(&self) -> Result<Seen, ShelfError> {
        let counts: Option<Vec<_>> = self.get(b"a")?;
        Ok(counts.unwrap_or_default().into_iter().collect())
    }

    /// Calls for each key from one on that begins as wanted, until told to stop.
    fn each(
        &self,
        from: &[u8],
        prefix: &[u8],
        mut take: impl FnMut(&[u8], &[u8]) -> Result<bool, ShelfError>,
    ) -> Result<(), ShelfError> {
        for row in self.0.range(from..)? {
            let (key, value) = row?;
            let key = key.value();
            if !key.starts_with(prefix) || !take(key, value.value())? {
                break;
            }
        }
        Ok(())
    }
}

impl<T: ReadableTable<Bytes, Bytes>> Look for Shelf<T> {
    type Error = ShelfError;

    fn file(&self, id: FileId) -> Result<Option<FileRecord>, ShelfError> {
        self.get(&key(b"f", &[id.bytes()]))
    }

    fn link(&self, id: LinkId) -> Result<Option<LinkRecord>, ShelfError> {
        self.get(&key(b"l", &[id.bytes()]))
    }

    fn named(&self, parent: FileId, name: &Name) -> Result<BTreeSet<LinkId>, ShelfError> {
        let prefix = key(b"n", &[parent.bytes(), name.bytes(), &[0]]);
        let mut links = BTreeSet::new();
        self.each(&prefix, &prefix, |key, _| {
            links.insert(link_of(&key[prefix.len()..])?);
            Ok(true)
        })?;
        Ok(links)
    }

    fn names(
        &self,
        parent: FileId,
        after: Option<&Name>,
        most: usize,
    ) -> Result<Vec<(Name, BTreeSet<LinkId>)>, ShelfError> {
        let prefix = key(b"n", &[parent.bytes()]);
        // A name is followed by a zero byte: with a one everything of that name lies before.
        let from =
            after.map_or(prefix.clone(), |after| key(b"n", &[parent.bytes(), after.bytes(), &[1]]));
        let mut names: Vec<(Name, BTreeSet<LinkId>)> = Vec::new();
        self.each(&from, &prefix, |key, _| {
            let rest = &key[prefix.len()..];
            let end = rest.len().checked_sub(17).ok_or(ShelfError::Damaged)?;
            let (name, link) = (&rest[..end], link_of(&rest[end + 1..])?);
            if names.last().is_none_or(|(last, _)| last.bytes() != name) {
                if names.len() == most {
                    return Ok(false);
                }
                names.push((Name::try_from(name).map_err(damaged)?, BTreeSet::new()));
            }
            names.last_mut().expect("one was put there").1.insert(link);
            Ok(true)
        })?;
        Ok(names)
    }

    fn touches(&self, what: Touched) -> Result<Vec<OpId>, ShelfError> {
        let prefix = touched(what);
        let mut touches = Vec::new();
        self.each(&prefix, &prefix, |key, _| {
            touches.push(op_of(&key[prefix.len()..])?);
            Ok(true)
        })?;
        Ok(touches)
    }

    fn moves_from(&self, rank: Rank) -> Result<Vec<(Rank, MoveRecord)>, ShelfError> {
        let mut moves = Vec::new();
        self.each(&key(b"m", &[&rank_bytes(rank)]), b"m", |key, value| {
            let (lamport, op) = key[1..].split_at_checked(8).ok_or(ShelfError::Damaged)?;
            let rank = Rank { lamport: number(lamport)?, op: op_of(op)? };
            moves.push((rank, postcard::from_bytes(value).map_err(damaged)?));
            Ok(true)
        })?;
        Ok(moves)
    }

    fn version(&self, id: OpId) -> Result<Option<Written>, ShelfError> {
        self.get(&key(b"v", &[&op_bytes(id)]))
    }

    fn seen(&self, entry: EntryId) -> Result<Option<Seen>, ShelfError> {
        let counts: Option<Vec<_>> = self.get(&key(b"s", &[&entry_bytes(entry)]))?;
        Ok(counts.map(|counts| counts.into_iter().collect()))
    }

    fn sum(&self) -> Result<Sum, ShelfError> {
        Ok(self.get(b"r")?.map(Sum).unwrap_or_default())
    }
}

impl Shelf<Table<'_, Bytes, Bytes>> {
    fn put(&mut self, key: &[u8], value: &impl Serialize) -> Result<(), ShelfError> {
        self.0.insert(key, &encode(value)[..])?;
        Ok(())
    }

    /// Writes down which entries were applied.
    pub fn put_applied(&mut self, applied: &Seen) -> Result<(), ShelfError> {
        let counts: Vec<_> = applied.iter().collect();
        self.put(b"a", &counts)
    }

    fn note(&mut self, key: &[u8]) -> Result<(), ShelfError> {
        self.0.insert(key, &[][..])?;
        Ok(())
    }
}

impl Tables for Shelf<Table<'_, Bytes, Bytes>> {
    fn put_file(&mut self, id: FileId, record: &FileRecord) -> Result<(), ShelfError> {
        self.put(&key(b"f", &[id.bytes()]), record)
    }

    fn put_link(&mut self, id: LinkId, record: &LinkRecord) -> Result<(), ShelfError> {
        self.put(&key(b"l", &[id.bytes()]), record)
    }

    fn put_named(&mut self, parent: FileId, name: &Name, link: LinkId) -> Result<(), ShelfError> {
        self.note(&key(b"n", &[parent.bytes(), name.bytes(), &[0], link.bytes()]))
    }

    fn take_named(&mut self, parent: FileId, name: &Name, link: LinkId) -> Result<(), ShelfError> {
        let key = key(b"n", &[parent.bytes(), name.bytes(), &[0], link.bytes()]);
        self.0.remove(&key[..])?;
        Ok(())
    }

    fn put_touch(&mut self, what: Touched, by: OpId) -> Result<(), ShelfError> {
        self.note(&[&touched(what)[..], &op_bytes(by)].concat())
    }

    fn put_move(&mut self, rank: Rank, record: &MoveRecord) -> Result<(), ShelfError> {
        self.put(&key(b"m", &[&rank_bytes(rank)]), record)
    }

    fn put_version(&mut self, id: OpId, version: &Written) -> Result<(), ShelfError> {
        self.put(&key(b"v", &[&op_bytes(id)]), version)
    }

    fn put_seen(&mut self, entry: EntryId, seen: &Seen) -> Result<(), ShelfError> {
        let counts: Vec<_> = seen.iter().collect();
        self.put(&key(b"s", &[&entry_bytes(entry)]), &counts)
    }

    fn put_sum(&mut self, sum: Sum) -> Result<(), ShelfError> {
        self.put(b"r", &sum.0)
    }
}

fn key(tag: &[u8; 1], parts: &[&[u8]]) -> Vec<u8> {
    let mut key = tag.to_vec();
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

fn touched(what: Touched) -> Vec<u8> {
    match what {
        Touched::File(file) => key(b"t", &[&[0], file.bytes()]),
        Touched::Link(link) => key(b"t", &[&[1], link.bytes()]),
    }
}

fn entry_bytes(entry: EntryId) -> Vec<u8> {
    [&entry.feed.0[..], &entry.number.to_be_bytes()].concat()
}

fn op_bytes(op: OpId) -> Vec<u8> {
    [&entry_bytes(op.entry)[..], &op.place.to_be_bytes()].concat()
}

fn rank_bytes(rank: Rank) -> Vec<u8> {
    [&rank.lamport.to_be_bytes()[..], &op_bytes(rank.op)].concat()
}

fn op_of(bytes: &[u8]) -> Result<OpId, ShelfError> {
    let (feed, rest) = bytes.split_at_checked(32).ok_or(ShelfError::Damaged)?;
    let (entry, place) = rest.split_at_checked(8).ok_or(ShelfError::Damaged)?;
    let feed = FeedId(feed.try_into().map_err(damaged)?);
    let place = u32::from_be_bytes(place.try_into().map_err(damaged)?);
    Ok(OpId { entry: EntryId { feed, number: number(entry)? }, place })
}

fn number(bytes: &[u8]) -> Result<u64, ShelfError> {
    Ok(u64::from_be_bytes(bytes.try_into().map_err(damaged)?))
}

fn link_of(bytes: &[u8]) -> Result<LinkId, ShelfError> {
    postcard::from_bytes(bytes).map_err(damaged)
}

/// Forgets what exactly is wrong with what was written here by something else.
fn damaged<E>(_: E) -> ShelfError {
    ShelfError::Damaged
}

impl From<StorageError> for ShelfError {
    fn from(error: StorageError) -> ShelfError {
        ShelfError::Storage(error)
    }
}

impl From<ShelfError> for redb::Error {
    fn from(error: ShelfError) -> redb::Error {
        match error {
            ShelfError::Storage(error) => error.into(),
            ShelfError::Damaged => redb::Error::Corrupted(error.to_string()),
        }
    }
}

impl fmt::Display for ShelfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShelfError::Storage(error) => write!(f, "the index: {error}"),
            ShelfError::Damaged => f.write_str("the index holds what was not written there"),
        }
    }
}

impl std::error::Error for ShelfError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ShelfError::Storage(error) => Some(error),
            ShelfError::Damaged => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
