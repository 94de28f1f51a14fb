//! All the chance there is in a life: numbers that follow from its seed.

use std::ops::Range;
use std::time::Duration;

/// SplitMix64: small, and good enough to choose by.
pub struct Chance(u64);

impl Chance {
    pub fn of_seed(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a usize")
    }

    pub fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }

    /// Returns a number of milliseconds in a range, and some microseconds, so that few things
    /// happen at once.
    pub fn millis(&mut self, range: Range<usize>) -> Duration {
        let ms = range.start + self.below(range.end - range.start);
        Duration::from_micros((ms * 1_000 + self.below(1_000)) as u64)
    }
}
