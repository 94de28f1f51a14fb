//! The checkpoint of a bucket on this device: when it is made, and what is believed of it.
//!
//! The file `checkpoint` holds one, and is replaced whole once all its chunks are stored (N14). Nothing needs it: whatever is
//! wrong with it, the entries say the same, if not as fast. It is of the rows of the index as they were at some
//! time, read beside all other work; who would keep it has the bucket for a moment before and after.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gate_core::tree::id::EntryId;
use gate_core::tree::seen::Seen;
use gate_core::tree::state::State;
use gate_core::tree::tables::{Look, Memory, Tables};

use super::{Bucket, BucketError, Known};
use crate::checkpoint::{
    Checkpoint, CheckpointError, FILE_BYTES_MAX, Head, Header, Held, NewCheckpoint,
};
use crate::index::INDEX_VERSION;
use crate::members::{RecordId, Role};
use crate::shelf::rows::{Row, RowsIn, Tallied};
use crate::shelf::{Shelf, Snapshot, TREE};
use crate::store::{Store, StoreError};
use crate::vault::{Stored, Vault};
use crate::whole;

/// The file in the bucket's directory.
const NAME: &str = "checkpoint";
/// So many bytes of entries are done again at most before a checkpoint is due, or …
const BEHIND_BYTES_MAX: u64 = if cfg!(test) { 1024 * 1024 } else { 8 * 1024 * 1024 };
/// … this part of all, if that is more: so all checkpoints together cost a fixed share of all work.
const BEHIND_PART: u64 = 8;
/// So few are done again before anybody notices.
const BEHIND_BYTES_MIN: u64 = 1024 * 1024;
/// So much of the rows is put into the index at once.
const ROWS_BYTES: u64 = 8 * 1024 * 1024;

/// The checkpoint that is kept.
#[derive(Debug)]
pub(super) struct Current {
    path: PathBuf,
    found: Result<Option<Checkpoint>, CheckpointError>,
    /// How many bytes of entries came since the last was begun.
    pub(super) behind_bytes: u64,
}

/// What makes a checkpoint, beside other work.
#[derive(Debug)]
pub struct Dumping {
    store: Arc<Store>,
    vault: Vault,
    members: RecordId,
}

/// The rows of a state, taken in.
#[derive(Debug)]
pub struct Dump {
    members: RecordId,
    applied: Seen,
    stored: Stored,
    tallied: Tallied,
}

/// Reads until nobody wants it any more.
struct Wanted<'a, R> {
    from: R,
    is_wanted: &'a dyn Fn() -> bool,
}

impl Current {
    /// Reads it, if there is one.
    pub(super) fn open(dir: &Path) -> io::Result<Current> {
        let path = dir.join(NAME);
        let found = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => Checkpoint::decode_file(&whole::read(&file?, FILE_BYTES_MAX)?).map(Some),
        };
        if let Err(error) = &found {
            tracing::warn!(%error, "the checkpoint of a bucket is not used");
        }
        Ok(Current { path, found, behind_bytes: 0 })
    }

    pub(super) fn found(&self) -> Option<&Checkpoint> {
        self.found.as_ref().ok()?.as_ref()
    }

    fn set(&mut self, checkpoint: Checkpoint) -> io::Result<()> {
        whole::replace(&self.path, &checkpoint.encode_file())?;
        self.found = Ok(Some(checkpoint));
        Ok(())
    }
}

impl Bucket {
    /// Makes a checkpoint of all that is known; false if there was nothing new.
    pub fn checkpoint(&mut self, at_ms: u64) -> Result<bool, CheckpointError> {
        let Some(dumping) = self.dumping()? else { return Ok(false) };
        let dump = dumping.write(&|| true)?;
        self.keep(dump, at_ms)
    }

    /// Whether so much came since the last checkpoint that another one is worth its while.
    pub fn is_checkpoint_due(&self) -> bool {
        let part = self.entries.end() / BEHIND_PART;
        self.checkpoint.behind_bytes >= part.max(BEHIND_BYTES_MAX)
    }

    /// Whether a checkpoint saves anybody something, for who is at work on all that is stored anyway.
    pub fn is_checkpoint_worth_while(&self) -> bool {
        self.checkpoint.behind_bytes >= BEHIND_BYTES_MIN
    }

    /// Begins a checkpoint; none if there is nothing new.
    pub fn dumping(&mut self) -> Result<Option<Dumping>, CheckpointError> {
        // If nothing comes of it, it is tried again once as much came again.
        self.checkpoint.behind_bytes = 0;
        let frontier = self.frontier();
        if frontier == Seen::new() || self.sound().is_some_and(|now| now.seen() == frontier) {
            return Ok(None);
        }
        // What the index has not is put there.
        self.snapshot().map_err(not_done)?;
        let vault = self.vault().map_err(not_done)?;
        let (store, members) = (Arc::clone(&self.store), self.members.head());
        Ok(Some(Dumping { store, vault, members }))
    }

