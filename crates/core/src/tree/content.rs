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

impl Body {
    /// Returns what a version holds that is written as `content` with that size; `former` is the
    /// version that it patches, if it does and that is known.
    pub fn of(content: &Content, size: u64, former: Option<&Body>) -> Body {
        match content {
            Content::Inline(bytes) => Body::Inline(bytes.clone()),
            Content::Extents(extents) => Body::Extents(extents.clone()),
            Content::Patch { zeros, extents, .. } => {
                let mut all = match former {
                    Some(Body::Extents(all)) => all.clone(),
                    Some(Body::Inline(_)) | None => Vec::new(),
                };
                let beyond = Span { offset: size, len: u64::MAX - size };
                let new =
                    extents.iter().map(|e| Span { offset: e.offset, len: e.chunk.len.into() });
                let mut gone: Vec<Span> =
                    zeros.iter().copied().chain(new).chain([beyond]).collect();
                gone.sort_unstable_by_key(|span| span.offset);
                all = all.into_iter().flat_map(|extent| without(extent, &gone)).collect();
                all.extend(extents);
                all.sort_unstable_by_key(|extent| extent.offset);
                Body::Extents(all)
            }
        }
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

/// Returns what is left of an extent without some parts, which rise and may overlap.
fn without(extent: Extent, gone: &[Span]) -> Vec<Extent> {
    let end = extent.offset + u64::from(extent.chunk.len);
    let mut rest = Vec::new();
    let mut at = extent.offset;
    // Those that end before it begins are passed over by the first comparison.
    for span in gone {
        if span.offset >= end {
            break;
        }
        if span.offset > at {
            rest.push(part(extent, at, span.offset));
        }
        at = at.max(span.offset.saturating_add(span.len));
        if at >= end {
            return rest;
        }
    }
    rest.push(part(extent, at, end));
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

    #[test]
    fn of_an_inline_version_nothing_is_taken_over() {
        let patch = Content::Patch { of: OF, zeros: Vec::new(), extents: vec![extent(1, 7, 0, 2)] };
        let body = Body::of(&patch, 5, Some(&Body::Inline(b"abc".to_vec())));
        assert_eq!(read(&body, 5), [(0, 0), (7, 0), (7, 1), (0, 0), (0, 0)]);
    }
}
