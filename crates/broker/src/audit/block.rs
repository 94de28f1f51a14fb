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
    pub records: Records,
}

/// Records as bytes, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    /// As they are told.
    pub told: Vec<u8>,
    /// As they are written down, if not all of them are as they are told.
    bare: Option<Vec<u8>>,
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
        Block { epoch, first, last: first - 1, at_ms, odd: false, records: Records::default() }
    }

    /// Makes a block that says of some numbers that their records are missing.
    pub fn missing(epoch: u64, first: u64, last: u64, at_ms: u64) -> Block {
        let mut block = Block::begun(epoch, first, at_ms);
        let what = Happening::Missing { count: last - block.last };
        block.records.push(&Record { at_ms, what }, None);
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
        let mut rest = &self.records.told[..];
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

impl Records {
    /// Returns records that were written down.
    pub fn read(written: Vec<u8>) -> Records {
        Records { told: written, bare: None }
    }

    /// Returns what is written down.
    pub fn written(&self) -> &[u8] {
        self.bare.as_deref().unwrap_or(&self.told)
    }

    /// Adds a record, and what is written down of it, if that is something else.
    pub fn push(&mut self, record: &Record<'_>, bare: Option<&Record<'_>>) {
        if bare.is_some() {
            self.part();
        }
        encode(record, &mut self.told);
        if let Some(written) = &mut self.bare {
            encode(bare.unwrap_or(record), written);
        }
    }

    pub fn append(&mut self, more: &Records) {
        if more.bare.is_some() {
            self.part();
        }
        self.told.extend_from_slice(&more.told);
        if let Some(written) = &mut self.bare {
            written.extend_from_slice(more.written());
        }
    }

    /// Returns how much memory they take.
    pub fn bytes(&self) -> usize {
        self.told.capacity() + self.bare.as_ref().map_or(0, Vec::capacity)
    }

    pub fn clear(&mut self) {
        self.told.clear();
        self.bare = None;
    }

    /// From here on what is written down is not all that is told.
    fn part(&mut self) {
        self.bare.get_or_insert_with(|| self.told.clone());
    }
}

/// Appends a record to bytes.
fn encode(record: &Record<'_>, to: &mut Vec<u8>) {
    postcard::to_io(record, to).expect("records are plain data, and memory takes all");
}

/// Reads bytes as a block, after how many records it begins and how many more it says it has. What
/// makes sense says the same when it is written again; of what does not, all is told as missing.
#[cfg(fuzzing)]
pub(crate) fn read_any(bytes: &[u8]) {
    let [before, more, bytes @ ..] = bytes else { return };
    let first = u64::from(*before) + 1;
    let mut block = Block::begun(1, first, 0);
    (block.last, block.records) = (first + u64::from(*more), Records::read(bytes.to_vec()));
    assert_eq!(block.read().last().map(|read| read.entry.cursor), Some(block.end()));
    let Some(records) = block.decode() else { return };
    assert_eq!(records.iter().map(|read| read.bytes).sum::<usize>(), bytes.len());
    block.records.clear();
    for read in &records {
        block.records.push(&read.entry.record, None);
    }
    let again = block.decode().expect("just written");
    assert!(again.iter().map(|read| &read.entry).eq(records.iter().map(|read| &read.entry)));
}