    /// Puts what was taken in in the place of the checkpoint that is kept; false if that has as much in it.
    pub fn keep(&mut self, dump: Dump, at_ms: u64) -> Result<bool, CheckpointError> {
        let Dump { members, applied, stored, tallied } = dump;
        if members != self.members.head() {
            return Err(CheckpointError::Changed);
        }
        if self.sound().is_some_and(|now| now.seen().includes(&applied)) {
            return Ok(false);
        }
        // A collection that began meanwhile did not know that they are needed.
        for chunk in &stored.chunks {
            if !self.store.has(chunk)? {
                return Err(StoreError::Missing(*chunk).into());
            }
        }
        let heads = applied.iter().map(|(feed, count)| {
            let entry = EntryId { feed, number: count - 1 };
            let hash = self.feeds.hash(entry).ok_or(CheckpointError::UnknownEntries)?;
            Ok(Head { entry, hash })
        });
        let heads = heads.collect::<Result<_, CheckpointError>>()?;
        let epoch = self.members.epoch().unwrap_or(0);
        let keys = self.members.keys(epoch).ok_or(CheckpointError::NoKey(epoch))?;
        let (bucket, tables) = (self.genesis.id(), INDEX_VERSION);
        let new = NewCheckpoint { bucket, members, epoch, at_ms, tables, heads, stored, tallied };
        let made = Checkpoint::make(&self.own, &keys.checkpoint, new)?;
        self.checkpoint.set(made)?;
        Ok(true)
    }

    /// Reads all of the checkpoint. One that is not sound is removed, and what is wrong with it returned.
    pub fn check_checkpoint(&mut self) -> Result<(), CheckpointError> {
        let found = match &self.checkpoint.found {
            Ok(None) => return Ok(()),
            Ok(Some(checkpoint)) => self.walk(checkpoint, |_| Ok(())).map(drop),
            Err(_) => Err(CheckpointError::Damaged),
        };
        let Err(fault) = found else { return Ok(()) };
        match fs::remove_file(&self.checkpoint.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => self.checkpoint.found = Ok(None),
        }
        Err(fault)
    }

    /// Puts the rows of the checkpoint into the index, which has none, and returns the entries that are in them.
    pub(super) fn load_checkpoint(&self) -> Result<Option<Seen>, BucketError> {
        let Some(checkpoint) = self.checkpoint.found() else { return Ok(None) };
        let seen = checkpoint.header().seen();
        let loaded = self.walk(checkpoint, |rows| self.put_rows(rows)).and_then(|held| {
            self.store.index().write(|write| {
                let mut shelf = Shelf(write.open_table(TREE)?);
                shelf.put_sum(held.tallied().sum)?;
                Ok(shelf.put_applied(&seen)?)
            })?;
            Ok(())
        });
        match loaded {
            Ok(()) => Ok(Some(seen)),
            Err(error) => {
                tracing::warn!(%error, "the checkpoint of a bucket is not used");
                self.clear()?;
                Ok(None)
            }
        }
    }

    fn put_rows(&self, rows: &[Row]) -> Result<(), CheckpointError> {
        self.store.index().write(|write| {
            let mut shelf = Shelf(write.open_table(TREE)?);
            Ok(rows.iter().try_for_each(|row| row.put(&mut shelf))?)
        })?;
        Ok(())
    }

    /// Makes the index as if no entry had been applied.
    pub(super) fn clear(&self) -> Result<(), BucketError> {
        Ok(self.store.index().write(|write| {
            write.delete_table(TREE)?;
            write.open_table(TREE)?;
            Ok(())
        })?)
    }

    /// Returns the tree of the checkpoint, and the entries that are in it, if somebody had seen all of them.
    pub(super) fn tree_within(&self, seen: &Seen) -> Option<(State<Memory>, Seen)> {
        let checkpoint = self.checkpoint.found()?;
        let within = Some(checkpoint.header().seen()).filter(|within| seen.includes(within))?;
        let mut tables = Memory::default();
        let walked = self.walk(checkpoint, |rows| {
            let Ok(()) = rows.iter().try_for_each(|row| row.put(&mut tables));
            Ok(())
        });
        match walked {
            Ok(held) => {
                let Ok(()) = tables.put_sum(held.tallied().sum);
                Some((State::new(tables), within))
            }
            Err(error) => {
                tracing::warn!(%error, "the checkpoint of a bucket is not used");
                None
            }
        }
    }

