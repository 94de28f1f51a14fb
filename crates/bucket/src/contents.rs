//! What is in a file now: a version, and what was written over it and is in no version yet.
//!
//! A layer of runs lies over the body of the version. To be committed it is frozen: it becomes a snapshot that
//! is made a version without any lock, while what is written goes to another layer over it. Then the new
//! version lies beneath ([`Contents::thaw`]), or both layers are one again ([`Contents::unfreeze`]).
//! Not here: locks, the log (`log`), and when something is committed. What is written is logged before.

mod layer;
mod stack;
#[cfg(test)]
mod tests;
mod version;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use gate_core::tree::content::Body;
use gate_core::tree::id::{Address, FileId};
use gate_core::tree::op::{ChunkRef, Extent, FILE_BYTES_MAX, Span};

use crate::cut::{self, CUT_BYTES_MAX, CUT_BYTES_MEAN};
use crate::log::Record;
use crate::store::StoreError;
use crate::vault::{EXTENTS_MAX, Vault};

use layer::{Layer, Run, Slice};
use stack::Stack;

pub use version::{Ground, PATCHES_MAX, Version};

/// So many bytes side by side are sealed before they are in a version.
pub const SEAL_BYTES_DUE: u64 = 1024 * 1024;

/// Chunks for which room is kept: around what changed, some more may come than were there before.
const EXTENTS_SPARE: usize = EXTENTS_MAX / 64;

/// What a run may add beside its bytes: the chunks at both its ends are in parts, and cut anew.
const RUN_CHUNKS_MAX: usize = 2 * (CUT_BYTES_MAX / (CUT_BYTES_MEAN * 3 / 4) + 1) + 2;

/// What is in a file. Nothing of it shows in `Debug`.
pub struct Contents {
    body: Arc<Body>,
    body_size: u64,
    frozen: Option<Arc<Layer>>,
    top: Layer,
    /// Where the newest write ended.
    newest: u64,
    /// Where bytes are that somebody seals just now, as long as nothing else is there.
    sealing: Option<Range<u64>>,
    /// So many chunks may be added before they must be counted again.
    room: usize,
}

/// What was in a file at some time, to be made a version of.
#[derive(Clone)]
pub struct Frozen {
    body: Arc<Body>,
    body_size: u64,
    layer: Arc<Layer>,
}

/// Bytes that lie side by side in a file, to be sealed ahead of a version. Nothing of them shows in `Debug`.
pub struct Stretch {
    start: u64,
    slices: Vec<Slice>,
    is_first: bool,
}

/// Bytes of stretches that were cut one after the other and are in no chunk: where they are cut is certain once more
/// have come. Nothing of them shows in `Debug`.
#[derive(Default)]
pub struct Tail(Vec<u8>);

/// Bytes that lie side by side in a file and where they are cut. Nothing of them shows in `Debug`.
pub struct Cut {
    offset: u64,
    bytes: Vec<u8>,
    lens: Vec<usize>,
}

/// What was sealed ahead of a version; what was zeros is a part without a chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    pub extents: Vec<Extent>,
    pub zeros: Vec<Span>,
}

