//! The rows of a state, one after another: what a checkpoint is of.
//!
//! A row is the lengths of its key and of its value (`u32`, little-endian), the key, the value. Keys rise. Which entries were
//! applied (`a`) and the sum of all records (`r`) are not among them: who has the rows is told the one, and finds
//! the other by himself. Nor are records of what was spoken of, and nothing is known: whether those are there depends on the order in which
//! entries came. So all of it follows from the entries, and is the same on each device.

use std::io::{self, Read};

use gate_core::tree::encode::{append, encode};
use gate_core::tree::id::{EntryId, FeedId, FileId, LinkId, OpId};
use gate_core::tree::op::Name;
use gate_core::tree::record::{FileRecord, LinkRecord, MoveRecord, Rank, Touched, Written};
use gate_core::tree::seen::Seen;
use gate_core::tree::tables::{Sum, Tables};
use redb::Range;
use serde::de::DeserializeOwned;

use super::{Bytes, ShelfError, Snapshot, number, op_of};
use crate::index::{self, Suspect};

/// A row, as what it says.
#[derive(Clone, Debug)]
pub enum Row {
    File(FileId, FileRecord),
    Link(LinkId, LinkRecord),
    Named(FileId, Name, LinkId),
    Touch(Touched, OpId),
    Move(Rank, MoveRecord),
    Version(OpId, Written),
    Seen(EntryId, Seen),
}

/// So many bytes are read ahead, if no row is longer.
const READY_BYTES: usize = 64 * 1024;
/// The longest key: a name in a directory.
const KEY_BYTES_MAX: u32 = 1024;
/// The longest value.
const VALUE_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Reads the rows of a state as bytes.
pub struct RowsOut {
    range: Range<'static, Bytes, Bytes>,
    ready: Vec<u8>,
    at: usize,
    tally: Tally,
    nothing: Nothing,
    suspect: Suspect,
}

/// Reads bytes as rows.
pub struct RowsIn<R> {
    from: R,
    last: Vec<u8>,
    bytes: u64,
    tally: Tally,
}

/// What rows come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tallied {
    /// The hash of all bytes.
    pub hash: [u8; 32],
    /// The sum of the records among them.
    pub sum: Sum,
}

struct Tally {
    hasher: blake3::Hasher,
    sum: Sum,
}

/// Records of what was spoken of, and nothing is known.
struct Nothing {
    file: Vec<u8>,
    link: Vec<u8>,
}

impl Snapshot {
    /// Returns what reads all rows.
    pub fn rows(&self) -> Result<RowsOut, ShelfError> {
        let range = self.ask(|shelf| Ok(shelf.0.range::<&[u8]>(..)?))?;
        let suspect = self.suspect.clone();
        let (tally, nothing) = (Tally::new(), Nothing::new());
        Ok(RowsOut { range, ready: Vec::new(), at: 0, tally, nothing, suspect })
    }

    /// Returns the entries that were applied.
    pub fn applied(&self) -> Result<Seen, ShelfError> {
        self.ask(|shelf| shelf.applied())
    }
}

impl RowsOut {
    /// Returns what all rows that were read come to.
    pub fn tallied(&self) -> Tallied {
        self.tally.tallied()
    }

    fn fill(&mut self) -> Result<(), ShelfError> {
        self.ready.clear();
        self.at = 0;
        while self.ready.len() < READY_BYTES {
            let Some(row) = self.range.next() else { break };
            let (key, value) = row?;
            let (key, value) = (key.value(), value.value());
            if matches!(key, b"a" | b"r") || self.nothing.is(key, value) {
                continue;
            }
            let start = self.ready.len();
            for part in [key, value] {
                let len = u32::try_from(part.len()).map_err(super::damaged)?;
                self.ready.extend(len.to_le_bytes());
            }
            self.ready.extend(key);
            self.ready.extend(value);
            self.tally.note(key, value, &self.ready[start..]);
        }
        Ok(())
    }
}

impl Read for RowsOut {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.ready.len() {
            let outcome = index::guarded(|| self.fill()).unwrap_or(Err(ShelfError::Damaged));
            outcome.inspect_err(|_| self.suspect.raise()).map_err(io::Error::other)?;
        }
        let left = &self.ready[self.at..];
        let len = left.len().min(out.len());
        out[..len].copy_from_slice(&left[..len]);
        self.at += len;
        Ok(len)
    }
}

impl<R: Read> RowsIn<R> {
    pub fn new(from: R) -> RowsIn<R> {
        RowsIn { from, last: Vec::new(), bytes: 0, tally: Tally::new() }
    }

