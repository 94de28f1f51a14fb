//! The chunks of a bucket on this device.
//!
//! Chunks are put to the end of the newest pack; [`Store::sync`] makes the pack durable and then the index, and
//! only what it returned for is stored. After a crash, frames that the index does not know are read from the
//! newest packs; an index that is broken is made again from all of them.
//! Not here: which chunks are needed (`marks`), and where chunks that are not here come from.

mod check;
mod collect;
mod writer;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use gate_core::tree::id::Address;
use gate_core::tree::op::ChunkRef;
use rustix::io::Errno;

use crate::hash;
use crate::index::{Change, Index, IndexError};
use crate::pack::{self, Met, PACK_HEAD, Pack, PackError, PackId, Place};
use crate::seal::{
    ChunkKeys, DedupeId, OpenError, Plain, SEALED_BYTES_MAX, SEALED_BYTES_MIN, SealError, Workbench,
};

pub use check::{Check, Fault, Progress};
pub use collect::{Collected, Collection};
use writer::{FULL_PACKS_MAX, Writer};

/// So many chunks are at most in no index; then they are synced, asked or not.
const PENDING_MAX: usize = if cfg!(test) { 64 } else { 65_536 };
/// So many packs are open to be read.
const OPEN_PACKS_MAX: usize = 64;
/// How often a chunk is looked for that moves while it is read.
const LOOKS_MAX: usize = 4;
/// So many workbenches wait for the next who seals or opens.
const BENCHES_MAX: usize = 16;

/// The chunks of a bucket. Any thread may use it.
pub struct Store {
    packs: PathBuf,
    index: Index,
    /// Taken before `pending`.
    writer: Mutex<Writer>,
    pending: RwLock<Pending>,
    open: Mutex<BTreeMap<PackId, Arc<File>>>,
    benches: Mutex<Vec<Workbench>>,
    /// Held while the index is made again.
    healing: Mutex<()>,
    was_made_again: AtomicBool,
}

/// What was put and is not yet in the index.
#[derive(Debug, Default)]
struct Pending {
    chunks: HashMap<Address, Place>,
    twins: HashMap<DedupeId, ChunkRef>,
    /// While a collection runs: what was asked for since it began.
    touched: Option<HashSet<Address>>,
}

/// Why a store does not do what was asked.
#[derive(Debug)]
pub enum StoreError {
    /// Make room, or look at the disk, and try again; nothing that was stored is lost.
    Io(io::Error),
    /// Another process has the store open.
    Busy,
    /// A pack has a version that this gate does not know: use a newer one.
    UnknownVersion(PackId, u8),
    /// The chunk is not here: fetch it.
    Missing(Address),
    /// What is here is not the chunk any more: fetch it again.
    Damaged(Address),
    /// It is here, and nobody should have made it.
    Refused(OpenError),
    /// The bytes are not what the address says, or no chunk has their length: whoever sent them is wrong.
    NotThatChunk(Address),
    /// There are more bytes than a chunk holds.
    Seal(SealError),
    /// A collection runs: wait for its end.
    Collecting,
    /// Somebody reads the bucket as it was: wait until that is done.
    InUse,
}

impl Store {
    /// Opens the store in a bucket's directory, or makes it.
    pub fn open(dir: &Path, key: &[u8; 64]) -> Result<Store, StoreError> {
        let packs = dir.join("packs");
        fs::create_dir_all(&packs)?;
        let index = Index::open(&dir.join("index"), key)?;
        let is_new = index.is_new()?;
        let mut store = Store {
            packs,
            index,
            writer: Mutex::default(),
            pending: RwLock::default(),
            open: Mutex::default(),
            benches: Mutex::default(),
            healing: Mutex::default(),
            was_made_again: AtomicBool::new(false),
        };
        match store.index.packs() {
            Ok((known, next)) if !is_new => store.recover(&known, next)?,
            Ok(_) | Err(IndexError::Broken(_)) => store.make_index_again()?,
            Err(error) => return Err(error.into()),
        }
        Ok(store)
    }

    /// Whether the index was broken and made again: what others keep in it must be made again, too.
    pub fn was_made_again(&self) -> bool {
        self.was_made_again.load(Ordering::Acquire)
    }