/// A file would have more than [`FILE_BYTES_MAX`] bytes, or than [`EXTENTS_MAX`] chunks; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl Contents {
    /// Returns what a version holds.
    pub fn of(size: u64, body: impl Into<Arc<Body>>) -> Contents {
        let (body, top) = (body.into(), Layer::over(size));
        Contents { body, body_size: size, frozen: None, top, newest: 0, sealing: None, room: 0 }
    }

    /// Returns how many bytes there are.
    pub fn size(&self) -> u64 {
        self.top.size()
    }

    /// Whether there is something that is in no version.
    pub fn is_dirty(&self) -> bool {
        self.frozen.is_some() || !self.top.is_clear(self.size_beneath())
    }

    /// Returns about how many bytes it takes in memory, beside the version.
    pub fn bytes_held(&self) -> usize {
        self.top.bytes_held() + self.frozen.as_ref().map_or(0, |layer| layer.bytes_held())
    }

    /// Returns all chunks that it needs.
    pub fn chunks(&self) -> impl Iterator<Item = Address> {
        let layers = [Some(&self.top), self.frozen.as_deref()].into_iter().flatten();
        let chunks = self.body.chunks().chain(layers.flat_map(Layer::chunks));
        chunks.map(|chunk| chunk.address)
    }

    /// Writes bytes; before those that begin beyond the end are zeros.
    ///
    /// More than a version has room for, as long as chunks are on average, is refused.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), TooLarge> {
        check_end(at, bytes.len() as u64)?;
        // What is there may become two parts, and this one more.
        self.take_room(stack::chunks_of(bytes.len() as u64) + 3)?;
        self.changes(at..at + bytes.len() as u64);
        self.top.write(at, bytes);
        self.newest = at + bytes.len() as u64;
        Ok(())
    }

    /// Cuts off what is beyond a size, or puts zeros up to it.
    pub fn set_size(&mut self, size: u64) -> Result<(), TooLarge> {
        check_end(size, 0)?;
        self.changes(size..u64::MAX);
        self.top.set_size(size);
        Ok(())
    }

    /// Makes a part zeros, as far as it is within the size, which stays.
    pub fn zero(&mut self, at: u64, len: u64) {
        self.room = self.room.saturating_sub(3);
        self.changes(at..at.saturating_add(len));
        self.top.zero(at..at.saturating_add(len));
    }

    /// Puts what was sealed ahead to its place, as [`Contents::sealed`] did when it told of it.
    pub fn put(&mut self, ahead: &Ahead) -> Result<(), TooLarge> {
        for extent in &ahead.extents {
            check_end(extent.offset, extent.chunk.len.into())?;
        }
        for span in &ahead.zeros {
            check_end(span.offset, span.len)?;
        }
        self.sealing = None;
        // What lies around them may be in more parts than before.
        self.room = self.room.saturating_sub(4 + ahead.extents.len() + 3 * ahead.zeros.len());
        ahead.extents.iter().for_each(|extent| self.top.put(*extent));
        for span in &ahead.zeros {
            let end = span.offset + span.len;
            self.top.set_size(end.max(self.top.size()));
            self.top.zero(span.offset..end);
        }
        Ok(())
    }

    /// Reads from a place on; returns how many bytes there were, fewer than wanted at the end alone.
    pub fn read_at(&self, vault: &Vault, at: u64, out: &mut [u8]) -> Result<usize, StoreError> {
        self.with_stack(|stack| stack.read_at(vault, at, out))
    }

    /// Returns the chunks that a part of it is read from.
    pub fn chunks_in(&self, range: Range<u64>) -> impl Iterator<Item = ChunkRef> {
        let end = range.end.min(self.size());
        let mut at = range.start;
        let chunks = std::iter::from_fn(move || {
            (at < end).then(|| {
                let piece = self.with_stack(|stack| stack.chunk_at(at));
                at = piece.0;
                piece.1
            })
        });
        chunks.flatten()
    }

    /// Returns where data is, from a place on; as lseek(2), `None` if there is none.
    pub fn seek_data(&self, at: u64) -> Option<u64> {
        self.with_stack(|stack| stack.seek(at, false))
    }

    /// Returns where a hole is, from a place before the end on: there is one at the end.
    pub fn seek_hole(&self, at: u64) -> Option<u64> {
        if at >= self.size() {
            return None;
        }
        Some(self.with_stack(|stack| stack.seek(at, true)).unwrap_or(self.size()))
    }

    /// Returns how many bytes lie side by side around the newest write and are not sealed, …
    pub fn unsealed(&self) -> u64 {
        let stretch = self.top.stretch(self.newest);
        stretch.end - stretch.start
    }

    /// … and how many of them nobody seals just now. Once they are [`SEAL_BYTES_DUE`] they are to be, so that who
    /// writes a long file needs little memory.
    pub fn due(&self) -> u64 {
        let stretch = self.top.stretch(self.newest);
        stretch.end - self.taken_to(&stretch).unwrap_or(stretch.start)
    }

    /// Returns those, to be sealed while others may be written. They go on where the last ones ended, or are the first
    /// of others: only of those can something come back by [`Contents::sealed`], in the order in which they went.
    pub fn begin_to_seal(&mut self) -> Stretch {
        let stretch = self.top.stretch(self.newest);
        let before = self.taken_to(&stretch);
        let start = before.unwrap_or(stretch.start);
        let slices = self.top.slices_of(&(start..stretch.end));
        let first = self.sealing.take().filter(|_| before.is_some());
        self.sealing = Some(first.map_or(start, |range| range.start)..stretch.end);
        Stretch { start, slices, is_first: before.is_none() }
    }

    /// Puts what was sealed in place of the bytes that it was made of, unless something was done to those
    /// meanwhile; returns what was put there.
    ///
    /// It is stored once the store was synced.
    pub fn sealed(&mut self, ahead: Ahead) -> Ahead {
        let Some(Range { start, end }) = self.sealing.take() else { return Ahead::default() };
        let rest = start + ahead.len()..end;
        // Side by side they begin there: one by one each would move what lies behind it.
        self.top.clear(start..rest.start);
        self.put(&ahead).expect("it lies where bytes were");
        self.sealing = Some(rest);
        ahead
    }

    /// Whether some of the bytes around the newest write are being sealed.
    pub fn is_sealing(&self) -> bool {
        self.taken_to(&self.top.stretch(self.newest)).is_some()
    }

    /// What is being sealed does not come back.
    pub fn end_sealing(&mut self) {
        self.sealing = None;
    }

    /// Returns up to where a stretch is being sealed.
    fn taken_to(&self, stretch: &Range<u64>) -> Option<u64> {
        let taken = self.sealing.as_ref();
        let taken = taken.filter(|taken| stretch.start <= taken.start && taken.end <= stretch.end);
        taken.map(|taken| taken.end)
    }

    /// Notes that something is about to be done to a part.
    fn changes(&mut self, part: Range<u64>) {
        let is_hit = |range: &mut Range<u64>| range.start < part.end && part.start < range.end;
        self.sealing.take_if(is_hit);
    }

    /// What lies beneath is known from now on: until then only how many bytes it has was.
    pub(crate) fn lay_over(&mut self, body: impl Into<Arc<Body>>) {
        (self.body, self.room) = (body.into(), 0);
    }

    /// Returns how many bytes the version has that lies beneath.
    pub(crate) fn body_size(&self) -> u64 {
        self.body_size
    }

    /// Returns how many bytes what is frozen has, if something is.
    pub(crate) fn frozen_size(&self) -> Option<u64> {
        self.frozen.as_ref().map(|frozen| frozen.size())
    }

    /// Tells what was written over the version, or what is frozen over it, as a log does.
    pub(crate) fn tell(&self, file: FileId, records: &mut Vec<Record<'_>>) {
        if self.top.beneath() < self.size_beneath() {
            records.push(Record::Size { file, size: self.top.beneath() });
        }
        records.push(Record::Size { file, size: self.size() });
        for (at, run) in self.top.runs() {
            records.push(match run {
                Run::Bytes(bytes) => Record::Bytes { file, at, bytes: bytes.to_vec().into() },
                Run::Sealed(chunk) => {
                    Record::Sealed { file, extents: vec![Extent { offset: at, chunk: *chunk }] }
                }
                Run::Zeros(len) => Record::Zeros { file, span: Span { offset: at, len: *len } },
            });
        }
    }

    /// Returns a snapshot of what is in no version; what is written from now on is not in it.
    ///
    /// It stays the same until [`Contents::thaw`] or [`Contents::unfreeze`].
    pub fn freeze(&mut self) -> Option<Frozen> {
        self.is_dirty().then(|| self.freeze_all())
    }

    /// As [`Contents::freeze`], whether or not something is in no version.
    pub fn freeze_all(&mut self) -> Frozen {
        let layer = match &self.frozen {
            Some(frozen) => Arc::clone(frozen),
            None => {
                self.sealing = None;
                let top = Layer::over(self.top.size());
                let layer = Arc::new(std::mem::replace(&mut self.top, top));
                Arc::clone(self.frozen.insert(layer))
            }
        };
        Frozen { body: Arc::clone(&self.body), body_size: self.body_size, layer }
    }

    /// What was frozen is a version now, of which this is the body.
    pub fn thaw(&mut self, body: impl Into<Arc<Body>>, size: u64) {
        let frozen = self.frozen.take().expect("something was frozen");
        assert_eq!(frozen.size(), size, "the version is of what was frozen");
        (self.body, self.body_size) = (body.into(), size);
        self.room = 0;
    }

    /// What was frozen is no version: it and what was written since are as if it never had been.
    pub fn unfreeze(&mut self) {
        let Some(frozen) = self.frozen.take() else { return };
        let mut below = Arc::try_unwrap(frozen).unwrap_or_else(|shared| Layer::clone(&shared));
        below.take_over(std::mem::replace(&mut self.top, Layer::over(0)));
        self.top = below;
    }

    /// Notes that so many chunks may come; they are counted only where it is not sure that there is room.
    fn take_room(&mut self, chunks: usize) -> Result<(), TooLarge> {
        if self.room < chunks {
            let most = EXTENTS_MAX - EXTENTS_SPARE;
            self.room = most.saturating_sub(self.chunks_at_most());
            if self.room < chunks {
                let count = self.with_stack(|stack| stack.chunks_about());
                self.room = most.saturating_sub(count);
            }
        }
        self.room = self.room.checked_sub(chunks).ok_or(TooLarge)?;
        Ok(())
    }

    /// Returns more than [`Stack::chunks_about`] would, without a look at each chunk.
    fn chunks_at_most(&self) -> usize {
        let layers = [Some(&self.top), self.frozen.as_deref()].into_iter().flatten();
        let held = layers.map(|layer| layer.runs().count() * RUN_CHUNKS_MAX + chunks_in(layer));
        self.body.chunks().count() + held.sum::<usize>()
    }

    fn size_beneath(&self) -> u64 {
        self.frozen.as_ref().map_or(self.body_size, |frozen| frozen.size())
    }

    fn with_stack<T>(&self, ask: impl FnOnce(&Stack<'_>) -> T) -> T {
        let layers = [&self.top, self.frozen.as_deref().unwrap_or(&self.top)];
        let count = 1 + usize::from(self.frozen.is_some());
        ask(&Stack::new(&layers[..count], &self.body, self.body_size))
    }
}

