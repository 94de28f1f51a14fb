//! Dice: numbers that look random and follow from a seed.

use std::hash::{BuildHasher, RandomState};

/// A row of numbers.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Makes the row that follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below `bound`, which is above zero.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound as u64).expect("below a usize")
    }

    /// Picks one of some.
    pub fn pick<'a, T>(&mut self, some: &'a [T]) -> &'a T {
        &some[self.below(some.len())]
    }

    /// Returns the next number: splitmix64.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Returns the seed of a test: that of `GATE_TEST_SEED`, or a new one; it is printed.
#[must_use]
pub fn seed() -> u64 {
    let told = std::env::var("GATE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = told.unwrap_or_else(|| RandomState::new().hash_one(std::process::id()));
    println!("GATE_TEST_SEED={seed}");
    seed
}
