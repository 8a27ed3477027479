//! Seed strings and their 32-bit seeds (`docs/poc-v2.md`, section 2).
//!
//! Input: block hash, public key, nonce, exactly as the round's request carried them. Output: integers.
//! The case of the block hash is part of it: a Sprint sends upper-case hex, a confirmation lower-case.

use sha2::{Digest, Sha256};

/// The first four bytes of SHA-256 of the string, read as a big-endian integer.
pub fn seed_from_string(text: &str) -> u32 {
    seeds_from_string(text)[0]
}

/// All 32 bytes of SHA-256 of the string as eight big-endian integers: the seeds of the stronger generator.
pub fn seeds_from_string(text: &str) -> [u32; 8] {
    let digest = Sha256::digest(text.as_bytes());
    let mut seeds = [0; 8];
    for (seed, bytes) in seeds.iter_mut().zip(digest.as_chunks::<4>().0) {
        *seed = u32::from_be_bytes(*bytes);
    }
    seeds
}

/// Seed string of the input embeddings of one nonce: no underscore between `nonce` and the number.
pub fn input(block_hash: &str, public_key: &str, nonce: i64) -> String {
    format!("{block_hash}_{public_key}_nonce{nonce}")
}

/// Seed string of the reflection after decoder layer `layer` (counted from 0); the same for every host and nonce.
pub fn layer(block_hash: &str, layer: usize) -> String {
    format!("{block_hash}_layer_{layer}_householder")
}

/// Seed string of the coordinate pick: here `nonce` and the number are separated by an underscore.
pub fn pick(block_hash: &str, public_key: &str, nonce: i64, k_dim: usize) -> String {
    format!("{block_hash}_{public_key}_nonce_{nonce}_pick_{k_dim}")
}

/// Seed string of reflection `index` (0 to `k_dim` - 2) of the final rotation.
pub fn rotation(block_hash: &str, public_key: &str, nonce: i64, k_dim: usize, index: usize) -> String {
    format!("{block_hash}_{public_key}_nonce_{nonce}_haar_hh_{k_dim}_{index}")
}

/// Seed string of the token ids fed to models that route by token (hash-routed mixture of experts).
pub fn input_ids(block_hash: &str, public_key: &str, nonce: i64) -> String {
    format!("{block_hash}_{public_key}_nonce{nonce}_input_ids")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_the_start_of_the_digest() {
        // SHA-256 of "abc" begins ba7816bf 8f01cfea.
        assert_eq!(seed_from_string("abc"), 0xba78_16bf);
        assert_eq!(seeds_from_string("abc")[1], 0x8f01_cfea);
    }

    #[test]
    fn the_case_of_the_block_hash_changes_every_seed() {
        let upper = input("AB", "02", 1);
        let lower = input("ab", "02", 1);
        assert_ne!(seed_from_string(&upper), seed_from_string(&lower));
    }
}
