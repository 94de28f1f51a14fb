//! Layers over the body of a version, seen from above: what a file holds at a place, and up to where.

use gate_core::tree::content::Body;
use gate_core::tree::op::{ChunkRef, Extent};

use super::layer::{At, Layer, Run, part};
use crate::cut::CUT_BYTES_MEAN;
use crate::store::StoreError;
use crate::vault::Vault;

/// Zeros that are shorter are cut with what is around them: else a file of many small holes had as many chunks.
pub(super) const HOLE_BYTES_MIN: u64 = 64 * 1024;

/// Layers, the uppermost first, over a body of so many bytes.
pub(super) struct Stack<'a> {
    layers: &'a [&'a Layer],
    body: &'a Body,
    body_size: u64,
}

/// What a file holds from a place on.
pub(super) struct Piece<'a> {
    /// Where it ends; not before the place.
    pub(super) end: u64,
    pub(super) what: What<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum What<'a> {
    Bytes(&'a [u8]),
    /// An extent as it was before others covered it: it may begin before the place, and end after the piece.
    Chunk(Extent),
    Zeros {
        /// Whether a layer made them.
        is_new: bool,
    },
}

impl<'a> Stack<'a> {
    pub(super) fn new(layers: &'a [&'a Layer], body: &'a Body, body_size: u64) -> Stack<'a> {
        Stack { layers, body, body_size }
    }

    pub(super) fn size(&self) -> u64 {
        self.layers.first().map_or(self.body_size, |layer| layer.size())
    }

    /// Returns what is at a place before the end.
    pub(super) fn piece(&self, at: u64) -> Piece<'a> {
        let mut end = self.size();
        for layer in self.layers {
            match layer.at(at) {
                At::Run(start, run) => {
                    end = end.min(start + run.len());
                    return Piece { end, what: of_run(start, run, at..end) };
                }
                At::Nothing(next) => end = next.map_or(end, |next| next.min(end)),
            }
            if at >= layer.beneath() {
                return Piece { end, what: What::Zeros { is_new: true } };
            }
            end = end.min(layer.beneath());
        }
        let zeros = |end| Piece { end, what: What::Zeros { is_new: false } };
        match self.body {
            Body::Inline(bytes) if at < bytes.len() as u64 => {
                end = end.min(bytes.len() as u64);
                Piece { end, what: What::Bytes(&bytes[at as usize..end as usize]) }
            }
            Body::Inline(_) => zeros(end),
            Body::Extents(extents) => {
                let next = extents.partition_point(|extent| end_of(extent) <= at);
                match extents.get(next) {
                    Some(extent) if extent.offset <= at => {
                        Piece { end: end.min(end_of(extent)), what: What::Chunk(*extent) }
                    }
                    next => zeros(next.map_or(end, |extent| end.min(extent.offset))),
                }
            }
        }
    }

    /// Fills a buffer from a place on; returns how many bytes there were, fewer than wanted at the end alone.
    pub(super) fn read_at(
        &self,
        vault: &Vault,
        at: u64,
        out: &mut [u8],
    ) -> Result<usize, StoreError> {
        let len = self.size().saturating_sub(at).min(out.len() as u64);
        let mut rest = &mut out[..len as usize];
        let end = at + len;
        let mut at = at;
        while at < end {
            let piece = self.piece(at);
            let (now, later) = rest.split_at_mut((piece.end.min(end) - at) as usize);
            match piece.what {
                What::Bytes(bytes) => now.copy_from_slice(&bytes[..now.len()]),
                What::Zeros { .. } => now.fill(0),
                What::Chunk(Extent { offset, chunk }) => {
                    let from = (at - offset) as usize;
                    now.copy_from_slice(&vault.open(&chunk)?.bytes()[from..][..now.len()]);
                }
            }
            (at, rest) = (piece.end, later);
        }
        Ok(len as usize)
    }

    /// Returns where what is at a place ends, and the chunk that this is of, if it is of one.
    pub(super) fn chunk_at(&self, at: u64) -> (u64, Option<ChunkRef>) {
        let piece = self.piece(at);
        let chunk = match piece.what {
            What::Chunk(extent) => Some(extent.chunk),
            What::Bytes(_) | What::Zeros { .. } => None,
        };
        (piece.end, chunk)
    }

    /// Returns how many chunks a version of it has, about and rather more: what is whole stays one, what was
    /// touched is cut anew.
    pub(super) fn chunks_about(&self) -> usize {
        let (mut whole, mut touched, mut stretches) = (0, 0, 0);
        let mut is_touched = false;
        let mut at = 0;
        while at < self.size() {
            let piece = self.piece(at);
            let len = piece.end - at;
            match piece.what {
                What::Chunk(extent) if u64::from(extent.chunk.len) == len => whole += 1,
                What::Zeros { .. } if len >= HOLE_BYTES_MIN => is_touched = false,
                What::Chunk(_) | What::Bytes(_) | What::Zeros { .. } => {
                    stretches += usize::from(!is_touched);
                    (touched, is_touched) = (touched + len, true);
                }
            }
            at = piece.end;
        }
        whole + stretches + chunks_of(touched)
    }

    /// Returns the first place from there on that is in a hole, or that is in none; the end is in one.
    pub(super) fn seek(&self, at: u64, is_hole: bool) -> Option<u64> {
        let mut at = at;
        while at < self.size() {
            let piece = self.piece(at);
            if matches!(piece.what, What::Zeros { .. }) == is_hole {
                return Some(at);
            }
            at = piece.end;
        }
        None
    }
}

/// Returns how many chunks so many bytes are, rather more than less.
pub(super) fn chunks_of(bytes: u64) -> usize {
    usize::try_from(bytes / (CUT_BYTES_MEAN as u64 * 3 / 4)).unwrap_or(usize::MAX)
}

fn of_run(start: u64, run: &Run, range: std::ops::Range<u64>) -> What<'_> {
    match run {
        Run::Bytes(bytes) => {
            What::Bytes(&bytes[(range.start - start) as usize..(range.end - start) as usize])
        }
        Run::Zeros(_) => What::Zeros { is_new: true },
        // What was sealed here was sealed whole: what is missing of it was written over since.
        Run::Sealed(chunk) => What::Chunk(match start.checked_sub(chunk.from.into()) {
            Some(offset) => {
                let whole =
                    gate_core::tree::op::ChunkRef { from: 0, len: chunk.plain_len, ..*chunk };
                Extent { offset, chunk: whole }
            }
            None => Extent { offset: start, chunk: *chunk },
        }),
    }
}

pub(super) fn end_of(extent: &Extent) -> u64 {
    extent.offset + u64::from(extent.chunk.len)
}

/// Returns the part of an extent between two places in the file.
pub(super) fn between(extent: &Extent, from: u64, to: u64) -> Extent {
    Extent { offset: from, chunk: part(extent.chunk, from - extent.offset..to - extent.offset) }
}
