//! Chunks that nobody needs are given up, and what is left of their packs moves together.
//!
//! A chunk that is put or asked for while a collection runs stays, whatever the marks say: begin the collection
//! first, then find out what is needed. What was put before that and is needed by nobody yet is known by its age: packs to which
//! something was put lately stay. A crash leaves each chunk in the old pack, in the new one, or in both.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::time::SystemTime;

use gate_core::tree::id::Address;

use super::{Progress, Store, StoreError, Writer};
use crate::hash;
use crate::index::Change;
use crate::pack::{self, Met, PACK_HEAD, PackError, PackId, Place};

/// A collection that was begun. There is one at a time; what is touched until it goes, stays.
#[derive(Debug)]
pub struct Collection<'a> {
    store: &'a Store,
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Chunks that are gone.
    pub chunks: u64,
    /// What they took on the disk.
    pub bytes: u64,
    /// Packs that are gone.
    pub packs: u64,
    /// Packs that have to go, but something in them that is needed cannot be read.
    pub damaged_packs: u64,
    /// What nobody needs of packs that would have to go, but to which something was put lately.
    pub young_bytes: u64,
}

impl Store {
    /// Begins a collection.
    pub fn collection(&self) -> Result<Collection<'_>, StoreError> {
        let mut pending = self.write_pending();
        if pending.touched.is_some() {
            return Err(StoreError::Collecting);
        }
        pending.touched = Some(HashSet::new());
        Ok(Collection { store: self })
    }
}

