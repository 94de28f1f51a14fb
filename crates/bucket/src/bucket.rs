//! A bucket on this device: all its parts, opened together.
//!
//! What is known lies in `entries`; the index holds what follows from it. An entry is told as made once it
//! is durable, and it is made once all its chunks are (N14). Whatever the index lacks after a crash is
//! applied when the bucket is opened, or before anything is read.

mod checkpoints;
pub mod history;
mod kept;
mod marks;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io;
use std::iter;
use std::path::Path;
use std::sync::Arc;

use gate_core::tree::id::{Address, EntryId};
use gate_core::tree::op::{Op, OpFault};
use gate_core::tree::overlay::{Changes, Overlay};
use gate_core::tree::seen::Seen;
use gate_core::tree::state::{ApplyError, Batch, State};
use gate_core::tree::tables::Tables;
use redb::TableError;
use uuid::Uuid;

use crate::draft::{Ahead, Draft, Drafted, Entries, Next};
use crate::entry::{Entry, EntryError, EntryHash, Header};
use crate::feed::{FeedError, Feeds, NewEntry, OwnFeed};
use crate::frames::{Found, Frames, FramesError, Kind};
use crate::genesis::{Genesis, GenesisError};
use crate::identity::{DeviceId, Identity};
use crate::index::IndexError;
use crate::log::LogError;
use crate::members::{MemberError, Members, Role};
use crate::merge::{Merges, TextLens};
use crate::seal::ChunkKeys;
use crate::shelf::{Shelf, ShelfError, Snapshot, TREE};
use crate::store::{Store, StoreError};
use crate::vault::Vault;
use crate::whole;
pub use checkpoints::{Dump, Dumping};
use kept::Kept;

/// The largest genesis, in bytes.
const GENESIS_BYTES_MAX: usize = 4096;
/// So many entries are applied in one transaction.
const APPLIED_AT_ONCE: usize = 1000;

/// A bucket that is open.
pub struct Bucket {
    device: DeviceId,
    genesis: Genesis,
    members: Members,
    entries: Frames,
    feeds: Feeds,
    own: OwnFeed,
    store: Arc<Store>,
    /// All entries, in the order in which they came.
    known: Vec<Known>,
    /// Those of them that the index has not.
    behind: Vec<Known>,
    found: Found,
    kept: Kept,
    merges: Arc<Merges>,
    checkpoint: checkpoints::Current,
    /// Entries that the index had and nobody knows any more.
    gone: u64,
}

/// An entry, and where it lies in `entries`.
#[derive(Clone, Copy, Debug)]
struct Known {
    id: EntryId,
    offset: u64,
}

/// What an entry does, and what its author had seen.
struct Opened<'a> {
    id: EntryId,
    lamport: u64,
    seen: Seen,
    ops: Cow<'a, [Op]>,
}

impl Opened<'_> {
    /// Whether it is what was to come next when it was drafted.
    fn is(&self, drafted: &Next) -> bool {
        (self.id, self.lamport) == (drafted.id, drafted.lamport) && self.seen == drafted.seen
    }
}

/// A state of a bucket, to be read.
pub type Tree = State<Snapshot>;

/// Why a bucket does not do what was asked.
#[derive(Debug)]
pub enum BucketError {
    /// Look at the disk and the rights, and try again.
    Io(io::Error),
    /// No bucket is there, or not all of it: get it back from a backup or a peer.
    Incomplete(&'static str, io::Error),
    Genesis(GenesisError),
    Members(MemberError),
    Frames(FramesError),
    Store(StoreError),
    Index(IndexError),
    /// The entry that was to be made is none: what was asked for cannot be done.
    Entry(EntryError),
    /// A writer made an entry that does not go on from what is known.
    Feed(FeedError),
    /// What was done cannot be logged, or what was logged not be read.
    Log(LogError),
    /// What was to be done cannot be.
    Fault(OpFault),
    /// This device may not write here: an owner can let it.
    MayNotWrite,
    /// This device has no key of that epoch: an owner can hand it on.
    NoKey(u64),
}

impl Bucket {
    /// Makes a bucket in a directory of its name below `buckets`, and returns that name.
    pub fn create(buckets: &Path, owner: &Identity, at_ms: u64) -> Result<Uuid, BucketError> {
        let genesis = Genesis::make(owner, at_ms);
        let (_, records) = Members::found(&genesis, owner, at_ms)?;
        let uuid = genesis.uuid();
        whole::make_directory(&buckets.join(uuid.to_string()), |dir| {
            whole::create(&dir.join("genesis"), genesis.bytes())?;
            let mut members = Frames::create(&dir.join("members"), Kind::MEMBERS).map_err(io)?;
            let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            members.append(&records).map_err(io)?;
            members.sync().map_err(io)?;
            Frames::create(&dir.join("entries"), Kind::ENTRIES).map_err(io).map(drop)
        })?;
        Ok(uuid)
    }

