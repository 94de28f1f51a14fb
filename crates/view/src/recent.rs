//! A map that is bounded: what was not used lately is forgotten.

use std::hash::Hash;

use rustc_hash::FxHashMap;

/// Keeps at least what was used last, up to half of its bound, and never more than that bound.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    half: usize,
    young: FxHashMap<K, V>,
    /// What was not used since `young` was last full.
    old: FxHashMap<K, V>,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    pub fn of_at_most(entries_max: usize) -> Recent<K, V> {
        let half = (entries_max / 2).max(1);
        Recent { half, young: FxHashMap::default(), old: FxHashMap::default() }
    }

    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_there_are_never_more_than_the_bound() {
        let mut recent = Recent::of_at_most(8);
        recent.insert(0, "used");
        for number in 1..100 {
            recent.insert(number, "once");
            assert_eq!(recent.get(&0), Some(&mut "used"));
            assert_eq!(recent.get(&number), Some(&mut "once"));
            assert!(recent.young.len() + recent.old.len() <= 8);
        }
        assert_eq!(recent.get(&1), None);
    }

    #[test]
    fn the_newest_value_of_a_key_counts() {
        let mut recent = Recent::of_at_most(2);
        recent.insert(1, "old");
        recent.insert(2, "other");
        recent.insert(1, "new");
        assert_eq!(recent.get(&1), Some(&mut "new"));
    }
}