impl Ahead {
    /// Returns how many bytes were sealed.
    fn len(&self) -> u64 {
        let sealed: u64 = self.extents.iter().map(|extent| u64::from(extent.chunk.len)).sum();
        sealed + self.zeros.iter().map(|zeros| zeros.len).sum::<u64>()
    }
}

impl Stretch {
    fn len(&self) -> usize {
        self.slices.iter().map(|slice| slice.len()).sum()
    }

    /// Whether nothing goes before it.
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// Cuts them, behind what is left of those before, as far as it is certain where.
    pub fn cut(self, tail: &mut Tail) -> Cut {
        let mut bytes = std::mem::take(&mut tail.0);
        let offset = self.start - bytes.len() as u64;
        bytes.reserve(self.len());
        self.slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        let lens: Vec<usize> = cut::cut_certain(&bytes).iter().map(|chunk| chunk.len()).collect();
        let end = lens.iter().sum();
        // The next may be as long.
        tail.0.reserve(bytes.len());
        tail.0.extend_from_slice(&bytes[end..]);
        bytes.truncate(end);
        Cut { offset, bytes, lens }
    }
}

impl Cut {
    /// Seals all of it. After an error some may be stored, and nothing can go on from there.
    pub fn seal(self, vault: &Vault) -> Result<Ahead, StoreError> {
        let Cut { mut offset, bytes, lens } = self;
        let mut rest = &bytes[..];
        let mut ahead = Ahead::default();
        for len in lens {
            let (chunk, behind) = rest.split_at(len);
            let len = len as u64;
            match vault.put(chunk)? {
                Some(chunk) => ahead.extents.push(Extent { offset, chunk }),
                None => ahead.zeros.push(Span { offset, len }),
            }
            (offset, rest) = (offset + len, behind);
        }
        Ok(ahead)
    }
}

