//! How what was frozen becomes a version: what changed is cut anew, all else stays the chunks that it was.
//!
//! Stretches between long holes are cut each by itself, and only those in which something changed; of these no
//! more is read than it takes to meet an old cut again. A file that is overwritten in place again and again is
//! kept in blocks: those that were touched, and nothing around them, are sealed anew.
//!
//! A version is told as a patch of the one before. So that none is made of many, once there are some the next is a patch
//! of an older one on which they all lie; and all of it is told again once that is not much more.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use gate_core::tree::content::Body;
use gate_core::tree::id::{Address, OpId};
use gate_core::tree::op::{ChunkRef, Content, Extent, INLINE_BYTES_MAX, Span};

use super::Frozen;
use super::stack::{HOLE_BYTES_MIN, Stack, What, between, end_of};
use crate::cut::{self, BLOCK_BYTES, Edit, OVERWRITES_MAX, SINGLE_BYTES_MAX};
use crate::parts;
use crate::vault::{EXTENTS_MAX, TakeInError, Vault};

/// So many patches are put on one another, beside those that it takes to write a list of that length in parts.
pub const PATCHES_MAX: u32 = 32;

/// A version of a file that is in no entry yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub size: u64,
    pub content: Content,
    /// The chunks that the version before had not: those that an entry names; rising.
    pub chunks: Vec<Address>,
    /// What it holds.
    pub body: Arc<Body>,
    /// How many patches are put on one another now.
    pub patches: u32,
}

/// A version that may be patched: the operation that wrote it, and how many patches it is made of.
pub type Former = (OpId, u32);

/// An older version on which those lie that were written since.
#[derive(Clone, Debug)]
pub struct Ground {
    pub id: OpId,
    pub patches: u32,
    pub body: Arc<Body>,
}

/// Returns how many patches a list of so many extents is made of at least: one for each part but the first.
pub fn patches_of(extents: usize) -> u32 {
    u32::try_from(parts::count_of(extents) - 1).expect("there are fewer than extents")
}

impl Frozen {
    /// Makes a version; it is stored once the store was synced. Nothing is locked.
    ///
    /// `of` is the operation that wrote the version beneath, if that is known and among those in whose place this
    /// one comes, and how many patches it took: it may be patched then. `ground` is what may be patched instead
    /// once those are too many ([`Frozen::is_high`]).
    pub fn version(
        &self,
        vault: &Vault,
        of: Option<Former>,
        ground: Option<&Ground>,
    ) -> Result<Version, TakeInError> {
        self.with_stack(|stack| {
            let size = stack.size();
            if size <= INLINE_BYTES_MAX as u64 {
                let mut bytes = vec![0; size as usize];
                stack.read_at(vault, 0, &mut bytes)?;
                let body = Arc::new(Body::Inline(bytes.clone()));
                let content = Content::Inline(bytes);
                return Ok(Version { size, content, chunks: Vec::new(), body, patches: 0 });
            }
            let pieces = pieces(stack);
            let patches = of.map_or(0, |(_, patches)| patches);
            let extents = if self.is_in_blocks(&pieces, patches) {
                in_blocks(stack, &pieces, vault)?
            } else {
                cut_anew(stack, &pieces, vault)?
            };
            if extents.len() > EXTENTS_MAX {
                return Err(TakeInError::TooLarge);
            }
            Ok(self.as_version(extents, of, ground))
        })
    }

    /// Whether a version of so many patches beneath is to be patched no more; if so, returns of how many at most the
    /// one is that may be.
    pub fn is_high(&self, patches: u32) -> Option<u32> {
        let least = patches_of(self.old().len());
        (patches >= PATCHES_MAX + least).then_some(least)
    }

    fn old(&self) -> &[Extent] {
        match &*self.body {
            Body::Extents(old) => old,
            Body::Inline(_) => &[],
        }
    }

    /// Whether it was overwritten in place often enough, or is kept so already.
    fn is_in_blocks(&self, pieces: &[Placed<'_>], patches: u32) -> bool {
        let (Body::Extents(extents), true) = (&*self.body, self.body_size > SINGLE_BYTES_MAX)
        else {
            return false;
        };
        let beneath = self.layer.beneath();
        let is_block = |extent: &Extent| {
            extent.offset.is_multiple_of(BLOCK_BYTES)
                && u64::from(extent.chunk.len) == BLOCK_BYTES
                && end_of(extent) <= beneath
        };
        let is_over = |piece: &Placed<'_>| {
            matches!(piece.what, What::Bytes(_)) && piece.range.start < beneath
        };
        let overwrites = patches.saturating_sub(patches_of(extents.len()));
        extents.iter().any(is_block) || (overwrites >= OVERWRITES_MAX && pieces.iter().any(is_over))
    }

