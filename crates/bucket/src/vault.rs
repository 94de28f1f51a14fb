//! The bytes of files: how they are taken in and read, by any thread and while the bucket is at other work.
//!
//! What was taken in is in no tree yet: an operation that names it puts it there. It outlasts a crash once
//! that operation was committed. Whatever the length of a file, only some chunks of it are in memory.
//! Not here: what files are called, and when keys change (`bucket`).

mod opened;

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use gate_core::tree::content::Body;
use gate_core::tree::id::Address;
use gate_core::tree::op::{ChunkRef, Content, Extent, INLINE_BYTES_MAX};

use crate::cut;
use crate::seal::{ChunkKeys, OpenError, Plain};
use crate::store::{Store, StoreError};

pub use opened::Cache;
use opened::Opened;

/// The most chunks of a file: a list of them is in memory while the file is open. A file of fewer bytes than that many
/// of the smallest chunks (4 GiB) always fits; what is zeros counts for nothing.
pub const EXTENTS_MAX: usize = if cfg!(test) { 128 } else { 262_144 };

/// Where less is kept nothing is opened before it is asked for: it would be gone by then.
const AHEAD_BYTES_MIN: usize = 4 * 1024 * 1024;

/// What takes in and reads the bytes of files. A clone costs next to nothing.
#[derive(Clone, Debug)]
pub struct Vault {
    store: Arc<Store>,
    /// The newest first: by it is sealed, by all is opened.
    epochs: Arc<[ChunkKeys]>,
    /// What was opened and may be read again, if that is kept.
    opened: Option<Arc<Opened>>,
}

/// Bytes that were taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub size: u64,
    pub content: Content,
    /// The chunks that an entry names which has this content; rising.
    pub chunks: Vec<Address>,
}

/// Why bytes were not taken in.
#[derive(Debug)]
pub enum TakeInError {
    /// Whoever was to give them failed.
    Read(io::Error),
    Store(StoreError),
    /// There are more than a file may have: put them into several.
    TooLarge,
}

/// Reads a file from its start to its end, and opens each chunk once.
#[derive(Debug)]
pub struct Reader {
    vault: Vault,
    body: Body,
    size: u64,
    at: u64,
    /// Where it begins in the file, and its bytes.
    newest: Option<(u64, Part)>,
}

/// The part of a chunk that a reference means.
#[derive(Clone)]
pub(crate) struct Part {
    chunk: Arc<Plain>,
    range: Range<usize>,
}

impl Vault {
    pub(crate) fn new(store: Arc<Store>, epochs: Arc<[ChunkKeys]>) -> Vault {
        Vault { store, epochs, opened: None }
    }

    /// Returns where the chunks are.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Waits until all that was taken in is stored.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }

    /// Keeps chunks that were opened last, for this one and its clones.
    pub fn with_cache(self, bounds: Cache) -> Vault {
        Vault { opened: Some(Arc::new(Opened::new(bounds))), ..self }
    }

    /// Keeps within other bounds from now on, if anything is kept.
    pub fn set_cache(&self, bounds: Cache) {
        if let Some(opened) = &self.opened {
            opened.set_bounds(bounds);
        }
    }

