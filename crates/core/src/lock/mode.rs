//! Granular lock modes and their laws.

/// How a key is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// IS: something beneath is read.
    IntentShared = 0,
    /// IX: something beneath is written.
    IntentExclusive = 1,
    /// S: this itself is read.
    Shared = 2,
    /// X: this itself is written.
    Exclusive = 3,
}

use Mode::{Exclusive, IntentExclusive, IntentShared, Shared};

impl Mode {
    /// All modes, by index.
    pub const ALL: [Mode; 4] = [IntentShared, IntentExclusive, Shared, Exclusive];

    /// Returns whether two owners that are not kin may not hold one key in these modes.
    pub fn conflicts(self, other: Mode) -> bool {
        !matches!(
            (self, other),
            (IntentShared, IntentShared | IntentExclusive | Shared)
                | (IntentExclusive, IntentShared | IntentExclusive)
                | (Shared, IntentShared | Shared)
        )
    }

    /// Returns whether who holds `self` has all that `other` would give.
    pub fn covers(self, other: Mode) -> bool {
        self == other || self == Exclusive || other == IntentShared
    }

    /// Returns the weakest mode that covers both.
    pub fn join(self, other: Mode) -> Mode {
        if self.covers(other) {
            self
        } else if other.covers(self) {
            other
        } else {
            Exclusive
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_are_mutual() {
        for a in Mode::ALL {
            for b in Mode::ALL {
                assert_eq!(a.conflicts(b), b.conflicts(a), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn compatible_pairs_are_the_four_of_the_rules() {
        let pairs: Vec<_> = Mode::ALL
            .into_iter()
            .flat_map(|a| Mode::ALL.into_iter().map(move |b| (a, b)))
            .filter(|(a, b)| a <= b && !a.conflicts(*b))
            .collect();
        assert_eq!(
            pairs,
            [
                (IntentShared, IntentShared),
                (IntentShared, IntentExclusive),
                (IntentShared, Shared),
                (IntentExclusive, IntentExclusive),
                (Shared, Shared),
            ]
        );
    }

    #[test]
    fn a_mode_covers_what_excludes_no_more_than_it_does() {
        for a in Mode::ALL {
            for b in Mode::ALL {
                let join = a.join(b);
                assert!(join.covers(a) && join.covers(b));
                let excludes_all = Mode::ALL.iter().all(|m| !b.conflicts(*m) || a.conflicts(*m));
                assert_eq!(a.covers(b), excludes_all, "{a:?} {b:?}");
                let mut covers_both = Mode::ALL.into_iter().filter(|m| m.covers(a) && m.covers(b));
                assert!(covers_both.all(|m| m.covers(join)), "the weakest: {a:?} {b:?}");
            }
        }
    }
}
