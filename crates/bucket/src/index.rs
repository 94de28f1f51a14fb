//! Where chunks lie: a redb file that can be made again from the packs.
//!
//! Nothing here is believed: whoever follows a row to a pack finds out whether it was right. redb may return
//! errors or panic over bytes that it did not write; both end here, and mean that the index is made again.
//! Not here: which row is right (`store`).

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;

use gate_core::tree::id::Address;
use gate_core::tree::op::ChunkRef;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use zeroize::Zeroizing;

use crate::pack::{PackId, Place};
use crate::seal::DedupeId;
use crate::sectors::Sectors;

/// The version of all tables together. Another one is made again.
pub(crate) const INDEX_VERSION: u32 = 4;
/// What redb may hold in memory, for each bucket that is in use.
const CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;

const META: TableDefinition<'_, &str, u32> = TableDefinition::new("meta");
const VERSION: &str = "version";
/// The number above those of all packs that were ever written down.
const NEXT_PACK: &str = "next pack";
/// Address: pack, offset, sealed length.
const CHUNKS: TableDefinition<'_, &[u8; 32], &[u8; 12]> = TableDefinition::new("chunks 1");
/// Dedupe id: address, key, plain length.
const DEDUPE: TableDefinition<'_, &[u8; 32], &[u8; 68]> = TableDefinition::new("dedupe 1");
/// Pack: up to where it is in the index.
const PACKS: TableDefinition<'_, u32, u64> = TableDefinition::new("packs 1");

/// The index of a store.
pub struct Index {
    /// Locked for as long as this lives, also while the database is closed.
    file: File,
    key: Zeroizing<[u8; 64]>,
    /// None after an error, until it is opened again.
    database: RwLock<Option<Database>>,
    /// Whether somebody found damage who reads a snapshot.
    suspect: Suspect,
    /// What the disk said last that made it close, by number.
    fault: AtomicI32,
    /// Held by who reads a snapshot for long; without it nobody looks through the whole.
    reading: RwLock<()>,
}

/// Who reads what is kept longer than for one question says here that it is damaged: the next who asks the index
/// anything finds it broken.
#[derive(Clone, Debug, Default)]
pub struct Suspect(Arc<AtomicBool>);

