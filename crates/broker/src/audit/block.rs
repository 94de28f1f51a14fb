//! Records in a row, as bytes: how they come from the pen, lie in memory and in the file.

use gate_api::wire::{Cursor, Entry, Happening, Record};

/// Bytes after which a block is full; its last record may go beyond.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

/// Records of one run, numbered one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The run.
    pub epoch: u64,
    /// The number of the first.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
    /// When the last happened: milliseconds since 1970, UTC.
    pub at_ms: u64,
    /// Whether somebody may ask why one of them happened.
    pub odd: bool,
    /// Their bytes, one after the other.
    pub bytes: Vec<u8>,
}

/// A record that was read, and the numbers it stands for.
pub(super) struct Read {
    pub entry: Entry,
    /// The place before it.
    pub before: Cursor,
    /// How long it is as bytes.
    pub bytes: usize,
}

impl Block {
    /// Makes a block whose first record is to come.
    pub fn begun(epoch: u64, first: u64, at_ms: u64) -> Block {
        Block { epoch, first, last: first - 1, at_ms, odd: false, bytes: Vec::new() }
    }

    /// Makes a block that says of some numbers that their records are missing.
    pub fn missing(epoch: u64, first: u64, last: u64, at_ms: u64) -> Block {
        let mut block = Block::begun(epoch, first, at_ms);
        let what = Happening::Missing { count: last - block.last };
        encode(&Record { at_ms, what }, &mut block.bytes);
        block.last = last;
        block
    }

    /// Returns the place of its last record.
    pub fn end(&self) -> Cursor {
        Cursor { epoch: self.epoch, number: self.last }
    }

    /// Returns the place before its first record.
    pub fn begin(&self) -> Cursor {
        Cursor { epoch: self.epoch, number: self.first - 1 }
    }

    /// Reads its records; one that makes no sense is told as missing, with all after it.
    pub fn read(&self) -> Vec<Read> {
        self.decode().unwrap_or_else(|| {
            tracing::error!(
                epoch = self.epoch,
                first = self.first,
                "a part of the log is unreadable"
            );
            let missing = Block::missing(self.epoch, self.first, self.last, self.at_ms);
            missing.decode().expect("our own bytes make sense")
        })
    }

    /// Returns its records, if its bytes make sense.
    pub fn decode(&self) -> Option<Vec<Read>> {
        let mut records = Vec::new();
        let mut rest = &self.bytes[..];
        let mut before = self.begin();
        while !rest.is_empty() {
            let (record, after): (Record<'static>, _) = postcard::take_from_bytes(rest).ok()?;
            let number = before.number.checked_add(record.count())?;
            let cursor = Cursor { epoch: self.epoch, number };
            let bytes = rest.len() - after.len();
            records.push(Read { entry: Entry { cursor, record }, before, bytes });
            (before, rest) = (cursor, after);
        }
        (before == self.end()).then_some(records)
    }
}

/// Appends a record to bytes.
pub(super) fn encode(record: &Record<'_>, to: &mut Vec<u8>) {
    postcard::to_io(record, to).expect("records are plain data, and memory takes all");
}

/// Reads bytes as a block, after how many records it begins and how many more it says it has. What
/// makes sense says the same when it is written again; of what does not, all is told as missing.
#[cfg(fuzzing)]
pub(crate) fn read_any(bytes: &[u8]) {
    let [before, more, bytes @ ..] = bytes else { return };
    let first = u64::from(*before) + 1;
    let mut block = Block::begun(1, first, 0);
    (block.last, block.bytes) = (first + u64::from(*more), bytes.to_vec());
    assert_eq!(block.read().last().map(|read| read.entry.cursor), Some(block.end()));
    let Some(records) = block.decode() else { return };
    assert_eq!(records.iter().map(|read| read.bytes).sum::<usize>(), bytes.len());
    block.bytes.clear();
    for read in &records {
        encode(&read.entry.record, &mut block.bytes);
    }
    let again = block.decode().expect("just written");
    assert!(again.iter().map(|read| &read.entry).eq(records.iter().map(|read| &read.entry)));
}
