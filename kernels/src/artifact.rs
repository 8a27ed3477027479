//! From a last hidden state to an artifact and its text form (`docs/poc-v2.md`, section 5).
//!
//! An artifact's bytes are `k_dim` half-precision numbers, little-endian; on the wire they travel as padded base64.

use crate::{householder, pick, rotation, seed};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use half::f16;
use thiserror::Error;

/// Longest base64 text that is decoded: far above any artifact (32 characters), far below a nuisance.
pub const MAX_BASE64: usize = 65_536;

/// Why a received vector could not be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The text is longer than [`MAX_BASE64`].
    #[error("vector of {0} base64 characters is too long: send at most {MAX_BASE64}")]
    TooLong(usize),
    /// Not standard, padded base64.
    #[error("vector is not base64: send the standard alphabet with padding")]
    NotBase64(#[source] base64::DecodeError),
}

/// The result of one hidden state, each step kept for comparison with the reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// Which dimensions were picked, in the network's order; `k_dim` of them.
    pub indices: Vec<usize>,
    /// The picked coordinates of the normalised hidden state.
    pub picked: Vec<f32>,
    /// After rotation and a second normalisation: a unit vector.
    pub rotated: Vec<f32>,
}

impl Projection {
    /// The artifact: `k_dim` half-precision numbers, little-endian.
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.rotated)
    }
}

/// Turns the final-norm output of a sequence's last token into the artifact of a nonce: normalise, pick, rotate,
/// normalise. A hidden state with an element that is not finite has no artifact.
pub fn project(
    last_hidden: &[f32],
    block_hash: &str,
    public_key: &str,
    nonce: i64,
    k_dim: usize,
) -> Option<Projection> {
    if !last_hidden.iter().all(|x| x.is_finite()) {
        return None;
    }
    let pick_seed = seed::seed_from_string(&seed::pick(block_hash, public_key, nonce, k_dim));
    let indices = pick::pick(pick_seed, last_hidden.len(), k_dim);
    let length = householder::norm(last_hidden) + 1e-8;
    let picked: Vec<f32> = indices.iter().map(|&index| last_hidden[index] / length).collect();
    let rotated = rotate_unit(&picked, block_hash, public_key, nonce);
    Some(Projection {
        indices,
        picked,
        rotated,
    })
}

/// The last two steps of [`project`]: rotation of the picked coordinates, then normalisation to length one.
pub fn rotate_unit(picked: &[f32], block_hash: &str, public_key: &str, nonce: i64) -> Vec<f32> {
    let mut rotated = picked.to_vec();
    rotation::rotate(&mut rotated, block_hash, public_key, nonce);
    let length = householder::norm(&rotated) + 1e-8;
    for x in &mut rotated {
        *x /= length;
    }
    rotated
}

/// Half precision (round to nearest, ties to even), little-endian.
pub fn encode(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|&value| f16::from_f32(value).to_le_bytes())
        .collect()
}

/// The numbers of an artifact; a trailing odd byte makes it unreadable.
pub fn decode(bytes: &[u8]) -> Option<Vec<f32>> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|pair| f16::from_le_bytes(*pair).to_f32()).collect())
}

/// Standard padded base64.
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads standard padded base64.
pub fn from_base64(text: &str) -> Result<Vec<u8>, Error> {
    if text.len() > MAX_BASE64 {
        return Err(Error::TooLong(text.len()));
    }
    STANDARD.decode(text).map_err(Error::NotBase64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_to_even_and_travel_little_endian() {
        assert_eq!(encode(&[1.0, -1.0, 0.5]), [0x00, 0x3c, 0x00, 0xbc, 0x00, 0x38]);
        assert_eq!(encode(&[1e-8]), [0, 0]);
        assert_eq!(decode(&[0x00, 0x3c]), Some(vec![1.0]));
        assert_eq!(decode(&[0x00]), None);
    }

    #[test]
    fn base64_is_strict_and_bounded() {
        assert_eq!(from_base64(&to_base64(b"gonka")), Ok(b"gonka".to_vec()));
        assert!(matches!(from_base64("AAA"), Err(Error::NotBase64(_))));
        assert!(matches!(from_base64("AA-_"), Err(Error::NotBase64(_))));
        assert_eq!(
            from_base64(&"A".repeat(MAX_BASE64 + 4)),
            Err(Error::TooLong(MAX_BASE64 + 4))
        );
    }

    #[test]
    fn a_hidden_state_that_is_not_finite_has_no_artifact() {
        let mut hidden = vec![1.0; 64];
        assert!(project(&hidden, "AB", "02", 1, 12).is_some());
        hidden[0] = f32::NAN;
        assert_eq!(project(&hidden, "AB", "02", 1, 12), None);
        hidden[0] = f32::INFINITY;
        assert_eq!(project(&hidden, "AB", "02", 1, 12), None);
    }
}