impl Suspect {
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Why the index did not answer.
#[derive(Debug)]
pub enum IndexError {
    /// Make room, or look at the disk, and try again.
    Io(io::Error),
    /// Another process has it.
    Busy,
    /// Somebody reads what it was: it cannot be looked through until that is done.
    InUse,
    /// It is damaged, or of another version: make it again from the packs.
    Broken(String),
}

/// What changes in the index at once.
#[derive(Debug, Default)]
pub struct Change {
    pub chunks: Vec<(Address, Place)>,
    pub gone: Vec<Address>,
    pub dedupe: Vec<(DedupeId, ChunkRef)>,
    /// Up to where packs are in the index.
    pub packs: Vec<(PackId, u64)>,
    pub gone_packs: Vec<PackId>,
}

impl Index {
    /// Opens the file, or makes it; [`IndexError::Broken`] is found out by the first who asks for something.
    pub fn open(path: &Path, key: &[u8; 64]) -> Result<Index, IndexError> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) => return Err(IndexError::Busy),
            Err(std::fs::TryLockError::Error(error)) => return Err(error.into()),
            Ok(()) => {}
        }
        Ok(Index {
            file,
            key: Zeroizing::new(*key),
            database: RwLock::new(None),
            suspect: Suspect::default(),
            fault: AtomicI32::new(0),
            reading: RwLock::default(),
        })
    }

    /// Whether nothing was ever written to it.
    pub fn is_new(&self) -> Result<bool, IndexError> {
        Ok(self.file.metadata()?.len() == 0)
    }

    /// Makes it empty.
    pub fn reset(&self) -> Result<(), IndexError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        close(database.take());
        self.suspect.0.store(false, Ordering::Release);
        self.file.set_len(0)?;
        self.file.sync_all()?;
        Ok(())
    }

    /// Reads the whole of it, and says whether it is what was written.
    pub fn verify(&self) -> Result<bool, IndexError> {
        if self.suspect.0.load(Ordering::Acquire) {
            return Ok(false);
        }
        self.ensure_open()?;
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = database.as_mut() else { return Err(closed()) };
        let outcome = guard(|| Ok(open.check_integrity()?));
        if outcome.as_ref().is_err_and(|error| !matches!(error, IndexError::InUse)) {
            close(database.take());
        }
        outcome
    }

    /// Returns what keeps others from looking through the whole: it cannot be done while somebody reads what it was.
    pub fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.reading.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody reads for long what it was. Who holds this holds nothing yet that those wait for.
    pub fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.reading.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns where to say that a snapshot is damaged.
    pub fn suspect(&self) -> Suspect {
        self.suspect.clone()
    }

    /// Reads in one transaction.
    pub fn read<T>(
        &self,
        ask: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, IndexError> {
        self.with(|database| ask(&database.begin_read()?))
    }

    /// Writes in one transaction; when this returns, it outlasts a crash.
    pub fn write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, IndexError> {
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            // Else whoever opens it after a crash reads all of it first.
            transaction.set_quick_repair(true);
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, IndexError> {
        self.ensure_open()?;
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = database.as_ref() else { return Err(self.told(closed())) };
        let outcome = match self.suspect.0.swap(false, Ordering::AcqRel) {
            true => Err(IndexError::Broken("a reader found damage".into())),
            false => guard(|| work(open)).map_err(|error| self.told(error)),
        };
        drop(database);
        if outcome.is_err() {
            // After an error redb answers nothing more; what was committed is there when it is opened again.
            let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
            close(database.take());
        }
        outcome
    }

    /// Returns what the disk said, also of an error that says no more than that one came before.
    fn told(&self, error: IndexError) -> IndexError {
        let IndexError::Io(io) = &error else { return error };
        match (io.raw_os_error(), self.fault.load(Ordering::Relaxed)) {
            (Some(number), _) => self.fault.store(number, Ordering::Relaxed),
            (None, 0) => {}
            (None, number) => return IndexError::Io(io::Error::from_raw_os_error(number)),
        }
        error
    }

    fn ensure_open(&self) -> Result<(), IndexError> {
        if self.database.read().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            let sectors = Sectors::new(self.file.try_clone()?, &self.key)?;
            let made = guard(|| {
                let made = Database::builder()
                    .set_cache_size(CACHE_BYTES_MAX)
                    .create_with_backend(sectors)?;
                make_tables(&made)?;
                Ok(made)
            })?;
            *database = Some(made);
        }
        Ok(())
    }

    /// Finds a chunk.
    pub fn place(&self, address: &Address) -> Result<Option<Place>, IndexError> {
        self.read(|read| {
            let row = read.open_table(CHUNKS)?.get(&address.0)?;
            Ok(row.map(|row| place_of(row.value())))
        })
    }

    /// Finds what was made of the same bytes, if it is still there.
    pub fn twin(&self, id: &DedupeId) -> Result<Option<ChunkRef>, IndexError> {
        self.read(|read| {
            let Some(row) = read.open_table(DEDUPE)?.get(&id.0)? else { return Ok(None) };
            let chunk = chunk_of(row.value());
            let is_there = read.open_table(CHUNKS)?.get(&chunk.address.0)?.is_some();
            Ok(is_there.then_some(chunk))
        })
    }

    /// Returns up to where each pack is in the index, and the number above all that ever were.
    pub fn packs(&self) -> Result<(Vec<(PackId, u64)>, u32), IndexError> {
        self.read(|read| {
            let mut packs = Vec::new();
            for row in read.open_table(PACKS)?.iter()? {
                let (id, len) = row?;
                packs.push((PackId(id.value()), len.value()));
            }
            let next = read.open_table(META)?.get(NEXT_PACK)?.map_or(0, |row| row.value());
            Ok((packs, next))
        })
    }

    /// Goes through all chunks.
    pub fn each(&self, mut chunk: impl FnMut(Address, Place)) -> Result<(), IndexError> {
        self.read(|read| {
            for row in read.open_table(CHUNKS)?.iter()? {
                let (address, place) = row?;
                chunk(Address(*address.value()), place_of(place.value()));
            }
            Ok(())
        })
    }

    /// Writes down what changed, at once.
    pub fn apply(&self, change: &Change) -> Result<(), IndexError> {
        self.write(|write| {
            let mut chunks = write.open_table(CHUNKS)?;
            for address in &change.gone {
                chunks.remove(&address.0)?;
            }
            for (address, place) in &change.chunks {
                chunks.insert(&address.0, &row_of_place(*place))?;
            }
            let mut dedupe = write.open_table(DEDUPE)?;
            for (id, chunk) in &change.dedupe {
                dedupe.insert(&id.0, &row_of_chunk(chunk))?;
            }
            let (mut packs, mut meta) = (write.open_table(PACKS)?, write.open_table(META)?);
            for id in &change.gone_packs {
                packs.remove(id.0)?;
            }
            let mut next = meta.get(NEXT_PACK)?.map_or(0, |row| row.value());
            for (id, len) in &change.packs {
                packs.insert(id.0, len)?;
                next = next.max(id.0.saturating_add(1));
            }
            meta.insert(NEXT_PACK, next)?;
            Ok(())
        })
    }

    /// Forgets bytes whose chunks are gone.
    pub fn forget_twins(&self) -> Result<(), IndexError> {
        self.write(|write| {
            let (chunks, mut dedupe) = (write.open_table(CHUNKS)?, write.open_table(DEDUPE)?);
            let mut failure = None;
            dedupe.retain(|_, row| match chunks.get(&chunk_of(row).address.0) {
                Ok(found) => found.is_some(),
                Err(error) => {
                    failure = Some(error);
                    true
                }
            })?;
            failure.map_or(Ok(()), |error| Err(error.into()))
        })
    }
}

fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut meta = write.open_table(META)?;
        let version = meta.get(VERSION)?.map(|row| row.value());
        if version.is_some_and(|version| version != INDEX_VERSION) {
            return Err(redb::Error::Corrupted("it has another version".into()));
        }
        if version.is_some() {
            return Ok(());
        }
        meta.insert(VERSION, INDEX_VERSION)?;
        write.open_table(CHUNKS)?;
        write.open_table(DEDUPE)?;
        write.open_table(PACKS)?;
    }
    write.commit()?;
    Ok(())
}

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is in redb, whose panics end here: they are nobody else's matter.
pub fn is_guarded() -> bool {
    IS_GUARDED.get()
}

/// Does what may panic over bytes that redb did not write.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> thread::Result<T> {
    let before = IS_GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(before);
    outcome
}

/// Lets nothing out of redb but what the caller can act on.
fn guard<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, IndexError> {
    match guarded(work) {
        Ok(outcome) => outcome.map_err(IndexError::from),
        Err(_) => Err(IndexError::Broken("it has pages that make no sense".into())),
    }
}

impl From<redb::Error> for IndexError {
    fn from(error: redb::Error) -> IndexError {
        match error {
            redb::Error::Io(error) => match error.kind() {
                // What it did not find where its own pages say that it is.
                ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput => {
                    IndexError::Broken(error.to_string())
                }
                _ => IndexError::Io(error),
            },
            redb::Error::TransactionInProgress => IndexError::InUse,
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
                IndexError::Io(io::Error::other(error.to_string()))
            }
            error => IndexError::Broken(error.to_string()),
        }
    }
}

/// A database that is broken may panic once more when it goes.
fn close(database: Option<Database>) {
    let _ = guarded(|| drop(database));
}

fn closed() -> IndexError {
    IndexError::Io(io::Error::other("the index was closed after an error of another"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("rows have their length"))
}

fn place_of(row: &[u8; 12]) -> Place {
    Place { pack: PackId(u32_at(row, 0)), offset: u32_at(row, 4), len: u32_at(row, 8) }
}

fn row_of_place(place: Place) -> [u8; 12] {
    let mut row = [0; 12];
    row[..4].copy_from_slice(&place.pack.0.to_le_bytes());
    row[4..8].copy_from_slice(&place.offset.to_le_bytes());
    row[8..].copy_from_slice(&place.len.to_le_bytes());
    row
}

fn chunk_of(row: &[u8; 68]) -> ChunkRef {
    let (mut address, mut key) = ([0; 32], [0; 32]);
    address.copy_from_slice(&row[..32]);
    key.copy_from_slice(&row[32..64]);
    let len = u32_at(row, 64);
    ChunkRef { address: Address(address), key, plain_len: len, from: 0, len }
}

fn row_of_chunk(chunk: &ChunkRef) -> [u8; 68] {
    let mut row = [0; 68];
    row[..32].copy_from_slice(&chunk.address.0);
    row[32..64].copy_from_slice(&chunk.key);
    row[64..].copy_from_slice(&chunk.plain_len.to_le_bytes());
    row
}

impl From<io::Error> for IndexError {
    fn from(error: io::Error) -> IndexError {
        match error.kind() {
            ErrorKind::WouldBlock => IndexError::Busy,
            _ => IndexError::Io(error),
        }
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an index")
    }
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IndexError::Io(error) => error.fmt(f),
            IndexError::Busy => f.write_str("another process has the index"),
            IndexError::InUse => f.write_str("somebody reads what the index was"),
            IndexError::Broken(why) => write!(f, "the index is broken: {why}"),
        }
    }
}

impl std::error::Error for IndexError {}
