//! From the deciding thread to the keeper: records are bytes at once, in a bounded tray.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gate_api::wire::{Happening, Record};
use gate_core::id::Epoch;
use prometheus_client::metrics::counter::Counter;

use super::Word;
use super::block::{BLOCK_BYTES, Block, Records};
use crate::clock;

/// Bytes that may lie in the tray: what the busiest broker does in the seconds that a sync may take
/// on a disk that others use.
const TRAY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What the deciding thread writes with.
pub(crate) struct Pen {
    tray: Arc<Tray>,
    keeper: Sender<Word>,
    /// What is not to be told yet.
    written: Written,
}

/// Records in a row.
#[derive(Default)]
struct Written {
    records: Records,
    count: u64,
    /// When the latest happened.
    at_ms: u64,
    /// Whether somebody may ask why one of them happened.
    odd: bool,
}

/// Records on their way. The lock is held for a copy or a swap, and by the keeper for no longer.
pub(super) struct Tray {
    epoch: u64,
    filling: Mutex<Filling>,
    /// Counts those that find no room.
    missing: Counter,
}

struct Filling {
    blocks: Vec<Block>,
    bytes: usize,
    /// The number of the next record.
    next: u64,
    /// Records that found no room since the tray was taken.
    missing: u64,
    /// When the latest of them was written.
    at_ms: u64,
    /// Whether the keeper knows that there is something.
    told: bool,
}

impl Pen {
    pub(super) fn new(tray: Arc<Tray>, keeper: Sender<Word>) -> Pen {
        Pen { tray, keeper, written: Written::default() }
    }

    /// Writes a record, to be handed over later.
    pub fn note(&mut self, what: Happening<'_>) {
        self.note_both(what, None);
    }

    /// As [`Pen::note`], of a claim whose names are told and never written down.
    pub fn note_sealed(&mut self, what: Happening<'_>) {
        let mut bare = what.clone();
        if let Happening::Claim { claim, .. } = &mut bare {
            claim.places.iter_mut().for_each(|place| place.path = None);
        }
        self.note_both(what, Some(bare));
    }

    fn note_both(&mut self, what: Happening<'_>, bare: Option<Happening<'_>>) {
        let at_ms = clock::wall_ms();
        let record = Record { at_ms, what };
        let bare = bare.map(|what| Record { at_ms, what });
        // More than the tray takes is missing as a whole: none of it need be here.
        if self.written.records.told.len() <= TRAY_BYTES_MAX {
            self.written.records.push(&record, bare.as_ref());
        }
        self.written.count += 1;
        self.written.at_ms = record.at_ms;
        self.written.odd |= record.is_odd();
    }

    /// Lets the keeper have what was written: the journal has what it tells of (N3).
    pub fn hand_over(&mut self) {
        if self.written.count == 0 {
            return;
        }
        if self.tray.put(&self.written) {
            // Without the keeper the log has ended.
            let _ = self.keeper.send(Word::Filled);
        }
        self.written.records.clear();
        self.written.count = 0;
        self.written.odd = false;
    }
}

impl Tray {
    pub fn new(epoch: Epoch, missing: Counter) -> Tray {
        let filling =
            Filling { blocks: Vec::new(), bytes: 0, next: 1, missing: 0, at_ms: 0, told: false };
        Tray { epoch: epoch.0, filling: Mutex::new(filling), missing }
    }

    /// Puts records in, or counts them where there is no room; returns whether the keeper is to
    /// be told.
    fn put(&self, written: &Written) -> bool {
        let mut filling = self.filling();
        filling.at_ms = written.at_ms;
        // Once some are missing all are, up to the next taking: so they are one gap.
        if filling.missing > 0 || filling.bytes + written.records.told.len() > TRAY_BYTES_MAX {
            filling.missing += written.count;
            self.missing.inc_by(written.count);
        } else {
            filling.append(self.epoch, written);
        }
        !std::mem::replace(&mut filling.told, true)
    }

    /// Takes all records; those that found no room are one that says so.
    pub fn take(&self) -> Vec<Block> {
        let mut filling = self.filling();
        filling.told = false;
        filling.bytes = 0;
        let mut blocks = std::mem::take(&mut filling.blocks);
        let missing = std::mem::take(&mut filling.missing);
        if missing > 0 {
            let (first, at_ms) = (filling.next, filling.at_ms);
            filling.next += missing;
            blocks.push(Block::missing(self.epoch, first, first + missing - 1, at_ms));
        }
        blocks
    }

    fn filling(&self) -> MutexGuard<'_, Filling> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Filling {
    fn append(&mut self, epoch: u64, written: &Written) {
        if self.blocks.last().is_none_or(|block| block.records.told.len() >= BLOCK_BYTES) {
            self.blocks.push(Block::begun(epoch, self.next, written.at_ms));
        }
        let block = self.blocks.last_mut().expect("pushed if there was none");
        block.records.append(&written.records);
        block.last += written.count;
        block.at_ms = written.at_ms;
        block.odd |= written.odd;
        self.bytes += written.records.told.len();
        self.next += written.count;
    }
}
