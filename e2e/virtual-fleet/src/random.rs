//! Chance that follows from a seed alone: the same on every machine, and one stream per purpose, so that a draw for one
//! thing shifts no draw for another.

/// SplitMix64: small, and whole numbers only.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A stream of its own for each purpose.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mixed = purpose.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut random = Self { state: mixed };
        random.draw();
        random
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` up to and including `high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = high.saturating_sub(low).max(0).unsigned_abs() + 1;
        low + (self.draw() % span) as i64
    }

    /// One of so many.
    pub fn index(&mut self, count: usize) -> usize {
        (self.draw() % count.max(1) as u64) as usize
    }

    /// True in so many of a thousand cases.
    pub fn per_mille(&mut self, share: u64) -> bool {
        self.draw() % 1000 < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_draws_the_same_numbers_whoever_draws_beside_it() {
        let mut alone = Random::new(7, "lag");
        let mut other = Random::new(7, "story");
        let first: Vec<u64> = (0..5).map(|_| alone.draw()).collect();
        let mut again = Random::new(7, "lag");
        let second: Vec<u64> = (0..5)
            .map(|_| {
                other.draw();
                again.draw()
            })
            .collect();
        assert_eq!(first, second);
        assert_ne!(first[0], Random::new(8, "lag").draw());
    }

    #[test]
    fn both_ends_of_a_range_are_drawn() {
        let mut random = Random::new(1, "ends");
        let drawn: std::collections::BTreeSet<i64> = (0..200).map(|_| random.between(3, 5)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5]);
    }
}
