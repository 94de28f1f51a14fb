//! What somebody had seen: how far each feed had come, to them.
//!
//! A feed is a line of entries without gaps, and whoever has one of them has all before it: a
//! count for each feed says everything. What is not named was not seen at all.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::id::{EntryId, FeedId};

/// How many entries of each feed were seen. No count is 0: equal sets are equal maps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen(BTreeMap<FeedId, u64>);

impl Seen {
    /// Returns what has seen nothing.
    pub const fn new() -> Seen {
        Seen(BTreeMap::new())
    }

    /// Returns how many entries of a feed were seen.
    pub fn count(&self, feed: &FeedId) -> u64 {
        self.0.get(feed).copied().unwrap_or(0)
    }

    /// Whether an entry is among them.
    pub fn covers(&self, entry: EntryId) -> bool {
        entry.number < self.count(&entry.feed)
    }

    /// Whether everything that another saw is among them.
    pub fn includes(&self, other: &Seen) -> bool {
        other.iter().all(|(feed, count)| count <= self.count(&feed))
    }

    /// Sees an entry, and so all before it in its feed.
    pub fn see(&mut self, entry: EntryId) {
        self.raise(entry.feed, entry.number.saturating_add(1));
    }

    /// Sees what another saw, too.
    pub fn join(&mut self, other: &Seen) {
        for (feed, count) in other.iter() {
            self.raise(feed, count);
        }
    }

    /// Returns each feed of which something was seen, and how much; in the order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (FeedId, u64)> {
        self.0.iter().map(|(feed, count)| (*feed, *count))
    }

    fn raise(&mut self, feed: FeedId, count: u64) {
        match self.0.entry(feed) {
            Entry::Occupied(mut known) => *known.get_mut() = count.max(*known.get()),
            Entry::Vacant(_) if count == 0 => {}
            Entry::Vacant(new) => drop(new.insert(count)),
        }
    }
}

impl FromIterator<(FeedId, u64)> for Seen {
    fn from_iter<I: IntoIterator<Item = (FeedId, u64)>>(counts: I) -> Seen {
        let mut seen = Seen::new();
        for (feed, count) in counts {
            seen.raise(feed, count);
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(feed: u8, number: u64) -> EntryId {
        EntryId { feed: FeedId([feed; 32]), number }
    }

    fn any() -> impl Strategy<Value = Seen> {
        let counts = proptest::collection::vec((0..4_u8, 0..4_u64), 0..6);
        counts.prop_map(|counts| counts.into_iter().map(|(f, n)| (FeedId([f; 32]), n)).collect())
    }

    #[test]
    fn who_has_an_entry_has_all_before_it_and_none_after() {
        let mut seen = Seen::new();
        assert!(!seen.covers(entry(1, 0)));
        seen.see(entry(1, 2));
        assert!(seen.covers(entry(1, 0)) && seen.covers(entry(1, 2)));
        assert!(!seen.covers(entry(1, 3)) && !seen.covers(entry(2, 0)));
        seen.see(entry(1, 0));
        assert_eq!(seen.count(&FeedId([1; 32])), 3, "nothing is unseen again");
    }

    #[test]
    fn feeds_of_which_nothing_was_seen_make_no_difference() {
        assert_eq!([(FeedId([1; 32]), 0)].into_iter().collect::<Seen>(), Seen::new());
    }

    proptest! {
        #[test]
        fn joining_is_the_least_that_includes_both(a in any(), b in any(), c in any()) {
            let joined = |a: &Seen, b: &Seen| { let mut all = a.clone(); all.join(b); all };
            let both = joined(&a, &b);
            prop_assert!(both.includes(&a) && both.includes(&b));
            prop_assert!(!(c.includes(&a) && c.includes(&b)) || c.includes(&both));
            prop_assert_eq!(&both, &joined(&b, &a));
            prop_assert_eq!(joined(&both, &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(a.includes(&b), joined(&a, &b) == a);
        }

        #[test]
        fn an_entry_is_covered_by_what_joins_two_if_one_covers_it(
            a in any(), b in any(), feed in 0..4_u8, number in 0..4_u64,
        ) {
            let it = entry(feed, number);
            let mut both = a.clone();
            both.join(&b);
            prop_assert_eq!(both.covers(it), a.covers(it) || b.covers(it));
        }
    }
}