impl Collection<'_> {
    /// Gives up what is not marked, where that is more than a quarter of a pack to which nothing was put since a time:
    /// what stays takes a third more than what is needed, at most.
    pub fn run(
        &self,
        since: SystemTime,
        is_marked: impl Fn(&Address) -> bool,
        mut progress: impl FnMut(Progress),
    ) -> Result<Collected, StoreError> {
        let store = self.store;
        store.sync()?;
        let mut live: BTreeMap<PackId, u64> = BTreeMap::new();
        let is_live = |address: &Address| is_marked(address) || store.is_touched(address);
        store.index.each(|address, place| {
            let bytes = if is_live(&address) { bytes_of(place) } else { 0 };
            *live.entry(place.pack).or_default() += bytes;
        })?;
        let (packs, _) = store.ask(|index| index.packs())?;
        let mut collected = Collected::default();
        for (n, (id, len)) in packs.iter().enumerate() {
            progress(Progress { packs_done: n, packs: packs.len() });
            let all = len.saturating_sub(PACK_HEAD.len() as u64);
            let live = live.get(id).copied().unwrap_or(0);
            if live >= all / 4 * 3 {
                continue;
            }
            self.end_pack(*id)?;
            if self.is_young(*id, since)? {
                collected.young_bytes += all - live;
            } else {
                self.give_up(*id, &is_marked, &mut collected)?;
            }
        }
        progress(Progress { packs_done: packs.len(), packs: packs.len() });
        if collected.chunks > 0 {
            store.ask(|index| index.forget_twins())?;
        }
        Ok(collected)
    }

    /// Nothing more is put into a pack, so that it ages.
    fn end_pack(&self, id: PackId) -> Result<(), StoreError> {
        let mut writer = self.store.lock_writer();
        match &writer.pack {
            Some(pack) if pack.id == id => {
                writer.end_pack();
                self.store.sync_as(&mut writer)
            }
            _ => Ok(()),
        }
    }

    fn is_young(&self, id: PackId, since: SystemTime) -> Result<bool, StoreError> {
        match fs::metadata(id.path(&self.store.packs)) {
            Ok(metadata) => Ok(metadata.modified()? > since),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn give_up(
        &self,
        id: PackId,
        is_marked: impl Fn(&Address) -> bool,
        collected: &mut Collected,
    ) -> Result<(), StoreError> {
        let store = self.store;
        let mut rows = self.rows(id)?;
        rows.sort_unstable_by_key(|(_, place)| place.offset);
        let mut dead = Vec::new();
        for (address, place) in rows {
            if !is_marked(&address) && !store.is_touched(&address) {
                dead.push((address, place));
            } else if !self.bring(&mut store.lock_writer(), &address, place)? {
                collected.damaged_packs += 1;
                return Ok(());
            }
        }
        let mut writer = store.lock_writer();
        if writer.is_doubtful {
            store.sync_as(&mut writer)?;
        }
        let mut gone = Vec::new();
        loop {
            // What was touched since then is brought, too; nothing more can be while the lock is held.
            let pending = store.write_pending();
            let is_needed = |(address, _): &(Address, Place)| {
                pending.touched.as_ref().is_some_and(|touched| touched.contains(address))
            };
            let Some(at) = dead.iter().position(is_needed) else {
                collected.bytes += dead.iter().map(|(_, place)| bytes_of(*place)).sum::<u64>();
                gone.extend(dead.drain(..).map(|(address, _)| address));
                let mut change = Change { gone, gone_packs: vec![id], ..Change::default() };
                change.chunks = pending.chunks.iter().map(|(a, p)| (*a, *p)).collect();
                change.packs = writer.ends();
                writer.sync()?;
                store.index.apply(&change)?;
                collected.chunks += change.gone.len() as u64;
                break;
            };
            drop(pending);
            let (address, place) = dead.swap_remove(at);
            if !self.bring(&mut writer, &address, place)? {
                collected.damaged_packs += 1;
                return Ok(());
            }
        }
        store.write_pending().chunks.clear();
        store.lock_open().remove(&id);
        match fs::remove_file(id.path(&store.packs)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome?,
        }
        collected.packs += 1;
        Ok(())
    }

    /// Returns what lies in a pack: what the index says, and what that has forgotten.
    fn rows(&self, id: PackId) -> Result<Vec<(Address, Place)>, StoreError> {
        let store = self.store;
        let mut rows: Vec<(Address, Place)> = Vec::new();
        store.index.each(|address, place| {
            if place.pack == id {
                rows.push((address, place));
            }
        })?;
        let file = match pack::open(&store.packs, id) {
            Ok(file) => file,
            // Nothing that is needed can be brought of it: then it stays.
            Err(PackError::NoPack(_)) => return Ok(rows),
            Err(PackError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(rows);
            }
            Err(error) => return Err(error.into()),
        };
        let mut met = Vec::new();
        pack::scan(&file, id, PACK_HEAD.len() as u64, |found| {
            if let Met::Frame(address, place) = found {
                met.push((address, place));
            }
            Ok(())
        })?;
        for (address, place) in met {
            if store.locate(&address)?.is_none() {
                rows.push((address, place));
            }
        }
        Ok(rows)
    }

    /// Puts a chunk once more, to the newest pack; false if it cannot be read.
    fn bring(
        &self,
        writer: &mut Writer,
        address: &Address,
        place: Place,
    ) -> Result<bool, StoreError> {
        let sealed = self.store.read_at(address, place)?;
        let Some(sealed) = sealed.filter(|bytes| hash::address(bytes) == *address) else {
            return Ok(false);
        };
        if self.store.read_pending().chunks.len() >= super::PENDING_MAX {
            self.store.sync_as(writer)?;
        }
        self.store.append_anew(writer, address, &sealed)?;
        Ok(true)
    }
}

/// What a chunk takes on the disk.
fn bytes_of(place: Place) -> u64 {
    place.end() - u64::from(place.offset)
}

impl Drop for Collection<'_> {
    fn drop(&mut self) {
        self.store.write_pending().touched = None;
    }
}

impl Store {
    fn is_touched(&self, address: &Address) -> bool {
        let pending = self.read_pending();
        pending.touched.as_ref().is_some_and(|touched| touched.contains(address))
    }
}
