//! Packs and index are held against each other; what is wrong is named, and the index is put right.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use gate_core::tree::id::Address;

use super::{Store, StoreError};
use crate::hash;
use crate::index::{Change, IndexError};
use crate::pack::{self, Met, PACK_HEAD, PackError, PackId, Place};

/// So many faults are listed; more are counted.
const FAULTS_MAX: usize = 10_000;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The index could not be read, and was made again.
    Index,
    /// The index knows the pack, and it is not here, or no pack any more.
    Pack(PackId),
    /// Bytes of a pack, from here to there, hold no chunk that can be read.
    Bytes(PackId, u64, u64),
    /// The index knew the chunk, and it is not where that said, or not whole: fetch it again.
    Chunk(Address),
    /// A pack has the chunk and the index did not know; it does now.
    Unknown(Address),
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// At most a bound of them.
    pub faults: Vec<Fault>,
    /// All of them.
    pub fault_count: u64,
    pub chunks: u64,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub packs_done: usize,
    pub packs: usize,
}

impl Check {
    fn note(&mut self, fault: Fault) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }
}

impl Store {
    /// Checks everything; `read_data` reads every byte, otherwise it is only seen whether chunks are in their places.
    ///
    /// Nothing can be put until it is done.
    pub fn check(
        &self,
        read_data: bool,
        mut progress: impl FnMut(Progress),
    ) -> Result<Check, StoreError> {
        let _alone = self.index.alone();
        let mut writer = self.lock_writer();
        self.sync_as(&mut writer)?;
        let mut check = Check::default();
        match self.index.verify() {
            Ok(true) => {}
            Ok(false) | Err(IndexError::Broken(_)) => {
                check.note(Fault::Index);
                self.make_index_again()?;
            }
            Err(error) => return Err(error.into()),
        }
        self.check_rows(read_data, &mut check)?;
        let (known, _) = self.ask(|index| index.packs())?;
        let mut packs: BTreeSet<PackId> = known.into_iter().map(|(id, _)| id).collect();
        packs.extend(pack::list(&self.packs)?);
        for (n, id) in packs.iter().enumerate() {
            progress(Progress { packs_done: n, packs: packs.len() });
            self.check_pack(*id, read_data, &mut check)?;
        }
        progress(Progress { packs_done: packs.len(), packs: packs.len() });
        Ok(check)
    }

    /// Removes the rows that lead to nothing.
    fn check_rows(&self, read_data: bool, check: &mut Check) -> Result<(), StoreError> {
        let mut change = Change::default();
        let mut failure = None;
        self.index.each(|address, place| match self.is_whole(&address, place, read_data) {
            Ok(true) => check.chunks += 1,
            Ok(false) => {
                check.note(Fault::Chunk(address));
                change.gone.push(address);
            }
            Err(error) => failure = Some(error),
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        if !change.gone.is_empty() {
            self.ask(|index| index.apply(&change))?;
        }
        Ok(())
    }

    fn is_whole(
        &self,
        address: &Address,
        place: Place,
        read_data: bool,
    ) -> Result<bool, StoreError> {
        let sealed = self.read_at(address, place)?;
        Ok(sealed.is_some_and(|bytes| !read_data || hash::address(&bytes) == *address))
    }

    /// Names what is damaged, and finds what the index does not know.
    fn check_pack(&self, id: PackId, read_data: bool, check: &mut Check) -> Result<(), StoreError> {
        let file = match pack::open(&self.packs, id) {
            Ok(file) => file,
            Err(PackError::NoPack(_)) => {
                check.note(Fault::Pack(id));
                return Ok(());
            }
            Err(PackError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                check.note(Fault::Pack(id));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if !read_data {
            return Ok(());
        }
        let mut found = Vec::new();
        pack::scan(&file, id, PACK_HEAD.len() as u64, |met| {
            match met {
                Met::Frame(address, place) => found.push((address, place)),
                Met::Damage { from, to, .. } => check.note(Fault::Bytes(id, from, to)),
            }
            Ok(())
        })?;
        let mut change = Change::default();
        for (address, place) in found {
            if self.locate(&address)?.is_none() {
                check.note(Fault::Unknown(address));
                change.chunks.push((address, place));
                check.chunks += 1;
            }
        }
        if !change.chunks.is_empty() {
            self.ask(|index| index.apply(&change))?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Index => f.write_str("the index was broken; it was made again"),
            Fault::Pack(PackId(id)) => write!(f, "pack {id:08} is gone, or no pack any more"),
            Fault::Bytes(PackId(id), from, to) => {
                write!(f, "pack {id:08} is damaged from byte {from} to {to}")
            }
            Fault::Chunk(address) => write!(f, "{address:?} is lost: fetch it again"),
            Fault::Unknown(address) => write!(f, "{address:?} was not in the index; it is now"),
        }
    }
}
