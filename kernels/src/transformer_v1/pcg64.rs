//! Text to a stream of 64-bit integers (`docs/poc-v1.md`, section 2): SHA-256, then numpy's `SeedSequence`, then PCG64
//! (XSL-RR 128/64). All to the bit.

use sha2::{Digest, Sha256};

const POOL: usize = 4;
const INIT_A: u32 = 0x43b0_d7e5;
const MULT_A: u32 = 0x931e_8875;
const INIT_B: u32 = 0x8b51_f9dd;
const MULT_B: u32 = 0x58f3_8ded;
const MIX_L: u32 = 0xca01_f9dd;
const MIX_R: u32 = 0x4973_f715;
const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

/// The words a stream is seeded with: `hashes` digests of the text with `_0`, `_1`, … appended, as little-endian
/// integers.
pub fn entropy(text: &str, hashes: usize) -> Vec<u32> {
    (0..hashes)
        .flat_map(|index| {
            let digest = Sha256::digest(format!("{text}_{index}"));
            let (words, _) = digest.as_chunks::<4>();
            words.iter().map(|word| u32::from_le_bytes(*word)).collect::<Vec<_>>()
        })
        .collect()
}

/// numpy's `SeedSequence` with its default pool.
#[derive(Debug)]
struct SeedSequence([u32; POOL]);

impl SeedSequence {
    fn new(entropy: &[u32]) -> Self {
        let mut hash = Hash::new(INIT_A, MULT_A);
        let mut pool = [0; POOL];
        for (index, word) in pool.iter_mut().enumerate() {
            *word = hash.of(entropy.get(index).copied().unwrap_or(0));
        }
        for from in 0..POOL {
            for to in (0..POOL).filter(|&to| to != from) {
                pool[to] = mix(pool[to], hash.of(pool[from]));
            }
        }
        for &word in entropy.get(POOL..).unwrap_or_default() {
            for to in &mut pool {
                *to = mix(*to, hash.of(word));
            }
        }
        Self(pool)
    }

    /// Four 64-bit integers, each of two words with the lower half first.
    fn state(&self) -> [u64; 4] {
        let mut hash = Hash::new(INIT_B, MULT_B);
        let mut words = self.0.iter().cycle().map(|word| u64::from(hash.of(*word)));
        let mut next = || words.next().unwrap_or_default();
        std::array::from_fn(|_| next() | (next() << 32))
    }
}

/// A hash whose constant moves on with every word.
struct Hash {
    constant: u32,
    multiplier: u32,
}

impl Hash {
    fn new(constant: u32, multiplier: u32) -> Self {
        Self { constant, multiplier }
    }

    fn of(&mut self, word: u32) -> u32 {
        let word = word ^ self.constant;
        self.constant = self.constant.wrapping_mul(self.multiplier);
        let word = word.wrapping_mul(self.constant);
        word ^ (word >> 16)
    }
}

fn mix(x: u32, y: u32) -> u32 {
    let word = x.wrapping_mul(MIX_L).wrapping_sub(y.wrapping_mul(MIX_R));
    word ^ (word >> 16)
}

/// The generator behind everything random in v1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pcg64 {
    state: u128,
    increment: u128,
}

impl Pcg64 {
    /// The stream of a text: [`entropy`] of it, mixed, as state and increment.
    pub fn from_text(text: &str, hashes: usize) -> Self {
        let [state_high, state_low, stream_high, stream_low] = SeedSequence::new(&entropy(text, hashes)).state();
        let wide = |high: u64, low: u64| (u128::from(high) << 64) | u128::from(low);
        let mut generator = Self {
            state: 0,
            increment: (wide(stream_high, stream_low) << 1) | 1,
        };
        generator.step();
        generator.state = generator.state.wrapping_add(wide(state_high, state_low));
        generator.step();
        generator
    }

    /// The 128-bit state.
    pub fn state(&self) -> u128 {
        self.state
    }

    /// The 128-bit increment.
    pub fn increment(&self) -> u128 {
        self.increment
    }

    /// The next integer.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    /// The next double in [0, 1): 53 bits.
    #[inline]
    pub fn next_f64(&mut self) -> f64 {
        const TWO_TO_MINUS_53: f64 = 1.0 / 9_007_199_254_740_992.0;
        (self.next_u64() >> 11) as f64 * TWO_TO_MINUS_53
    }

    #[inline]
    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digest_is_eight_little_endian_words() {
        // SHA-256 of "abc_0" and "abc_1", computed elsewhere.
        let words = entropy("abc", 2);
        assert_eq!(words.len(), 16);
        let digest = Sha256::digest("abc_1");
        assert_eq!(words[8].to_le_bytes(), digest[..4]);
    }

    #[test]
    fn the_state_of_a_short_seed_is_numpys() {
        // numpy: SeedSequence([1, 2]).generate_state(4, uint64); fewer words than the pool are filled up with zeros.
        let expected = [
            0xd785_48c1_5f2d_64ab,
            0x8ce9_0a29_8a5e_aca9,
            0x5743_8557_31a4_b752,
            0x4c5b_2bcb_9204_ad93,
        ];
        assert_eq!(SeedSequence::new(&[1, 2]).state(), expected);
    }

    #[test]
    fn doubles_lie_below_one() {
        let mut generator = Pcg64::from_text("AB", 1);
        assert!(
            (0..10_000)
                .map(|_| generator.next_f64())
                .all(|x| (0.0..1.0).contains(&x))
        );
    }
}