    /// Shows all rows of a checkpoint, some at a time; they are to be believed once this returns.
    fn walk(
        &self,
        checkpoint: &Checkpoint,
        mut show: impl FnMut(&[Row]) -> Result<(), CheckpointError>,
    ) -> Result<Held, CheckpointError> {
        self.judge(checkpoint)?;
        let epoch = checkpoint.header().epoch;
        let keys = self.members.keys(epoch).ok_or(CheckpointError::NoKey(epoch))?;
        let held = checkpoint.open(&keys.checkpoint)?;
        let reader = self.vault().map_err(not_done)?.reader(held.body(), held.size);
        let mut from = RowsIn::new(BufReader::new(reader));
        let (mut rows, mut shown) = (Vec::new(), 0);
        while let Some(row) = from.read_row()? {
            rows.push(row);
            if from.bytes() - shown >= ROWS_BYTES {
                show(&rows)?;
                rows.clear();
                shown = from.bytes();
            }
        }
        show(&rows)?;
        let is_it = from.tallied() == held.tallied();
        if is_it { Ok(held) } else { Err(CheckpointError::OtherRows) }
    }

    /// Returns what the checkpoint says that is kept, if it is to be believed as far as one sees without its rows.
    fn sound(&self) -> Option<&Header> {
        let checkpoint = self.checkpoint.found()?;
        self.judge(checkpoint).is_ok().then(|| checkpoint.header())
    }

    /// Judges who made a checkpoint, and of what.
    ///
    /// Whoever has none of the entries must believe its author. That is a device that may write, by the members that it
    /// names and by those that are known; or this one, which may do for itself what it can read.
    fn judge(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        checkpoint.verify(&self.genesis.id())?;
        let header = checkpoint.header();
        if header.tables != INDEX_VERSION {
            return Err(CheckpointError::OtherTables(header.tables));
        }
        if self.members.epoch_at(&header.members) != Some(header.epoch) {
            return Err(CheckpointError::UnknownMembers);
        }
        let device = header.certificate.device;
        let roles = [self.members.role_at(&device, &header.members), self.members.role(&device)];
        let is_writer = roles.iter().all(|role| *role >= Some(Role::Writer));
        if !is_writer && device != self.device {
            return Err(CheckpointError::NoWriter(device));
        }
        let seen = header.seen();
        let is_known = |head: &Head| {
            self.feeds.hash(head.entry) == Some(head.hash)
                && self.feeds.seen_by(head.entry).is_some_and(|before| seen.includes(&before))
        };
        let are_known = header.heads.iter().all(is_known);
        if are_known { Ok(()) } else { Err(CheckpointError::UnknownEntries) }
    }

    /// Returns how many bytes the entries have that are not in the checkpoint.
    pub(super) fn bytes_behind(&self) -> u64 {
        let seen = self.sound().map(Header::seen).unwrap_or_default();
        let ends = self.known.iter().skip(1).map(|known| known.offset).chain([self.entries.end()]);
        let all = self.known.iter().zip(ends);
        let behind = all.filter(|(known, _)| !seen.covers(known.id));
        behind.map(|(Known { offset, .. }, end)| end.saturating_sub(*offset)).sum()
    }
}

impl Dumping {
    /// Takes in the rows of the newest state, for as long as somebody wants that.
    pub fn write(self, is_wanted: &dyn Fn() -> bool) -> Result<Dump, CheckpointError> {
        let Dumping { store, vault, members } = self;
        let index = store.index();
        // Nobody looks through the index while somebody reads what it was.
        let _reading = index.reading();
        let snapshot =
            index.read(|read| Ok(Snapshot::new(Shelf(read.open_table(TREE)?), index.suspect())))?;
        let applied = snapshot.applied()?;
        let mut rows = snapshot.rows()?;
        let stored = vault.take_in(&mut Wanted { from: &mut rows, is_wanted });
        let tallied = rows.tallied();
        let stored = match stored {
            Err(_) if !is_wanted() => return Err(CheckpointError::NotWanted),
            stored => stored?,
        };
        if tallied.sum != snapshot.sum()? {
            // What no entry did is nowhere else: the index is made again.
            index.suspect().raise();
            return Err(CheckpointError::OtherRows);
        }
        store.sync()?;
        Ok(Dump { members, applied, stored, tallied })
    }
}

impl<R: Read> Read for Wanted<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match (self.is_wanted)() {
            true => self.from.read(out),
            false => Err(io::Error::other(CheckpointError::NotWanted)),
        }
    }
}

/// Why a checkpoint is not made or read, of what a bucket says.
fn not_done(error: BucketError) -> CheckpointError {
    match error {
        BucketError::NoKey(epoch) => CheckpointError::NoKey(epoch),
        BucketError::Store(error) => error.into(),
        BucketError::Index(error) => error.into(),
        BucketError::Io(error) => error.into(),
        error => CheckpointError::Io(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests;