    /// Opens a bucket. Nobody else may have it open.
    pub fn open(dir: &Path, device: &Identity) -> Result<Bucket, BucketError> {
        let missing = |what| move |error| BucketError::Incomplete(what, error);
        let file = File::open(dir.join("genesis")).map_err(missing("genesis"))?;
        let genesis = Genesis::decode(&whole::read(&file, GENESIS_BYTES_MAX)?)?;
        let store = Arc::new(Store::open(dir, &device.local_keys(&genesis.id()).sectors)?);
        let members = open_members(dir, &genesis, device)?;
        let mut feeds = Feeds::new(genesis.id());
        let mut known = Vec::new();
        let mut fault = None;
        let (entries, found) =
            Frames::open(&dir.join("entries"), Kind::ENTRIES, |offset, bytes| {
                // What lies here was verified when it came.
                let entry =
                    Entry::decode(bytes).map(Entry::verified_before).map_err(BucketError::from);
                let accepted = entry.and_then(|entry| {
                    feeds.accept(&entry, &members, |_| None)?;
                    Ok(entry.id())
                });
                match accepted {
                    Ok(id) => known.push(Known { id, offset }),
                    Err(error) => fault = fault.take().or(Some(error)),
                }
            })?;
        // What came after an entry that is damaged cannot be judged: it waits for a peer's copy.
        if let (Some(fault), true) = (fault, found.damage.is_empty()) {
            return Err(fault);
        }
        let own = OwnFeed::new(device, genesis.id());
        let (device, behind) = (device.device(), Vec::new());
        let (kept, checkpoint) = (Kept::open(dir)?, checkpoints::Current::open(dir)?);
        let mut bucket = Bucket {
            device,
            genesis,
            members,
            entries,
            feeds,
            own,
            store,
            known,
            behind,
            found,
            kept,
            merges: Arc::default(),
            checkpoint,
            gone: 0,
        };
        bucket.checkpoint.behind_bytes = bucket.bytes_behind();
        bucket.compare()?;
        Ok(bucket)
    }

    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Returns the bucket's chunks.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Returns what was wrong with the entries when it was opened.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Returns how many entries are not there any more since it was last open: the end of them was cut off, and no crash
    /// does that to what was synced.
    pub fn entries_gone(&self) -> u64 {
        self.gone
    }

    /// Returns all entries that are known.
    pub fn frontier(&self) -> Seen {
        self.feeds.frontier()
    }

    /// Returns whose entry it is.
    pub fn author(&self, entry: EntryId) -> Option<DeviceId> {
        self.feeds.device(&entry.feed)
    }

    /// Returns the hash of an entry, by which people name it.
    pub fn hash(&self, entry: EntryId) -> Option<EntryHash> {
        self.feeds.hash(entry)
    }

    /// Returns what its tree is looked at through, by all that is known now.
    pub fn lens(&self) -> TextLens {
        TextLens::new(self.feeds.labels(), Arc::clone(&self.merges), self.vault().ok())
    }

    /// Returns the entry that comes next.
    pub(crate) fn next_entry(&self) -> EntryId {
        let feed = self.own.id();
        EntryId { feed, number: self.feeds.count(&feed) }
    }