    fn as_version(
        &self,
        extents: Vec<Extent>,
        of: Option<Former>,
        ground: Option<&Ground>,
    ) -> Version {
        let (size, old) = (self.layer.size(), self.old());
        let known: HashSet<Address> = old.iter().map(|extent| extent.chunk.address).collect();
        let new = extents.iter().map(|extent| extent.chunk.address);
        let chunks: BTreeSet<Address> = new.filter(|address| !known.contains(address)).collect();
        let chunks = chunks.into_iter().collect();
        // What is told again and again is to be less than what is told once.
        let beneath = match (of.filter(|(_, patches)| self.is_high(*patches).is_none()), ground) {
            (Some((id, patches)), _) => Some((id, patches, &self.body, extents.len())),
            (None, Some(older)) => Some((older.id, older.patches, &older.body, extents.len() / 2)),
            (None, None) => None,
        };
        let content = beneath.and_then(|(of, patches, body, most)| {
            let Body::Extents(old) = &**body else { return None };
            let (zeros, changed) = difference(old, &extents, size);
            let is_less = zeros.len() + changed.len() < most;
            is_less.then_some((Content::Patch { of, zeros, extents: changed }, patches + 1, body))
        });
        let (content, beneath) = match content {
            Some((content, beneath, former)) => {
                debug_assert_eq!(
                    Body::of(&content, size, Some(former)),
                    Body::Extents(extents.clone())
                );
                (content, beneath)
            }
            None => (Content::Extents(extents.clone()), 0),
        };
        let more = u32::try_from(parts::count(&content) - 1).expect("there are fewer than extents");
        let body = Arc::new(Body::Extents(extents));
        Version { size, content, chunks, body, patches: beneath + more }
    }
}

/// A piece, and where it lies.
struct Placed<'a> {
    range: Range<u64>,
    what: What<'a>,
}

/// Returns all of a file, in pieces; neighbouring zeros are one.
fn pieces<'a>(stack: &Stack<'a>) -> Vec<Placed<'a>> {
    let mut pieces: Vec<Placed<'_>> = Vec::new();
    let mut at = 0;
    while at < stack.size() {
        let piece = stack.piece(at);
        match (pieces.last_mut(), piece.what) {
            (
                Some(Placed { range, what: What::Zeros { is_new: before } }),
                What::Zeros { is_new },
            ) => {
                range.end = piece.end;
                *before |= is_new;
            }
            (_, what) => pieces.push(Placed { range: at..piece.end, what }),
        }
        at = piece.end;
    }
    pieces
}

/// A stretch without long holes, as what [`cut::recut`] wants to know of it; places are counted from its start.
#[derive(Default)]
struct Stretch {
    start: u64,
    end: u64,
    /// The chunks that it had, each with its end; a short hole is one, too.
    old: Vec<Option<Extent>>,
    old_ends: Vec<u64>,
    edits: Vec<Edit>,
}

impl Stretch {
    fn add(&mut self, Placed { range, what }: &Placed<'_>) {
        match what {
            What::Chunk(extent) => {
                // What is missing of it at its ends was taken out, whatever is there now.
                self.edit(range.start, range.start - extent.offset, 0);
                self.had(Some(*extent), extent.chunk.len.into());
                self.edit(range.end, end_of(extent) - range.end, 0);
            }
            What::Zeros { is_new: false } => self.had(None, range.end - range.start),
            What::Bytes(_) | What::Zeros { is_new: true } => {
                self.edit(range.start, 0, range.end - range.start);
            }
        }
        self.end = range.end;
    }

    fn had(&mut self, extent: Option<Extent>, len: u64) {
        self.old.push(extent);
        self.old_ends.push(self.old_ends.last().copied().unwrap_or(0) + len);
    }

    fn edit(&mut self, at: u64, removed: u64, inserted: u64) {
        let at = at - self.start;
        match self.edits.last_mut() {
            _ if removed == 0 && inserted == 0 => {}
            Some(edit) if edit.at + edit.inserted == at => {
                edit.removed += removed;
                edit.inserted += inserted;
            }
            _ => self.edits.push(Edit { at, removed, inserted }),
        }
    }

    /// Cuts anew what changed, and adds what it consists of now.
    fn cut(
        &self,
        stack: &Stack<'_>,
        vault: &Vault,
        extents: &mut Vec<Extent>,
    ) -> Result<(), TakeInError> {
        if self.edits.is_empty() {
            extents.extend(self.old.iter().flatten());
            return Ok(());
        }
        let mut new = Vec::new();
        let read = |at: u64, out: &mut [u8]| {
            stack.read_at(vault, self.start + at, out)?;
            Ok::<_, TakeInError>(())
        };
        let put = |at: u64, bytes: &[u8]| {
            let chunk = vault.put(bytes)?;
            new.extend(chunk.map(|chunk| Extent { offset: self.start + at, chunk }));
            let is_too_much = extents.len() + new.len() > EXTENTS_MAX;
            if is_too_much { Err(TakeInError::TooLarge) } else { Ok(()) }
        };
        let pieces = cut::recut(&self.old_ends, &self.edits, read, put)?;
        extents.extend(new);
        for piece in pieces {
            if let cut::Piece::Kept { chunks, .. } = piece {
                extents.extend(self.old[chunks].iter().flatten());
            }
        }
        Ok(())
    }
}

