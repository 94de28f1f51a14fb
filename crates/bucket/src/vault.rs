//! The bytes of files: how they are taken in and read, by any thread and while the bucket is at other work.
//!
//! What was taken in is in no tree yet: an operation that names it puts it there. It outlasts a crash once
//! that operation was committed. Whatever the length of a file, only some chunks of it are in memory.
//! Not here: what files are called, and when keys change (`bucket`).

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use gate_core::tree::content::Body;
use gate_core::tree::id::Address;
use gate_core::tree::op::{Content, Extent, INLINE_BYTES_MAX};

use crate::cut;
use crate::entry::CHUNKS_MAX;
use crate::seal::ChunkKeys;
use crate::store::{Store, StoreError};

/// The most chunks of a file: what one entry names. A file of fewer bytes than that many of the smallest
/// chunks (128 MiB) always fits; what is zeros counts for nothing.
pub const EXTENTS_MAX: usize = if cfg!(test) { 64 } else { CHUNKS_MAX };

/// What takes in and reads the bytes of files. A clone costs next to nothing.
#[derive(Clone, Debug)]
pub struct Vault {
    store: Arc<Store>,
    /// The newest first: by it is sealed, by all is opened.
    epochs: Arc<[ChunkKeys]>,
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
    newest: Option<Opened>,
}

/// A chunk, or the part of it that a file has.
#[derive(Debug)]
struct Opened {
    /// Where it begins in the file.
    offset: u64,
    bytes: Vec<u8>,
}

impl Vault {
    pub(crate) fn new(store: Arc<Store>, epochs: Arc<[ChunkKeys]>) -> Vault {
        Vault { store, epochs }
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
            // What no extent names is zeros.
            if bytes.iter().all(|byte| *byte == 0) {
                return Ok(());
            }
            if extents.len() == EXTENTS_MAX {
                return Err(TakeInError::TooLarge);
            }
            let chunk = self.store.put(self.sealing(), bytes)?;
            extents.push(Extent { offset, chunk });
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
        newest: &mut Option<Opened>,
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
                    let is_open = newest.as_ref().is_some_and(|open| open.offset == extent.offset);
                    if !is_open {
                        let bytes = self.store.get(&*self.epochs, &extent.chunk)?;
                        *newest = Some(Opened { offset: extent.offset, bytes });
                    }
                    let open = newest.as_ref().expect("it was opened above");
                    copy(open.offset, &open.bytes, at, out);
                }
            }
        }
        Ok(out.len())
    }

    fn sealing(&self) -> &ChunkKeys {
        self.epochs.first().expect("who makes a vault has the newest keys")
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