    /// Returns the next row; none at the end.
    pub fn read_row(&mut self) -> io::Result<Option<Row>> {
        let mut lens = Vec::new();
        self.from.by_ref().take(8).read_to_end(&mut lens)?;
        if lens.is_empty() {
            return Ok(None);
        }
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let lens: [u8; 8] = lens.try_into().map_err(|_| malformed())?;
        let [key_len, value_len] = [0, 4].map(|at| {
            u32::from_le_bytes(lens[at..at + 4].try_into().expect("a length has four bytes"))
        });
        if key_len > KEY_BYTES_MAX || value_len > VALUE_BYTES_MAX {
            return Err(malformed());
        }
        // What is not there takes no memory, whatever the lengths say.
        let mut bytes = lens.to_vec();
        let len = u64::from(key_len) + u64::from(value_len);
        let read = self.from.by_ref().take(len).read_to_end(&mut bytes)?;
        let (key, value) = bytes[8..].split_at_checked(key_len as usize).ok_or_else(malformed)?;
        if read as u64 != len || key <= &self.last[..] {
            return Err(malformed());
        }
        let row = Row::read(key, value).ok_or_else(malformed)?;
        self.tally.note(key, value, &bytes);
        self.last = key.to_vec();
        self.bytes += bytes.len() as u64;
        Ok(Some(row))
    }

    /// Returns how many bytes were read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns what all rows that were read come to.
    pub fn tallied(&self) -> Tallied {
        self.tally.tallied()
    }
}

impl Nothing {
    fn new() -> Nothing {
        Nothing { file: encode(&FileRecord::default()), link: encode(&LinkRecord::default()) }
    }

    fn is(&self, key: &[u8], value: &[u8]) -> bool {
        match key.first() {
            Some(b'f') => value == self.file,
            Some(b'l') => value == self.link,
            _ => false,
        }
    }
}

impl Tally {
    fn new() -> Tally {
        Tally { hasher: blake3::Hasher::new(), sum: Sum::default() }
    }

    /// Notes a row, of which these are all bytes.
    fn note(&mut self, key: &[u8], value: &[u8], all: &[u8]) {
        self.hasher.update(all);
        match key.split_first() {
            Some((b'f' | b'l', _)) => self.sum.add(&[key, value].concat()),
            // A key has the numbers of an operation in an order of their own; records have not.
            Some((b'v', op)) => {
                if let Ok(op) = op_of(op) {
                    self.sum.add(&[&append(&op, vec![b'v']), value].concat());
                }
            }
            _ => {}
        }
    }

    fn tallied(&self) -> Tallied {
        Tallied { hash: *self.hasher.finalize().as_bytes(), sum: self.sum }
    }
}

impl Row {
    /// Reads a row; none if it is not one of a state.
    pub fn read(key: &[u8], value: &[u8]) -> Option<Row> {
        let (kind, id) = key.split_first()?;
        let noted = || value.is_empty().then_some(());
        Some(match kind {
            b'f' => Row::File(id_of(id)?, read(value)?),
            b'l' => Row::Link(id_of(id)?, read(value)?),
            b'n' => {
                let (parent, name, link) = noted().and_then(|()| named(id))?;
                Row::Named(parent, name, link)
            }
            b't' => {
                let (what, by) = noted().and_then(|()| touched(id))?;
                Row::Touch(what, by)
            }
            b'm' => Row::Move(rank(id)?, read(value)?),
            b'v' => Row::Version(op_of(id).ok()?, read(value)?),
            b's' => Row::Seen(entry(id)?, read::<Vec<_>>(value)?.into_iter().collect()),
            _ => return None,
        })
    }

    /// Puts it into tables.
    pub fn put<T: Tables>(&self, tables: &mut T) -> Result<(), T::Error> {
        match self {
            Row::File(id, record) => tables.put_file(*id, record),
            Row::Link(id, record) => tables.put_link(*id, record),
            Row::Named(parent, name, link) => tables.put_named(*parent, name, *link),
            Row::Touch(what, by) => tables.put_touch(*what, *by),
            Row::Move(rank, record) => tables.put_move(*rank, record),
            Row::Version(id, version) => tables.put_version(*id, version),
            Row::Seen(entry, seen) => tables.put_seen(*entry, seen),
        }
    }
}

fn read<V: DeserializeOwned>(value: &[u8]) -> Option<V> {
    postcard::from_bytes(value).ok()
}

fn id_of<I: DeserializeOwned>(bytes: &[u8]) -> Option<I> {
    bytes.len().eq(&16).then(|| read(bytes)).flatten()
}

fn named(bytes: &[u8]) -> Option<(FileId, Name, LinkId)> {
    let (parent, rest) = bytes.split_at_checked(16)?;
    let (name, link) = rest.split_at_checked(rest.len().checked_sub(17)?)?;
    let (0, link) = link.split_first()? else { return None };
    Some((id_of(parent)?, Name::try_from(name).ok()?, id_of(link)?))
}

fn touched(bytes: &[u8]) -> Option<(Touched, OpId)> {
    let (kind, rest) = bytes.split_first()?;
    let (id, by) = rest.split_at_checked(16)?;
    let what = match kind {
        0 => Touched::File(id_of(id)?),
        1 => Touched::Link(id_of(id)?),
        _ => return None,
    };
    Some((what, op_of(by).ok()?))
}

fn rank(bytes: &[u8]) -> Option<Rank> {
    let (lamport, op) = bytes.split_at_checked(8)?;
    Some(Rank { lamport: number(lamport).ok()?, op: op_of(op).ok()? })
}

fn entry(bytes: &[u8]) -> Option<EntryId> {
    let (feed, rest) = bytes.split_at_checked(32)?;
    Some(EntryId { feed: FeedId(feed.try_into().ok()?), number: number(rest).ok()? })
}
