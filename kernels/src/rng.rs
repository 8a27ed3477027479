//! Random numbers of PoC v2 (`docs/poc-v2.md`, section 3): a hash of an index, uniforms, normals, token ids.
//!
//! Single precision throughout, in the order of operations of the reference; the elementary functions are those of
//! `elementary` and not the reference's, which is why normals agree with it to 2e-6 and not to the bit.

use crate::{elementary, vector};

/// Most elements one call may produce: indices are 32 bit and the upper half of them belongs to the second uniform.
pub const MAX_ELEMENTS: usize = 1 << 31;

const SMALLEST_UNIFORM: f32 = 1e-10;

/// One block of the 32-bit x86 murmur3 hash over a 4-byte key, without mixing in the length. For a fixed seed it is
/// a bijection of the 32-bit integers, so no two keys share a hash.
#[inline]
pub const fn hash32(key: u32, seed: u32) -> u32 {
    let mut block = key.wrapping_mul(0xcc9e_2d51);
    block = block.rotate_left(15).wrapping_mul(0x1b87_3593);
    let mut hash = (seed ^ block).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// The uniform number of an index: the hash rounded to single precision over 2^32. The closed interval [0, 1]: hashes
/// from 2^32 - 128 on round up to exactly 1.
#[inline]
pub fn uniform(seed: u32, index: u32) -> f32 {
    const TWO_TO_THE_32: f32 = 4_294_967_296.0;
    hash32(index, seed) as f32 / TWO_TO_THE_32
}

/// `count` standard normals by Box-Muller. The first half of the output holds the cosines, the second half the sines,
/// and the indices of the second uniform start at half the (rounded up) count: the values depend on `count`.
pub fn normal(seed: u32, count: usize) -> Vec<f32> {
    let mut out = vec![0.0; count];
    fill_normal(seed, &mut out);
    out
}

/// As [`normal`], into a buffer.
pub fn fill_normal(seed: u32, out: &mut [f32]) {
    let half = out.len().div_ceil(2);
    let (cosines, sines) = out.split_at_mut(half);
    // An odd count drops the last sine.
    let mut dropped = [0.0];
    let (pairs, last) = cosines.split_at_mut(sines.len());
    fill_pairs(seed, (0, half), pairs, sines);
    fill_pairs(seed, (half - last.len(), half), last, &mut dropped);
}

/// The pairs from index `first` on, of `half` altogether. One step of all pairs after the other, for vector units.
fn fill_pairs(seed: u32, (first, half): (usize, usize), cosines: &mut [f32], sines: &mut [f32]) {
    vector::widest(
        #[inline(always)]
        || {
            // `MAX_ELEMENTS` keeps indices far from wrapping; a check of it would keep the loop off the vector units.
            for (index, (cosine, sine)) in cosines.iter_mut().zip(&mut *sines).enumerate() {
                let index = (first as u32).wrapping_add(index as u32);
                *cosine = uniform(seed, index);
                *sine = uniform(seed, (half as u32).wrapping_add(index));
            }
            for uniform in &mut *cosines {
                *uniform = elementary::ln(uniform.max(SMALLEST_UNIFORM));
            }
            for (cosine, sine) in cosines.iter_mut().zip(sines) {
                let radius = (-2.0 * *cosine).sqrt();
                let (sin, cos) = elementary::sin_cos(std::f32::consts::TAU * *sine);
                *cosine = radius * cos;
                *sine = radius * sin;
            }
        },
    );
}

/// The stronger generator ("concat_murmur"): the output is cut into eight runs of equal length, each drawn from its
/// own 32 bits of the digest. Used for inputs only, and only when the round asks for it.
pub fn fill_concat_normal(seeds: [u32; 8], out: &mut [f32]) {
    let run = out.len().div_ceil(seeds.len()).max(1);
    for (part, seed) in out.chunks_mut(run).zip(seeds) {
        fill_normal(seed, part);
    }
}

/// Token ids for models that route by token: one per position, below `vocabulary` (which must not be 0).
pub fn token_ids(seed: u32, count: u32, vocabulary: u32) -> Vec<u32> {
    (0..count).map(|position| hash32(position, seed) % vocabulary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_counts_drop_the_last_sine() {
        let odd = normal(7, 5);
        let even = normal(7, 6);
        assert_eq!(odd, even[..5]);
    }

    #[test]
    fn uniform_reaches_one_where_the_hash_rounds_up() {
        let seed = 3;
        let key = (0..u32::MAX)
            .find(|&key| hash32(key, seed) >= u32::MAX - 127)
            .expect("a bijection reaches it");
        assert_eq!(uniform(seed, key).to_bits(), 1.0_f32.to_bits());
    }

    #[test]
    fn the_concatenated_generator_uses_every_seed_once() {
        let seeds = [1, 2, 3, 4, 5, 6, 7, 8];
        let mut out = vec![0.0; 19];
        fill_concat_normal(seeds, &mut out);
        let expected: Vec<f32> = (1..=7)
            .flat_map(|seed| normal(seed, if seed == 7 { 1 } else { 3 }))
            .collect();
        assert_eq!(out, expected);
    }
}
