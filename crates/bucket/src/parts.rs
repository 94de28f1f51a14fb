//! Long versions: what is more than one entry has is written in several, one after the other.
//!
//! All but the last of them are written to a file that nobody made and that never gets a name, each as a patch of the
//! one before. The last is written to the file itself, as a patch of those. So nobody is ever shown a part: until the
//! last has come the file is what it was, and that is so for good if it never comes. What the parts name is needed
//! by whatever is made of them, and by nothing else (`bucket::marks`).

use std::collections::HashSet;
use std::ops::Range;

use gate_core::tree::id::{Address, FileId, OpId};
use gate_core::tree::op::{Content, Extent, Op, Span};

use crate::entry::CHUNKS_MAX;

/// The most extents of a part: each may be a chunk that its entry brings.
pub const PART_EXTENTS_MAX: usize = if cfg!(test) { 32 } else { CHUNKS_MAX };
/// An extent and the name of its chunk, as long as they may be.
const EXTENT_BYTES_MAX: usize = 82 + 32;
/// Zeros, as long as what tells of them may be.
const SPAN_BYTES_MAX: usize = 18;
/// The most bytes of a part: as many extents always fit, and some operations beside them.
const PART_BYTES_MAX: usize = PART_EXTENTS_MAX * EXTENT_BYTES_MAX;

/// What one entry has of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// As a patch of the part before, or of what the whole is a patch of.
    content: Content,
    is_first: bool,
    /// The chunks that its entry names; rising.
    pub chunks: Vec<Address>,
}

impl Part {
    /// Returns what is written, over the part before if there is one.
    pub fn content(self, before: Option<OpId>) -> Content {
        match (self.content, before) {
            (content, _) if self.is_first => content,
            (Content::Patch { zeros, extents, .. }, Some(of)) => {
                Content::Patch { of, zeros, extents }
            }
            _ => unreachable!("a part that is not the first is a patch of the one before"),
        }
    }
}

/// Returns the operation that writes a part which is not the last.
pub fn write(file: FileId, size: u64, content: Content) -> Op {
    let base = match &content {
        Content::Patch { of, .. } => vec![*of],
        Content::Inline(_) | Content::Extents(_) => Vec::new(),
    };
    Op::Write { file, size, content, base, fence: None }
}

/// Returns in how many parts something is written.
pub fn count(content: &Content) -> usize {
    let (zeros, extents) = lists(content);
    pieces(zeros.len(), extents.len()).count()
}

/// Returns how many parts a list of so many extents needs.
pub fn count_of(extents: usize) -> usize {
    extents.div_ceil(PART_EXTENTS_MAX).max(1)
}

/// Cuts what is written into parts, one at least; `chunks` are those that the version brings.
pub fn cut(content: Content, chunks: Vec<Address>) -> Vec<Part> {
    if count(&content) == 1 {
        return vec![Part { content, is_first: true, chunks }];
    }
    let mut new: HashSet<Address> = chunks.into_iter().collect();
    let (zeros, extents) = lists(&content);
    let mut parts: Vec<Part> = Vec::new();
    for (some_zeros, some_extents) in pieces(zeros.len(), extents.len()) {
        let (zeros, extents) = (zeros[some_zeros].to_vec(), extents[some_extents].to_vec());
        let addresses = extents.iter().map(|extent| extent.chunk.address);
        let mut chunks: Vec<_> = addresses.filter(|address| new.remove(address)).collect();
        chunks.sort_unstable();
        let is_first = parts.is_empty();
        let content = match &content {
            Content::Patch { of, .. } => Content::Patch { of: *of, zeros, extents },
            _ if is_first => Content::Extents(extents),
            _ => Content::Patch { of: NOBODY, zeros, extents },
        };
        parts.push(Part { content, is_first, chunks });
    }
    parts
}

/// In place of the part before, as long as that is in no entry.
const NOBODY: OpId = gate_core::tree::record::Rank::FIRST.op;

fn lists(content: &Content) -> (&[Span], &[Extent]) {
    match content {
        Content::Inline(_) => (&[], &[]),
        Content::Extents(extents) => (&[], extents),
        Content::Patch { zeros, extents, .. } => (zeros, extents),
    }
}