    /// Returns the keys by which chunks are sealed now.
    pub fn chunk_keys(&self) -> Result<&ChunkKeys, BucketError> {
        let epoch = self.members.epoch().unwrap_or(0);
        Ok(&self.members.keys(epoch).ok_or(BucketError::NoKey(epoch))?.chunks)
    }

    /// Returns what takes in and reads the bytes of files, by the keys that there are now.
    pub fn vault(&self) -> Result<Vault, BucketError> {
        let sealing = self.chunk_keys()?;
        let older = 0..self.members.epoch().unwrap_or(0);
        let older = older.rev().filter_map(|epoch| Some(&self.members.keys(epoch)?.chunks));
        let epochs = iter::once(sealing).chain(older).cloned().collect();
        Ok(Vault::new(Arc::clone(&self.store), epochs))
    }

    /// Does operations, all or none; when this returns they outlast a crash, and so does what the
    /// chunks hold that they name.
    pub fn commit(
        &mut self,
        ops: &[Op],
        chunks: Vec<Address>,
        at_ms: u64,
    ) -> Result<EntryId, BucketError> {
        self.commit_drafted(ops, chunks, at_ms, None)
    }

    /// As [`Bucket::commit`], of what was drafted: what follows from that is known already.
    fn commit_drafted(
        &mut self,
        ops: &[Op],
        chunks: Vec<Address>,
        at_ms: u64,
        drafted: Option<Drafted>,
    ) -> Result<EntryId, BucketError> {
        if self.members.role(&self.device).is_none_or(|role| role < Role::Writer) {
            return Err(BucketError::MayNotWrite);
        }
        self.catch_up()?;
        for chunk in &chunks {
            if !self.store.has(chunk)? {
                return Err(StoreError::Missing(*chunk).into());
            }
        }
        let seen = self.feeds.frontier();
        let number = self.feeds.count(&self.own.id());
        let id = EntryId { feed: self.own.id(), number };
        let batch = Batch { id, lamport: 0, seen: &seen, ops };
        batch.check().map_err(BucketError::Fault)?;
        let entry = self.own.make(&self.feeds, &self.members, NewEntry { at_ms, chunks, ops })?;
        self.store.sync()?;
        let before = self.entries.end();
        let offsets = self.entries.append(&[entry.bytes()])?;
        self.entries.sync()?;
        self.checkpoint.behind_bytes += self.entries.end() - before;
        let seen = self.feeds.accept(&entry, &self.members, |_| None)?;
        let known = offsets.into_iter().map(|offset| Known { id, offset });
        self.known.extend(known.clone());
        let lamport = entry.header().lamport;
        let opened = Opened { id, lamport, seen, ops: Cow::Borrowed(ops) };
        let applied = match drafted.filter(|drafted| opened.is(&drafted.next)) {
            Some(drafted) => self.settle(opened, &drafted.changes),
            None => self.apply(&[opened]),
        };
        // It is durable all the same: whoever reads next tries again.
        applied.inspect_err(|_| self.behind.extend(known))?;
        Ok(id)
    }

    /// Drafts a change of the tree, and commits all of it, or nothing after an error. If nothing was drafted, no
    /// entry is made. What is more than one entry has is several, of which the last is returned.
    pub fn change<T, E: From<BucketError>>(
        &mut self,
        at_ms: u64,
        draft: impl FnOnce(&mut Draft) -> Result<T, E>,
    ) -> Result<(Option<EntryId>, T), E> {
        let mut new = self.draft()?;
        let value = draft(&mut new)?;
        let Entries { before, ops, chunks, drafted } = new.into_entries();
        if ops.is_empty() {
            return Ok((None, value));
        }
        for Ahead { op, chunks } in before {
            self.commit(&[op], chunks, at_ms)?;
        }
        Ok((Some(self.commit_drafted(&ops, chunks, at_ms, drafted)?), value))
    }

