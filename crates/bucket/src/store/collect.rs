//! Chunks that nobody needs are given up, and what is left of their packs moves together.
//!
//! A chunk that is put or asked for while a collection runs stays, whatever the marks say: begin the collection
//! first, wait for puts that were under way, then find out what is needed. A crash leaves each chunk in the old pack, in the new one, or in both.

use std::collections::{BTreeMap, HashSet};
use std::fs;

use gate_core::tree::id::Address;

use super::{Store, StoreError, Writer};
use crate::hash;
use crate::index::Change;
use crate::pack::{PACK_HEAD, PackId, Place};

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
    /// Packs that are gone.
    pub packs: u64,
    /// Packs that have to go, but something in them that is needed cannot be read.
    pub damaged_packs: u64,
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
    /// Gives up what is not marked, where that is more than half of a pack.
    pub fn run(&self, is_marked: impl Fn(&Address) -> bool) -> Result<Collected, StoreError> {
        let store = self.store;
        store.sync()?;
        let mut live: BTreeMap<PackId, u64> = BTreeMap::new();
        let is_live = |address: &Address| is_marked(address) || store.is_touched(address);
        store.index.each(|address, place| {
            let bytes = if is_live(&address) { place.end() - u64::from(place.offset) } else { 0 };
            *live.entry(place.pack).or_default() += bytes;
        })?;
        let (packs, _) = store.ask(|index| index.packs())?;
        let mut collected = Collected::default();
        for (id, len) in packs {
            let all = len.saturating_sub(PACK_HEAD.len() as u64);
            if live.get(&id).copied().unwrap_or(0) * 2 < all {
                self.give_up(id, &is_marked, &mut collected)?;
            }
        }
        if collected.chunks > 0 {
            store.ask(|index| index.forget_twins())?;
        }
        Ok(collected)
    }

    fn give_up(
        &self,
        id: PackId,
        is_marked: impl Fn(&Address) -> bool,
        collected: &mut Collected,
    ) -> Result<(), StoreError> {
        let store = self.store;
        {
            let mut writer = store.lock_writer();
            if writer.pack.as_ref().is_some_and(|pack| pack.id == id) {
                store.begin_pack(&mut writer)?;
            }
        }
        let mut rows: Vec<(Address, Place)> = Vec::new();
        store.index.each(|address, place| {
            if place.pack == id {
                rows.push((address, place));
            }
        })?;
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
                gone.extend(dead.drain(..).map(|(address, _)| address));
                let mut change = Change { gone, gone_packs: vec![id], ..Change::default() };
                change.chunks = pending.chunks.iter().map(|(a, p)| (*a, *p)).collect();
                change.packs = writer.pack.iter().map(|pack| (pack.id, pack.len())).collect();
                store.sync_pack(&mut writer)?;
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
        fs::remove_file(id.path(&store.packs))?;
        collected.packs += 1;
        Ok(())
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