fn cut_anew(
    stack: &Stack<'_>,
    pieces: &[Placed<'_>],
    vault: &Vault,
) -> Result<Vec<Extent>, TakeInError> {
    let mut extents = Vec::new();
    let is_hole = |piece: &Placed<'_>| {
        matches!(piece.what, What::Zeros { .. })
            && piece.range.end - piece.range.start >= HOLE_BYTES_MIN
    };
    for pieces in pieces.split(is_hole) {
        let Some(first) = pieces.first() else { continue };
        let start = first.range.start;
        let mut stretch = Stretch { start, ..Stretch::default() };
        pieces.iter().for_each(|piece| stretch.add(piece));
        stretch.cut(stack, vault, &mut extents)?;
    }
    extents.sort_unstable_by_key(|extent| extent.offset);
    Ok(extents)
}

fn in_blocks(
    stack: &Stack<'_>,
    pieces: &[Placed<'_>],
    vault: &Vault,
) -> Result<Vec<Extent>, TakeInError> {
    let is_new = |piece: &&Placed<'_>| matches!(piece.what, What::Bytes(_));
    let mut touched: Vec<Range<u64>> = Vec::new();
    for piece in pieces.iter().filter(is_new) {
        let blocks = cut::blocks(piece.range.clone(), stack.size());
        let behind = touched.last().map_or(0, |block| block.end);
        touched.extend(blocks.skip_while(|block| block.start < behind));
    }
    let mut extents = Vec::new();
    for Placed { range, what } in pieces {
        if let What::Chunk(extent) = what {
            let parts = outside(range.clone(), &touched);
            extents.extend(parts.map(|part| between(extent, part.start, part.end)));
        }
    }
    let mut bytes = Vec::new();
    for block in touched {
        bytes.resize((block.end - block.start) as usize, 0);
        stack.read_at(vault, block.start, &mut bytes)?;
        let chunk = vault.put(&bytes)?;
        extents.extend(chunk.map(|chunk| Extent { offset: block.start, chunk }));
        if extents.len() > EXTENTS_MAX {
            return Err(TakeInError::TooLarge);
        }
    }
    extents.sort_unstable_by_key(|extent| extent.offset);
    Ok(extents)
}

/// Returns what a patch says that makes the new extents of the old ones: which parts are zeros, and what is new.
fn difference(old: &[Extent], new: &[Extent], size: u64) -> (Vec<Span>, Vec<Extent>) {
    let covers: Vec<_> = new.iter().map(|extent| extent.offset..end_of(extent)).collect();
    let mut zeros: Vec<Span> = Vec::new();
    for extent in old.iter().take_while(|extent| extent.offset < size) {
        for part in outside(extent.offset..end_of(extent).min(size), &covers) {
            let len = part.end - part.start;
            match zeros.last_mut() {
                Some(last) if last.offset + last.len == part.start => last.len += len,
                _ => zeros.push(Span { offset: part.start, len }),
            }
        }
    }
    let is_new = |extent: &&Extent| {
        let place = old.partition_point(|old| end_of(old) <= extent.offset);
        !old.get(place).is_some_and(|old| is_part_of(extent, old))
    };
    (zeros, new.iter().filter(is_new).copied().collect())
}

fn is_part_of(extent: &Extent, old: &Extent) -> bool {
    let whole = |chunk: &ChunkRef| ChunkRef { from: 0, len: 0, ..*chunk };
    extent.offset >= old.offset
        && end_of(extent) <= end_of(old)
        && whole(&extent.chunk) == whole(&old.chunk)
        && extent.chunk.from.checked_sub(old.chunk.from).map(u64::from)
            == Some(extent.offset - old.offset)
}

/// Returns the parts of a range that rising ranges leave.
fn outside(range: Range<u64>, covers: &[Range<u64>]) -> impl Iterator<Item = Range<u64>> {
    let first = covers.partition_point(|cover| cover.end <= range.start);
    let end = range.end;
    let inside = covers[first..].iter().cloned().take_while(move |cover| cover.start < end);
    let mut at = range.start;
    let bounds = inside.chain(std::iter::once(end..end));
    bounds.filter_map(move |cover| {
        let part = at..cover.start;
        at = at.max(cover.end);
        (part.start < part.end).then_some(part)
    })
}