    /// Begins a draft over the tree as it is now. Nobody else may commit before it is.
    pub(crate) fn draft(&mut self) -> Result<Draft, BucketError> {
        let tree = self.snapshot()?;
        let own = self.own.id();
        // An entry that cannot be numbered is refused when it is to be made.
        let zero = (EntryId { feed: own, number: 0 }, 0);
        let (id, lamport) = self.feeds.next(&own).unwrap_or(zero);
        let next = Next { id, lamport, seen: self.feeds.frontier() };
        Ok(Draft::new(tree, self.lens(), next))
    }

    /// Reads the state as it is now.
    pub fn read<T>(
        &mut self,
        ask: impl Fn(&Tree) -> Result<T, ShelfError>,
    ) -> Result<T, BucketError> {
        // The index is not held meanwhile: who merges texts asks it where their chunks are.
        if let Ok(answer) = ask(&self.snapshot()?) {
            return Ok(answer);
        }
        // Where the snapshot was found damaged the next one is of an index that was made again.
        let again = ask(&self.snapshot()?);
        Ok(again.map_err(|error| IndexError::from(redb::Error::from(error)))?)
    }

    /// Returns the state as it is now; it stays so for as long as it is kept.
    pub fn snapshot(&mut self) -> Result<Tree, BucketError> {
        for _ in 0..2 {
            self.catch_up()?;
            let frontier = self.feeds.frontier();
            let answer = match self.store.index().read(|read| {
                let shelf = match read.open_table(TREE) {
                    Ok(table) => Shelf(table),
                    Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                    Err(error) => return Err(error.into()),
                };
                let is_now = shelf.applied()? == frontier;
                if !is_now {
                    return Ok(None);
                }
                Ok(Some(Snapshot::new(shelf, self.store.index().suspect())))
            }) {
                Err(IndexError::Broken(_)) => self.store.heal().map(|()| None)?,
                answer => answer?,
            };
            if let Some(snapshot) = answer {
                return Ok(State::new(snapshot));
            }
            // The index was broken, and made again without what follows from the entries.
            self.compare()?;
        }
        Err(IndexError::Broken("it breaks again and again".to_owned()).into())
    }

    /// Finds what the index has not, and applies it. One that has others than are known is begun anew.
    fn compare(&mut self) -> Result<(), BucketError> {
        let frontier = self.feeds.frontier();
        let (applied, gone) = self.store.index().write(|write| {
            let shelf = Shelf(write.open_table(TREE)?);
            Ok(match shelf.applied() {
                // Without that, what is there was not put there to its end.
                Ok(applied) if applied == Seen::new() => (None, 0),
                Ok(applied) if frontier.includes(&applied) => (Some(applied), 0),
                Ok(applied) => {
                    let counts = applied.iter();
                    let gone = counts.map(|(feed, n)| n.saturating_sub(frontier.count(&feed)));
                    (None, gone.sum())
                }
                Err(_) => (None, 0),
            })
        })?;
        let applied = match applied {
            Some(applied) => applied,
            None => {
                self.clear()?;
                self.load_checkpoint()?.unwrap_or_default()
            }
        };
        self.gone += gone;
        let known = self.known.iter().copied();
        self.behind = known.filter(|known| !applied.covers(known.id)).collect();
        self.catch_up()
    }

    /// Applies what the index has not.
    fn catch_up(&mut self) -> Result<(), BucketError> {
        for some in self.behind.chunks(APPLIED_AT_ONCE) {
            let opened = some.iter().map(|known| self.read_entry(*known));
            self.apply(&opened.collect::<Result<Vec<_>, _>>()?)?;
        }
        self.behind.clear();
        Ok(())
    }

    fn read_entry(&self, known: Known) -> Result<Opened<'static>, BucketError> {
        self.open_entry(known, &self.decode(known)?)
    }

    fn decode(&self, known: Known) -> Result<Entry, BucketError> {
        Ok(Entry::decode(&self.entries.read(known.offset)?)?)
    }