    /// Returns the index, for what else is kept in it.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Reads what a crash left behind the end of what the index knows.
    fn recover(&mut self, known: &[(PackId, u64)], next: u32) -> Result<(), StoreError> {
        let known: BTreeMap<PackId, u64> = known.iter().copied().collect();
        let mut change = Change::default();
        let mut newest = None;
        let mut next = next;
        for id in pack::list(&self.packs)? {
            let from = match known.get(&id) {
                Some(len) => *len,
                // It was collected, and the crash came before it was removed.
                None if id.0 < next => {
                    fs::remove_file(id.path(&self.packs))?;
                    continue;
                }
                None => PACK_HEAD.len() as u64,
            };
            next = next.max(id.0.saturating_add(1));
            let file = match pack::open(&self.packs, id) {
                Ok(file) => file,
                // What is wrong with it is said when it is read, or checked.
                Err(PackError::NoPack(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let is_short = file.metadata()?.len() < from;
            let (mut end, mut is_torn) = (from, false);
            let outcome = pack::scan(&file, id, from, |met| match met {
                Met::Frame(address, place) => {
                    change.chunks.push((address, place));
                    end = place.end();
                    Ok(())
                }
                // Nothing behind it was told to be stored.
                Met::Damage { .. } => {
                    is_torn = true;
                    Err(io::ErrorKind::Interrupted.into())
                }
            });
            if !is_torn {
                outcome?;
            }
            newest = (!is_short).then_some((id, end));
            change.packs.push((id, end.max(from)));
        }
        if !change.chunks.is_empty() {
            self.ask(|index| index.apply(&change))?;
        }
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        writer.next = next;
        if let Some((id, len)) = newest {
            writer.pack = Some(Pack::open_at(&self.packs, id, len)?);
        }
        Ok(())
    }

    /// Makes the index from the packs. What is damaged stays where it is.
    fn make_index_again(&self) -> Result<(), StoreError> {
        let packs = pack::list(&self.packs)?;
        if !packs.is_empty() {
            tracing::warn!(packs = %self.packs.display(), "the index of a bucket is made again");
            self.was_made_again.store(true, Ordering::Release);
        }
        self.index.reset()?;
        for id in &packs {
            let file = match pack::open(&self.packs, *id) {
                Ok(file) => file,
                Err(PackError::NoPack(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut change = Change::default();
            let end = pack::scan(&file, *id, PACK_HEAD.len() as u64, |met| {
                if let Met::Frame(address, place) = met {
                    change.chunks.push((address, place));
                }
                Ok(())
            })?;
            change.packs.push((*id, end));
            self.index.apply(&change)?;
        }
        // Nothing is put behind what may be damaged: who opened the store begins a pack of its own.
        let next = packs.last().map_or(0, |id| id.0.saturating_add(1));
        if let Ok(mut writer) = self.writer.try_lock() {
            writer.next = writer.next.max(next);
        }
        Ok(())
    }

    /// Asks the index; if that turns out to be broken, it is made again and asked once more.
    fn ask<T>(&self, ask: impl Fn(&Index) -> Result<T, IndexError>) -> Result<T, StoreError> {
        match ask(&self.index) {
            Err(IndexError::Broken(_)) => {}
            outcome => return Ok(outcome?),
        }
        let _healing = self.lock_healing();
        match ask(&self.index) {
            Err(IndexError::Broken(_)) => self.make_index_again()?,
            // Another was faster.
            outcome => return Ok(outcome?),
        }
        Ok(ask(&self.index)?)
    }

    /// Makes the index again, which somebody found broken who keeps something else in it.
    pub(crate) fn heal(&self) -> Result<(), StoreError> {
        let _healing = self.lock_healing();
        self.make_index_again()
    }

    fn lock_healing(&self) -> MutexGuard<'_, ()> {
        self.healing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals bytes, unless the same were sealed before. They are not stored before [`Store::sync`].
    pub fn put(&self, keys: &ChunkKeys, plain: &[u8]) -> Result<ChunkRef, StoreError> {
        let id = keys.dedupe_id(plain);
        if let Some(chunk) = self.twin(&id)?
            && chunk.plain_len as usize == plain.len()
        {
            return Ok(chunk);
        }
        let sealed = self.with_bench(|bench| bench.seal(keys, plain))?;
        let mut writer = self.lock_writer();
        self.append(&mut writer, &sealed.chunk.address, &sealed.bytes)?;
        self.write_pending().twins.insert(id, sealed.chunk);
        Ok(sealed.chunk)
    }

    /// Puts a sealed chunk, whoever sealed it. It is not stored before [`Store::sync`].
    pub fn put_sealed(&self, address: &Address, sealed: &[u8]) -> Result<(), StoreError> {
        let is_chunk = (SEALED_BYTES_MIN..=SEALED_BYTES_MAX).contains(&sealed.len());
        if !is_chunk || hash::address(sealed) != *address {
            return Err(StoreError::NotThatChunk(*address));
        }
        self.append(&mut self.lock_writer(), address, sealed)
    }

    /// Returns the part of a chunk that is meant.
    pub fn get<'a>(
        &self,
        epochs: impl IntoIterator<Item = &'a ChunkKeys>,
        chunk: &ChunkRef,
    ) -> Result<Plain, StoreError> {
        let sealed = self.read(&chunk.address)?;
        let plain = self.with_bench(|bench| bench.open(epochs, chunk, sealed)).map_err(
            |error| match error {
                OpenError::Damaged => StoreError::Damaged(chunk.address),
                error => StoreError::Refused(error),
            },
        )?;
        let part = plain.part(chunk.from, chunk.len);
        part.ok_or(StoreError::Refused(OpenError::Malformed("no part of a chunk")))
    }

    /// Returns a chunk as it is, for others; its bytes have the address.
    pub fn get_sealed(&self, address: &Address) -> Result<Vec<u8>, StoreError> {
        let sealed = self.read(address)?;
        let is_whole = hash::address(&sealed) == *address;
        if is_whole { Ok(sealed) } else { Err(StoreError::Damaged(*address)) }
    }

    /// Whether a chunk is here; no collection that runs by then takes it away. Whether it is whole, only reading tells.
    pub fn has(&self, address: &Address) -> Result<bool, StoreError> {
        self.touch(address);
        Ok(self.locate(address)?.is_some())
    }

    /// Returns when all that was put before outlasts a crash.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.sync_as(&mut self.lock_writer())
    }

    fn sync_as(&self, writer: &mut Writer) -> Result<(), StoreError> {
        if writer.is_doubtful {
            self.put_pending_again(writer)?;
        }
        let change = {
            let pending = self.read_pending();
            let is_clear = pending.chunks.is_empty() && pending.twins.is_empty();
            if is_clear && writer.full.is_empty() {
                return Ok(());
            }
            Change {
                chunks: pending.chunks.iter().map(|(address, place)| (*address, *place)).collect(),
                dedupe: pending.twins.iter().map(|(id, chunk)| (*id, *chunk)).collect(),
                packs: writer.ends(),
                ..Change::default()
            }
        };
        writer.sync()?;
        self.ask(|index| index.apply(&change))?;
        let mut pending = self.write_pending();
        pending.chunks.clear();
        pending.twins.clear();
        Ok(())
    }

    /// After a sync that failed, the kernel may have dropped what it did not write and say so only once.
    fn put_pending_again(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let chunks: Vec<_> = self.read_pending().chunks.iter().map(|(a, p)| (*a, *p)).collect();
        writer.pack = None;
        writer.full.clear();
        for (address, place) in chunks {
            match self.read_at(&address, place)?.filter(|bytes| hash::address(bytes) == address) {
                Some(sealed) => self.append_anew(writer, &address, &sealed)?,
                None => {
                    let mut pending = self.write_pending();
                    pending.chunks.remove(&address);
                    pending.twins.retain(|_, chunk| chunk.address != address);
                    return Err(StoreError::Damaged(address));
                }
            }
        }
        writer.is_doubtful = false;
        Ok(())
    }

    /// Puts a chunk to the end, unless it is here.
    fn append(
        &self,
        writer: &mut Writer,
        address: &Address,
        sealed: &[u8],
    ) -> Result<(), StoreError> {
        self.touch(address);
        let waiting = {
            let pending = self.read_pending();
            pending.chunks.len().max(pending.twins.len())
        };
        if waiting >= PENDING_MAX {
            self.sync_as(writer)?;
        }
        if self.locate(address)?.is_some() {
            return Ok(());
        }
        self.append_anew(writer, address, sealed)
    }

    fn append_anew(
        &self,
        writer: &mut Writer,
        address: &Address,
        sealed: &[u8],
    ) -> Result<(), StoreError> {
        if writer.pack.as_ref().is_some_and(|pack| !pack.has_room(sealed.len())) {
            if writer.full.len() >= FULL_PACKS_MAX {
                self.sync_as(writer)?;
            }
            writer.end_pack();
        }
        let pack = match &mut writer.pack {
            Some(pack) => pack,
            none => {
                let made = Pack::create(&self.packs, PackId(writer.next))?;
                writer.next =
                    writer.next.checked_add(1).ok_or_else(|| io::Error::from(Errno::NOSPC))?;
                none.insert(made)
            }
        };
        #[cfg(test)]
        {
            pack.room = writer.room;
        }
        let place = pack.append(address, sealed);
        #[cfg(test)]
        {
            writer.room = pack.room;
        }
        self.write_pending().chunks.insert(*address, place?);
        Ok(())
    }

    fn twin(&self, id: &DedupeId) -> Result<Option<ChunkRef>, StoreError> {
        let pending = self.read_pending().twins.get(id).copied();
        let found = match pending {
            Some(chunk) => Some(chunk),
            None => self.ask(|index| index.twin(id))?,
        };
        let Some(chunk) = found else { return Ok(None) };
        // First it is touched, then it is looked for: a collection that comes between leaves it, or is seen.
        let is_sure = !self.touch(&chunk.address) || self.locate(&chunk.address)?.is_some();
        Ok(is_sure.then_some(chunk))
    }

    /// Tells a collection, if one runs, that a chunk is needed.
    fn touch(&self, address: &Address) -> bool {
        if self.read_pending().touched.is_none() {
            return false;
        }
        let mut pending = self.write_pending();
        pending.touched.as_mut().is_some_and(|touched| {
            touched.insert(*address);
            true
        })
    }

    fn locate(&self, address: &Address) -> Result<Option<Place>, StoreError> {
        if let Some(place) = self.read_pending().chunks.get(address) {
            return Ok(Some(*place));
        }
        self.ask(|index| index.place(address))
    }

    /// Reads the sealed bytes of a chunk; they are not hashed.
    fn read(&self, address: &Address) -> Result<Vec<u8>, StoreError> {
        for _ in 0..LOOKS_MAX {
            let place = self.locate(address)?.ok_or(StoreError::Missing(*address))?;
            if let Some(sealed) = self.read_at(address, place)? {
                return Ok(sealed);
            }
            // It moved, or it is damaged.
            self.lock_open().remove(&place.pack);
        }
        Err(StoreError::Damaged(*address))
    }

    fn read_at(&self, address: &Address, place: Place) -> Result<Option<Vec<u8>>, StoreError> {
        let known = self.lock_open().get(&place.pack).cloned();
        let file = match known {
            Some(file) => file,
            None => match pack::open(&self.packs, place.pack) {
                Ok(file) => {
                    let file = Arc::new(file);
                    let mut open = self.lock_open();
                    if open.len() >= OPEN_PACKS_MAX {
                        open.pop_first();
                    }
                    open.insert(place.pack, Arc::clone(&file));
                    file
                }
                Err(PackError::NoPack(_)) => return Ok(None),
                Err(PackError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            },
        };
        Ok(pack::read(&file, address, place)?)
    }

    fn with_bench<T>(&self, work: impl FnOnce(&mut Workbench) -> T) -> T {
        let benches = || self.benches.lock().unwrap_or_else(PoisonError::into_inner);
        let found = benches().pop();
        let mut bench = found.unwrap_or_default();
        let value = work(&mut bench);
        let mut benches = benches();
        if benches.len() < BENCHES_MAX {
            benches.push(bench);
        }
        value
    }

    fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_open(&self) -> MutexGuard<'_, BTreeMap<PackId, Arc<File>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_pending(&self) -> RwLockReadGuard<'_, Pending> {
        self.pending.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_pending(&self) -> RwLockWriteGuard<'_, Pending> {
        self.pending.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store in {}", self.packs.display())
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> StoreError {
        StoreError::Io(error)
    }
}

impl From<io::ErrorKind> for StoreError {
    fn from(kind: io::ErrorKind) -> StoreError {
        StoreError::Io(kind.into())
    }
}

impl From<SealError> for StoreError {
    fn from(error: SealError) -> StoreError {
        StoreError::Seal(error)
    }
}

impl From<IndexError> for StoreError {
    fn from(error: IndexError) -> StoreError {
        match error {
            IndexError::Io(error) => StoreError::Io(error),
            IndexError::Busy => StoreError::Busy,
            IndexError::InUse => StoreError::InUse,
            // It was made again, and broke again at once: that is the disk.
            IndexError::Broken(why) => {
                StoreError::Io(io::Error::new(io::ErrorKind::InvalidData, why))
            }
        }
    }
}

impl From<PackError> for StoreError {
    fn from(error: PackError) -> StoreError {
        match error {
            PackError::Io(error) => StoreError::Io(error),
            PackError::UnknownVersion(id, version) => StoreError::UnknownVersion(id, version),
            error @ PackError::NoPack(_) => {
                StoreError::Io(io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
            }
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Io(error) => error.fmt(f),
            StoreError::Busy => f.write_str("another process has the store open"),
            StoreError::UnknownVersion(id, version) => {
                PackError::UnknownVersion(*id, *version).fmt(f)
            }
            StoreError::Missing(address) => write!(f, "{address:?} is not here"),
            StoreError::Damaged(address) => write!(f, "{address:?} is damaged"),
            StoreError::Refused(error) => error.fmt(f),
            StoreError::NotThatChunk(address) => write!(f, "these bytes are not {address:?}"),
            StoreError::Seal(error) => error.fmt(f),
            StoreError::Collecting => f.write_str("chunks are being collected"),
            StoreError::InUse => f.write_str("somebody reads the bucket as it was"),
        }
    }
}

impl std::error::Error for StoreError {}

#[cfg(test)]
mod tests;
