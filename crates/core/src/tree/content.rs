//! What a version of a file holds, once all patches are put in.

use serde::{Deserialize, Serialize};

use super::op::{ChunkRef, Content, Extent, Span};

/// The bytes of a version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    Inline(Vec<u8>),
    /// Rising, without overlaps; what lies between is zeros.
    Extents(Vec<Extent>),
}

impl Default for Body {
    fn default() -> Body {
        Body::Inline(Vec::new())
    }
}

/// A version, with all patches put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    pub size: u64,
    pub body: Body,
    /// How many patches were put in.
    pub patches: u32,
}

impl Body {
    /// Returns what a version holds that is written as `content` with that size; `former` is the
    /// version that it patches, if it does and that is known.
    pub fn of(content: &Content, size: u64, former: Option<&Body>) -> Body {
        let former = match content {
            Content::Patch { .. } => former.cloned().unwrap_or_default(),
            Content::Inline(_) | Content::Extents(_) => Body::default(),
        };
        former.then(content.clone(), size)
    }

    /// Returns what a version holds that is written over this one.
    ///
    /// A patch costs what it changes, but for what has to move for it: many of them are put in one after another.
    pub fn then(self, content: Content, size: u64) -> Body {
        let (zeros, new) = match content {
            Content::Inline(bytes) => return Body::Inline(bytes),
            Content::Extents(extents) => return Body::Extents(extents),
            Content::Patch { zeros, extents, .. } => (zeros, extents),
        };
        let mut all = match self {
            Body::Extents(all) => all,
            Body::Inline(_) => Vec::new(),
        };
        cut_off(&mut all, size);
        let gone = joined(&zeros, &new);
        if let (Some(first), Some(last)) = (gone.first(), gone.last()) {
            let from = all.partition_point(|extent| end_of(extent) <= first.offset);
            let to = all.partition_point(|extent| extent.offset < last.offset + last.len);
            let touched = all[from..to].iter().flat_map(|extent| without(*extent, &gone));
            let mut now: Vec<_> = touched.chain(new).collect();
            // Two runs that rise: those are merged in one go.
            now.sort_by_key(|extent| extent.offset);
            all.splice(from..to, now);
        }
        Body::Extents(all)
    }

    /// Returns the chunks that it needs.
    pub fn chunks(&self) -> impl Iterator<Item = &ChunkRef> {
        let extents = match self {
            Body::Inline(_) => &[][..],
            Body::Extents(extents) => extents,
        };
        extents.iter().map(|extent| &extent.chunk)
    }
}

/// As it is written whole.
impl From<Body> for Content {
    fn from(body: Body) -> Content {
        match body {
            Body::Inline(bytes) => Content::Inline(bytes),
            Body::Extents(extents) => Content::Extents(extents),
        }
    }
}

fn end_of(extent: &Extent) -> u64 {
    extent.offset + u64::from(extent.chunk.len)
}

fn cut_off(all: &mut Vec<Extent>, size: u64) {
    all.truncate(all.partition_point(|extent| extent.offset < size));
    if let Some(last) = all.last_mut()
        && end_of(last) > size
    {
        *last = part(*last, last.offset, size);
    }
}

/// Returns what a patch covers: rising, without overlaps.
fn joined(zeros: &[Span], new: &[Extent]) -> Vec<Span> {
    let new = new.iter().map(|e| Span { offset: e.offset, len: e.chunk.len.into() });
    let mut spans: Vec<_> = zeros.iter().copied().chain(new).collect();
    spans.sort_by_key(|span| span.offset);
    spans.dedup_by(|next, last| {
        let end = last.offset + last.len;
        let is_joined = next.offset <= end;
        if is_joined {
            last.len = end.max(next.offset + next.len) - last.offset;
        }
        is_joined
    });
    spans
}

/// Returns what is left of an extent without some parts, which rise and do not overlap.
fn without(extent: Extent, gone: &[Span]) -> Vec<Extent> {
    let end = end_of(&extent);
    let mut rest = Vec::new();
    let mut at = extent.offset;
    let first = gone.partition_point(|span| span.offset + span.len <= at);
    for span in gone[first..].iter().take_while(|span| span.offset < end) {
        if span.offset > at {
            rest.push(part(extent, at, span.offset));
        }
        at = span.offset + span.len;
    }
    if at < end {
        rest.push(part(extent, at, end));
    }
    rest
}

