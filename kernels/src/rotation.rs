//! Final rotation of the picked coordinates (`docs/poc-v2.md`, section 5.3): `k` - 1 reflections seeded per nonce.

use crate::{householder, rng, seed};

/// Rotates `picked` in place. Its length is the artifact's dimension, and part of the seed strings.
pub fn rotate(picked: &mut [f32], block_hash: &str, public_key: &str, nonce: i64) {
    let k_dim = picked.len();
    for index in 0..k_dim.saturating_sub(1) {
        let seed = seed::seed_from_string(&seed::rotation(block_hash, public_key, nonce, k_dim, index));
        reflect(picked, &rng::normal(seed, k_dim));
    }
}

fn reflect(picked: &mut [f32], raw: &[f32]) {
    let length = householder::norm(raw) + 1e-30;
    let dot: f32 = picked.iter().zip(raw).map(|(x, v)| x * (v / length)).sum();
    for (x, v) in picked.iter_mut().zip(raw) {
        *x -= 2.0 * dot * (v / length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_keeps_the_length_and_depends_on_the_nonce() {
        let original = rng::normal(5, 12);
        let mut first = original.clone();
        let mut second = original.clone();
        rotate(&mut first, "AB", "02", 1);
        rotate(&mut second, "AB", "02", 2);
        assert!((householder::norm(&first) - householder::norm(&original)).abs() < 1e-5);
        assert!(first.iter().zip(&second).any(|(a, b)| (a - b).abs() > 0.1));
    }
}