impl Frozen {
    /// Returns how many bytes there are.
    pub fn size(&self) -> u64 {
        self.layer.size()
    }

    /// Reads from a place on, as [`Contents::read_at`] did when it was frozen.
    pub fn read_at(&self, vault: &Vault, at: u64, out: &mut [u8]) -> Result<usize, StoreError> {
        self.with_stack(|stack| stack.read_at(vault, at, out))
    }

    fn with_stack<T>(&self, ask: impl FnOnce(&Stack<'_>) -> T) -> T {
        ask(&Stack::new(&[&self.layer], &self.body, self.body_size))
    }
}

fn chunks_in(layer: &Layer) -> usize {
    stack::chunks_of(layer.bytes_held() as u64)
}

fn check_end(at: u64, len: u64) -> Result<(), TooLarge> {
    at.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).map(|_| ()).ok_or(TooLarge)
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "contents of {} bytes", self.size())
    }
}

impl fmt::Debug for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes to be sealed", self.len())
    }
}

impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} chunks to be sealed", self.lens.len())
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes to be cut", self.0.len())
    }
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frozen contents of {} bytes", self.size())
    }
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a file has at most {FILE_BYTES_MAX} bytes and {EXTENTS_MAX} chunks")
    }
}

impl std::error::Error for TooLarge {}