    fn open_entry(&self, known: Known, entry: &Entry) -> Result<Opened<'static>, BucketError> {
        let Header { epoch, lamport, .. } = *entry.header();
        let keys = self.members.keys(epoch).ok_or(BucketError::NoKey(epoch))?;
        let seen = self.feeds.seen_by(known.id).expect("it was accepted");
        Ok(Opened { id: known.id, lamport, seen, ops: Cow::Owned(entry.open(&keys.entry)?) })
    }

    /// Puts down what follows from an entry, if nothing else was applied since it was drafted.
    fn settle(&self, entry: Opened<'_>, changes: &Changes) -> Result<(), BucketError> {
        let is_done = self.store.index().write(|write| {
            let mut shelf = Shelf(write.open_table(TREE)?);
            let mut applied = shelf.applied()?;
            if applied != entry.seen {
                return Ok(false);
            }
            changes.settle(&mut shelf)?;
            shelf.put_seen(entry.id, &entry.seen)?;
            applied.see(entry.id);
            shelf.put_applied(&applied)?;
            Ok(true)
        })?;
        if is_done { Ok(()) } else { self.apply(&[entry]) }
    }

    /// Applies entries, as far as they were not.
    fn apply(&self, entries: &[Opened<'_>]) -> Result<(), BucketError> {
        self.store.index().write(|write| {
            let shelf = Shelf(write.open_table(TREE)?);
            let mut applied = shelf.applied()?;
            // Records that change often, such as that of a directory, are written once.
            let mut state = State::new(Overlay::new(shelf));
            for Opened { id, lamport, seen, ops } in entries {
                if applied.covers(*id) {
                    continue;
                }
                match state.note(Batch { id: *id, lamport: *lamport, seen, ops }) {
                    Ok(()) => {}
                    // Nobody may do that: it counts for nothing, everywhere.
                    Err(ApplyError::Fault(fault)) => {
                        tracing::warn!(%fault, entry = ?id, "an entry counts for nothing");
                    }
                    Err(ApplyError::Tables(error)) => return Err(error.into()),
                }
                applied.see(*id);
            }
            Ok(state.into_tables().settle()?.put_applied(&applied)?)
        })?;
        Ok(())
    }
}

fn open_members(dir: &Path, genesis: &Genesis, me: &Identity) -> Result<Members, BucketError> {
    let mut members = Members::new(genesis);
    let mut fault = None;
    let (_, found) = Frames::open(&dir.join("members"), Kind::MEMBERS, |_, record| {
        let outcome = members.accept(record, Some(me));
        fault = fault.take().or(outcome.err());
    })?;
    match fault {
        Some(fault) => Err(fault.into()),
        None if !found.damage.is_empty() => {
            Err(BucketError::Incomplete("members", io::ErrorKind::InvalidData.into()))
        }
        None => Ok(members),
    }
}

fn io(error: FramesError) -> io::Error {
    match error {
        FramesError::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl fmt::Display for BucketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BucketError::Io(error) => write!(f, "{error}"),
            BucketError::Incomplete(what, error) => write!(f, "`{what}` of the bucket: {error}"),
            BucketError::Genesis(error) => write!(f, "{error}"),
            BucketError::Members(error) => write!(f, "{error}"),
            BucketError::Frames(error) => write!(f, "{error}"),
            BucketError::Store(error) => write!(f, "{error}"),
            BucketError::Index(error) => write!(f, "{error}"),
            BucketError::Entry(error) => write!(f, "{error}"),
            BucketError::Feed(error) => write!(f, "{error}"),
            BucketError::Log(error) => write!(f, "{error}"),
            BucketError::Fault(fault) => write!(f, "{fault}"),
            BucketError::MayNotWrite => f.write_str("this device may not write to the bucket"),
            BucketError::NoKey(epoch) => write!(f, "this device has no key of epoch {epoch}"),
        }
    }
}

impl std::error::Error for BucketError {}

macro_rules! from {
    ($($variant:ident: $error:ty,)*) => {
        $(impl From<$error> for BucketError {
            fn from(error: $error) -> BucketError {
                BucketError::$variant(error)
            }
        })*
    };
}

from! {
    Io: io::Error,
    Genesis: GenesisError,
    Members: MemberError,
    Frames: FramesError,
    Store: StoreError,
    Index: IndexError,
    Entry: EntryError,
    Feed: FeedError,
    Log: LogError,
}

#[cfg(test)]
mod tests;
