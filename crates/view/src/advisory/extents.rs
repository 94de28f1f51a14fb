//! Which bytes of a file somebody has locked, and how: what the source's kernel knows too, but does
//! not tell.

use crate::directory::{Bytes, Kind};

/// Locked bytes; no two extents meet.
#[derive(Debug, Default)]
pub(super) struct Extents(Vec<(Bytes, Kind)>);

impl Extents {
    /// Locks bytes, or unlocks them, whatever they were before.
    pub fn set(&mut self, bytes: Bytes, kind: Option<Kind>) {
        let mut all = bytes;
        let mut others = Vec::with_capacity(self.0.len() + 1);
        for (extent, had) in self.0.drain(..) {
            match extent.joined(bytes).filter(|_| Some(had) == kind) {
                Some(joined) => all = all.joined(joined).unwrap_or(all),
                None => others.extend(extent.without(bytes).map(|rest| (rest, had))),
            }
        }
        others.extend(kind.map(|kind| (all, kind)));
        self.0 = others;
    }

    /// Whether any of these bytes cannot be locked by somebody else.
    pub fn conflict(&self, bytes: Bytes, kind: Kind) -> bool {
        let exclusive = |had: Kind| Kind::Exclusive == had || Kind::Exclusive == kind;
        self.0.iter().any(|(extent, had)| extent.meets(bytes) && exclusive(*had))
    }

    pub fn iter(&self) -> impl Iterator<Item = (Bytes, Kind)> {
        self.0.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH: u64 = 12;

    fn bytes(first: u64, last: u64) -> Bytes {
        Bytes::new(first, last).unwrap()
    }

    /// One kind a byte.
    fn laid_out(extents: &Extents) -> [Option<Kind>; LENGTH as usize] {
        std::array::from_fn(|at| {
            let at = bytes(at as u64, at as u64);
            let mut here = extents.iter().filter(|(extent, _)| extent.meets(at));
            let found = here.next();
            assert_eq!(here.next(), None, "two extents meet: {extents:?}");
            found.map(|(_, kind)| kind)
        })
    }

    fn kind() -> impl Strategy<Value = Option<Kind>> {
        prop_oneof![Just(None), Just(Some(Kind::Shared)), Just(Some(Kind::Exclusive))]
    }

    proptest! {
        #[test]
        fn each_byte_is_locked_as_it_was_told_last(
            calls in prop::collection::vec((0..LENGTH, 0..LENGTH, kind()), 0..12)
        ) {
            let mut extents = Extents::default();
            let mut expected = [None; LENGTH as usize];
            for (one, other, kind) in calls {
                let (first, last) = (one.min(other), one.max(other));
                extents.set(bytes(first, last), kind);
                expected[first as usize..=last as usize].fill(kind);
                prop_assert_eq!(laid_out(&extents), expected);
            }
            let changes = expected.windows(2).filter(|pair| pair[0] != pair[1]).count();
            prop_assert!(extents.len() <= changes + 1, "{:?}", extents);
        }
    }

    #[test]
    fn the_end_of_the_longest_file_is_a_byte_as_others() {
        let end = i64::MAX as u64;
        let mut extents = Extents::default();
        extents.set(bytes(0, end), Some(Kind::Shared));
        extents.set(bytes(end, end), Some(Kind::Exclusive));
        assert!(extents.conflict(bytes(end, end), Kind::Shared));
        assert!(!extents.conflict(bytes(0, end - 1), Kind::Shared));
        extents.set(bytes(1, end), None);
        assert!(!extents.conflict(bytes(1, end), Kind::Exclusive));
        assert!(extents.conflict(bytes(0, 0), Kind::Exclusive));
    }

    #[test]
    fn what_is_shared_conflicts_with_what_is_not() {
        let mut extents = Extents::default();
        extents.set(bytes(2, 4), Some(Kind::Shared));
        for (first, last, kind, expected) in [
            (0, 1, Kind::Exclusive, false),
            (0, 2, Kind::Exclusive, true),
            (4, 9, Kind::Exclusive, true),
            (5, 9, Kind::Exclusive, false),
            (2, 4, Kind::Shared, false),
        ] {
            assert_eq!(extents.conflict(bytes(first, last), kind), expected, "{first}-{last}");
        }
    }
}