    /// Lets go of what is kept and too old by now; returns whether there was any.
    pub fn let_go_of_old(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.let_go_of_old(Instant::now()))
    }

    /// Takes in what is to be one chunk; `None` if it is zeros, which no extent names.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Option<ChunkRef>, StoreError> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        self.store.put(self.sealing(), bytes).map(Some)
    }

    /// Opens a chunk.
    pub(crate) fn open(&self, chunk: &ChunkRef) -> Result<Part, StoreError> {
        let end = chunk.from.checked_add(chunk.len).filter(|end| *end <= chunk.plain_len);
        let end = end.ok_or(StoreError::Refused(OpenError::Malformed("no part of a chunk")))?;
        let range = chunk.from as usize..end as usize;
        let whole = ChunkRef { from: 0, len: chunk.plain_len, ..*chunk };
        let open = || self.store.get(&*self.epochs, &whole).map(Arc::new);
        let chunk = match &self.opened {
            Some(opened) => opened.get_or_open(&whole, open)?,
            None => open()?,
        };
        Ok(Part { chunk, range })
    }

    /// Opens a chunk for who is about to ask for it, if it is kept until then.
    pub(crate) fn open_ahead(&self, chunk: &ChunkRef) {
        if self.opened.as_ref().is_some_and(|opened| opened.bytes_max() >= AHEAD_BYTES_MIN) {
            // Who asks for it is told why it cannot be opened.
            let _ = self.open(chunk);
        }
    }

    /// Takes in all that is read.
    pub fn take_in(&self, from: &mut dyn Read) -> Result<Stored, TakeInError> {
        let mut head = Vec::new();
        Read::take(&mut *from, INLINE_BYTES_MAX as u64 + 1).read_to_end(&mut head)?;
        if head.len() <= INLINE_BYTES_MAX {
            let (size, content) = (head.len() as u64, Content::Inline(head));
            return Ok(Stored { size, content, chunks: Vec::new() });
        }
        let mut extents = Vec::new();
        let size = cut::cut_stream(&mut head.chain(from), |offset, bytes| {
            if let Some(chunk) = self.put(bytes)? {
                if extents.len() == EXTENTS_MAX {
                    return Err(TakeInError::TooLarge);
                }
                extents.push(Extent { offset, chunk });
            }
            Ok(())
        })?;
        let mut chunks: Vec<_> = extents.iter().map(|extent| extent.chunk.address).collect();
        chunks.sort_unstable();
        chunks.dedup();
        Ok(Stored { size, content: Content::Extents(extents), chunks })
    }

    /// Reads a file from a place on; returns how many bytes there were, fewer than wanted at its end alone.
    pub fn read_at(
        &self,
        body: &Body,
        size: u64,
        at: u64,
        out: &mut [u8],
    ) -> Result<usize, StoreError> {
        self.read_by(&mut None, body, size, at, out)
    }

    /// Reads a file from its start to its end.
    pub fn reader(&self, body: Body, size: u64) -> Reader {
        Reader { vault: self.clone(), body, size, at: 0, newest: None }
    }

    /// As [`Vault::read_at`]; goes on with the chunk that was opened before, and leaves the newest there.
    fn read_by(
        &self,
        newest: &mut Option<(u64, Part)>,
        body: &Body,
        size: u64,
        at: u64,
        out: &mut [u8],
    ) -> Result<usize, StoreError> {
        let len = size.saturating_sub(at).min(out.len() as u64);
        let out = &mut out[..len as usize];
        out.fill(0);
        match body {
            Body::Inline(bytes) => copy(0, bytes, at, out),
            Body::Extents(extents) => {
                let first = extents.partition_point(|extent| end(extent) <= at);
                for extent in extents[first..].iter().take_while(|e| e.offset < at + len) {
                    if newest.as_ref().is_none_or(|(offset, _)| *offset != extent.offset) {
                        *newest = Some((extent.offset, self.open(&extent.chunk)?));
                    }
                    let (_, part) = newest.as_ref().expect("it was opened above");
                    copy(extent.offset, part.bytes(), at, out);
                }
            }
        }
        Ok(out.len())
    }

    fn sealing(&self) -> &ChunkKeys {
        self.epochs.first().expect("who makes a vault has the newest keys")
    }
}

impl Part {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.chunk[self.range.clone()]
    }
}

// What files hold shows nowhere.
impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of a chunk", self.range.len())
    }
}

impl Read for Reader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Reader { vault, body, size, at, newest } = self;
        let len = vault.read_by(newest, body, *size, *at, out).map_err(|error| match error {
            StoreError::Io(error) => error,
            error => io::Error::other(error),
        })?;
        self.at += len as u64;
        Ok(len)
    }
}

fn end(extent: &Extent) -> u64 {
    extent.offset + u64::from(extent.chunk.len)
}

/// Copies what two stretches of a file have in common: bytes that begin at `offset`, and a buffer from `at` on.
fn copy(offset: u64, bytes: &[u8], at: u64, out: &mut [u8]) {
    let from = offset.max(at);
    let to = (offset + bytes.len() as u64).min(at + out.len() as u64);
    if from < to {
        let len = (to - from) as usize;
        let (read, put) = ((from - offset) as usize, (from - at) as usize);
        out[put..put + len].copy_from_slice(&bytes[read..read + len]);
    }
}

impl From<io::Error> for TakeInError {
    fn from(error: io::Error) -> TakeInError {
        TakeInError::Read(error)
    }
}

impl From<StoreError> for TakeInError {
    fn from(error: StoreError) -> TakeInError {
        TakeInError::Store(error)
    }
}

impl fmt::Display for TakeInError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TakeInError::Read(error) => error.fmt(f),
            TakeInError::Store(error) => error.fmt(f),
            TakeInError::TooLarge => write!(f, "a file has at most {EXTENTS_MAX} chunks"),
        }
    }
}

impl std::error::Error for TakeInError {}

#[cfg(test)]
mod tests;