/// Returns which zeros and which extents are in each part: zeros come first, for what is put in lies over them.
fn pieces(zeros: usize, extents: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let (mut zeros, mut extents) = (0..zeros, 0..extents);
    let mut is_done = false;
    std::iter::from_fn(move || {
        if is_done {
            return None;
        }
        let some_zeros = zeros.len().min(PART_BYTES_MAX / SPAN_BYTES_MAX);
        let room = PART_BYTES_MAX - some_zeros * SPAN_BYTES_MAX;
        let some_extents = extents.len().min(room / EXTENT_BYTES_MAX);
        let piece =
            (zeros.start..zeros.start + some_zeros, extents.start..extents.start + some_extents);
        (zeros.start, extents.start) = (piece.0.end, piece.1.end);
        is_done = zeros.is_empty() && extents.is_empty();
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use gate_core::tree::content::Body;
    use gate_core::tree::id::{EntryId, FeedId};
    use gate_core::tree::op::{ChunkRef, FILE_BYTES_MAX};
    use proptest::prelude::*;

    use super::*;
    use crate::draft::DRAFT_BYTES_MAX;
    use crate::law;
    use crate::record;

    fn op(number: u64) -> OpId {
        OpId { entry: EntryId { feed: FeedId([7; 32]), number }, place: 0 }
    }

    /// Extents at these places, of chunks that are each met twice.
    fn extents(places: &[u64]) -> Vec<Extent> {
        let extent = |(n, at): (usize, &u64)| {
            let mut address = [0; 32];
            address[..8].copy_from_slice(&(n as u64 / 2).to_be_bytes());
            let chunk = ChunkRef {
                address: Address(address),
                key: [n as u8; 32],
                plain_len: 9,
                from: 0,
                len: 9,
            };
            Extent { offset: at * 10, chunk }
        };
        places.iter().enumerate().map(extent).collect()
    }

    #[test]
    fn parts_one_after_another_are_the_whole() {
        let places = |most| prop::collection::btree_set(0..900_u64, 0..most);
        law::hold(1, &(places(150), places(150), places(500), any::<bool>()), |input| {
            let (before, new, zeros, is_patch) = input;
            let list = |set: std::collections::BTreeSet<u64>| set.into_iter().collect::<Vec<_>>();
            let (before, new) = (extents(&list(before)), extents(&list(new)));
            let zeros = list(zeros).iter().map(|at| Span { offset: at * 10 + 3, len: 4 }).collect();
            let content = match is_patch {
                true => Content::Patch { of: op(0), zeros, extents: new.clone() },
                false => Content::Extents(new.clone()),
            };
            let former = Body::Extents(before);
            let mut chunks: Vec<_> = new.iter().map(|extent| extent.chunk.address).collect();
            chunks.dedup();
            let parts = cut(content.clone(), chunks.clone());
            prop_assert_eq!(parts.len(), count(&content));
            prop_assert!(is_patch || parts.len() == count_of(new.len()));
            let mut named: Vec<_> = parts.iter().flat_map(|part| part.chunks.clone()).collect();
            named.sort_unstable();
            prop_assert_eq!(named, chunks, "each is named once");
            let whole = Body::of(&content, 9_000, Some(&former));
            let mut body = former;
            for (number, part) in (0..).zip(parts) {
                let Part { chunks, .. } = part.clone();
                prop_assert!(chunks.is_sorted() && chunks.len() <= PART_EXTENTS_MAX);
                let content = part.content((number > 0).then_some(op(number)));
                if let (Content::Patch { of, .. }, true) = (&content, number > 0) {
                    prop_assert_eq!(*of, op(number));
                }
                let op = write(FileId::of_file([1; 16]), 9_000, content.clone());
                prop_assert_eq!(op.check(), Ok(()));
                body = Body::of(&content, 9_000, Some(&body));
            }
            prop_assert_eq!(body, whole);
            Ok(())
        });
    }

    /// An entry has room for each part, whatever is in it.
    #[test]
    fn the_longest_part_fits_into_an_entry() {
        let far = FILE_BYTES_MAX - 1;
        let chunk = ChunkRef {
            address: Address([255; 32]),
            key: [255; 32],
            plain_len: 256 * 1024,
            from: 256 * 1024,
            len: 256 * 1024,
        };
        let extent = record::encode(&Extent { offset: far, chunk }).len();
        assert!(extent + 32 <= EXTENT_BYTES_MAX, "{extent}");
        let span = record::encode(&Span { offset: far, len: far }).len();
        assert!(span <= SPAN_BYTES_MAX, "{span}");
        const { assert!(CHUNKS_MAX * EXTENT_BYTES_MAX + 16 * 1024 < DRAFT_BYTES_MAX) };
    }
}
