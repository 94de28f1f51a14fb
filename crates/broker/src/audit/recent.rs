//! The latest records in memory, and those that are still to be written.

use std::collections::VecDeque;
use std::sync::Arc;

use gate_api::wire::Cursor;
use gate_core::id::Epoch;
use prometheus_client::metrics::counter::Counter;

use super::block::Block;

/// Bytes of records that are kept in memory though they are written.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that wait to be written, at most: more than a full tray.
const UNWRITTEN_BYTES_MAX: usize = 40 * 1024 * 1024;
/// What a block costs beside its records.
const BLOCK_COST: usize = 256;

/// Blocks of this run, oldest first, without a gap; the last of them may not be written yet.
pub(super) struct Recent {
    epoch: u64,
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
    /// The number of the last record that is written, or given up.
    written: u64,
    /// How many records were given up before they were written, right before the oldest here.
    given_up: u64,
    /// Counts those that are given up.
    missing: Counter,
}

impl Recent {
    pub fn new(epoch: Epoch, missing: Counter) -> Recent {
        let epoch = epoch.0;
        Recent { epoch, blocks: VecDeque::new(), bytes: 0, written: 0, given_up: 0, missing }
    }

    /// Adds blocks; the oldest go, written ones first.
    pub fn push(&mut self, blocks: Vec<Block>) {
        for block in blocks {
            self.bytes += cost(&block);
            self.blocks.push_back(Arc::new(block));
        }
        while self.bytes > KEPT_BYTES_MAX && self.drop_oldest() {}
    }

    /// Returns the place of the newest record.
    pub fn newest(&self) -> Cursor {
        let start = Cursor { epoch: self.epoch, number: 0 };
        self.blocks.back().map_or(start, |block| block.end())
    }

    /// Returns the place before the oldest record that is here.
    pub fn oldest(&self) -> Cursor {
        let start = Cursor { epoch: self.epoch, number: 0 };
        self.blocks.front().map_or(start, |block| block.begin())
    }

    /// Returns whether all that comes after a place is here.
    pub fn covers(&self, after: Cursor) -> bool {
        self.oldest() <= after && !self.blocks.is_empty()
    }

    /// Returns what comes after a place, oldest first.
    pub fn after(&self, place: Cursor) -> impl Iterator<Item = &Arc<Block>> {
        let from = self.blocks.partition_point(|block| block.end() <= place);
        self.blocks.range(from..)
    }

    /// Returns what comes up to a place, newest first.
    pub fn up_to(&self, place: Cursor) -> impl Iterator<Item = &Arc<Block>> {
        let until = self.blocks.partition_point(|block| block.begin() < place);
        self.blocks.range(..until).rev()
    }

    /// Returns what is to be written, oldest first; what was given up is a block that says so.
    pub fn unwritten(&self) -> Vec<Arc<Block>> {
        let place = Cursor { epoch: self.epoch, number: self.written };
        let blocks = self.after(place).cloned();
        let first = self.blocks.front().filter(|_| self.given_up > 0);
        let missing = first.map(|block| {
            let last = block.first - 1;
            let (first, at_ms) = (block.first - self.given_up, block.at_ms);
            Arc::new(Block::missing(self.epoch, first, last, at_ms))
        });
        missing.into_iter().chain(blocks).collect()
    }

    /// Takes note that all are written.
    pub fn all_written(&mut self) {
        self.written = self.newest().number;
        self.given_up = 0;
        while self.bytes > KEPT_BYTES_MAX && self.drop_oldest() {}
    }

    /// Drops the oldest block if it may go.
    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.blocks.front() else { return false };
        let is_written = oldest.last <= self.written;
        if !is_written && self.bytes <= UNWRITTEN_BYTES_MAX {
            return false;
        }
        if !is_written {
            let lost = oldest.last + 1 - oldest.first;
            self.given_up += lost;
            self.missing.inc_by(lost);
            self.written = oldest.last;
        }
        self.bytes -= cost(oldest);
        self.blocks.pop_front();
        true
    }
}

fn cost(block: &Block) -> usize {
    block.records.bytes() + BLOCK_COST
}