/// Returns the part of an extent between two places in the file.
fn part(extent: Extent, from: u64, to: u64) -> Extent {
    let narrow = |bytes: u64| u32::try_from(bytes).expect("a part is no longer than its extent");
    let Extent { offset, chunk } = extent;
    let skipped = narrow(from - offset);
    Extent {
        offset: from,
        chunk: ChunkRef { from: chunk.from + skipped, len: narrow(to - from), ..chunk },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::id::{Address, EntryId, FeedId, OpId};

    const OF: OpId = OpId { entry: EntryId { feed: FeedId([0; 32]), number: 0 }, place: 0 };

    /// A chunk's bytes are its number, and where in it they lie.
    fn extent(offset: u64, chunk: u8, from: u32, len: u32) -> Extent {
        let (address, key) = (Address([chunk; 32]), [0; 32]);
        Extent { offset, chunk: ChunkRef { address, key, plain_len: 64, from, len } }
    }

    fn read(body: &Body, size: u64) -> Vec<(u8, u32)> {
        let mut bytes = vec![(0, 0); usize::try_from(size).unwrap()];
        let Body::Extents(extents) = body else { panic!("{body:?}") };
        let mut end = 0;
        for Extent { offset, chunk } in extents {
            assert!(chunk.len > 0 && *offset >= end, "{extents:?}");
            end = offset + u64::from(chunk.len);
            for i in 0..chunk.len {
                let at = usize::try_from(*offset).unwrap() + usize::try_from(i).unwrap();
                bytes[at] = (chunk.address.0[0], chunk.from + i);
            }
        }
        bytes
    }

    /// Spans that rise and do not overlap, below a size.
    fn spans(size: u64) -> impl Strategy<Value = Vec<Span>> {
        let cuts = proptest::collection::btree_set(0..=size, 0..8);
        cuts.prop_map(|cuts| {
            let cuts: Vec<u64> = cuts.into_iter().collect();
            let pairs = cuts.chunks_exact(2);
            pairs.map(|pair| Span { offset: pair[0], len: pair[1] - pair[0] }).collect()
        })
    }

    fn extents(size: u64, first: u8) -> impl Strategy<Value = Vec<Extent>> {
        let make = move |spans: Vec<Span>| {
            let numbered = (first..).zip(spans);
            numbered.map(|(n, s)| extent(s.offset, n, 3, u32::try_from(s.len).unwrap())).collect()
        };
        spans(size).prop_map(make)
    }

    proptest! {
        #[test]
        fn a_patch_is_what_writing_those_parts_would_be(
            (before, size, zeros, new) in (extents(40, 1), 0..60_u64).prop_flat_map(|(before, size)| {
                (Just(before), Just(size), spans(size), extents(size, 101))
            })
        ) {
            let mut expected = read(&Body::Extents(before.clone()), 60);
            expected[usize::try_from(size).unwrap()..].fill((0, 0));
            for Span { offset, len } in &zeros {
                let from = usize::try_from(*offset).unwrap();
                expected[from..from + usize::try_from(*len).unwrap()].fill((0, 0));
            }
            let over = read(&Body::Extents(new.clone()), 60);
            for (at, byte) in over.into_iter().enumerate().filter(|(_, (chunk, _))| *chunk != 0) {
                expected[at] = byte;
            }
            let patch = Content::Patch { of: OF, zeros, extents: new };
            let body = Body::of(&patch, size, Some(&Body::Extents(before)));
            prop_assert_eq!(read(&body, 60), expected);
        }
    }

    proptest! {
        /// A long list that comes in parts is the list.
        #[test]
        fn parts_of_a_list_are_the_list(
            (before, new) in (extents(40, 1), extents(60, 101)),
            cut in 0..8_usize,
        ) {
            let whole = Content::Patch { of: OF, zeros: Vec::new(), extents: new.clone() };
            let expected = Body::of(&whole, 60, Some(&Body::Extents(before.clone())));
            let (first, second) = new.split_at(cut.min(new.len()));
            let parts = [second, first].map(|part| {
                Content::Patch { of: OF, zeros: Vec::new(), extents: part.to_vec() }
            });
            let put_in = |body: Body, part| body.then(part, 60);
            prop_assert_eq!(parts.into_iter().fold(Body::Extents(before), put_in), expected);
        }
    }

    #[test]
    fn of_an_inline_version_nothing_is_taken_over() {
        let patch = Content::Patch { of: OF, zeros: Vec::new(), extents: vec![extent(1, 7, 0, 2)] };
        let body = Body::of(&patch, 5, Some(&Body::Inline(b"abc".to_vec())));
        assert_eq!(read(&body, 5), [(0, 0), (7, 0), (7, 1), (0, 0), (0, 0)]);
    }
}
