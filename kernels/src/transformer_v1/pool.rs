//! Weights without files (`docs/poc-v1.md`, section 3.2): one pool of half-precision normals seeded by the block hash, and the
//! place in it of every tensor.

use super::{normals, params::TensorSpec};
use half::{f16, slice::HalfFloatSliceExt as _};
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Values made at a time.
const CHUNK: usize = 1 << 16;
const DEVIATION: f64 = 0.02;

/// Where a tensor's elements lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// A slice of the pool.
    Slice {
        /// Its first value.
        start: usize,
    },
    /// The pool repeated to the tensor's size, rotated to the left.
    TileThenRotate {
        /// By so many elements.
        shift: usize,
    },
}

impl Placement {
    /// The place of a tensor in a pool of `pool_len` values.
    pub fn of(block_hash: &str, tensor: &TensorSpec, pool_len: usize) -> Self {
        let hash = name_hash(block_hash, &tensor.name) as usize;
        let len = tensor.len() as usize;
        if len <= pool_len {
            Self::Slice {
                start: hash % (pool_len - len + 1),
            }
        } else {
            Self::TileThenRotate { shift: hash % len }
        }
    }
}

/// The integer that places a tensor: the first four bytes of SHA-256, big-endian.
pub fn name_hash(block_hash: &str, tensor_name: &str) -> u32 {
    crate::seed::seed_from_string(&format!("{block_hash}_{tensor_name}"))
}

/// Writes normals of the given deviation as the reference converts them: to single, then to half precision.
pub fn fill_halves(normals: impl Iterator<Item = f64>, deviation: f64, out: &mut [f16]) {
    let mut single = [0.0_f32; 256];
    let mut normals = normals;
    for part in out.chunks_mut(single.len()) {
        let single = &mut single[..part.len()];
        for (single, normal) in single.iter_mut().zip(normals.by_ref()) {
            *single = (deviation * normal) as f32;
        }
        part.convert_from_f32_slice(single);
    }
}

/// The pool in parts from its beginning, `each` with the position of its first value. Never held as a whole.
pub fn stream(block_hash: &str, len: usize, mut each: impl FnMut(usize, &[f16])) {
    let mut normals = normals(block_hash, 4);
    let mut part = vec![f16::ZERO; CHUNK.min(len)];
    let mut at = 0;
    while at < len {
        let part = &mut part[..CHUNK.min(len - at)];
        fill_halves(normals.by_ref(), DEVIATION, part);
        each(at, part);
        at += part.len();
    }
}

/// The pool in memory: two bytes per value.
#[derive(Debug)]
pub struct Pool {
    block_hash: String,
    values: Vec<f16>,
}

impl Pool {
    /// Draws the pool of a block hash.
    pub fn new(block_hash: &str, len: usize) -> Self {
        let mut values = Vec::with_capacity(len);
        stream(block_hash, len, |_, part| values.extend_from_slice(part));
        Self {
            block_hash: block_hash.to_owned(),
            values,
        }
    }

    /// The tensor's elements, cut out where they are asked for.
    pub fn tensor(&self, spec: &TensorSpec) -> Tensor<'_> {
        Tensor {
            values: &self.values,
            len: spec.len() as usize,
            placement: Placement::of(&self.block_hash, spec, self.values.len()),
        }
    }
}

/// A tensor that lies in the pool.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    values: &'a [f16],
    len: usize,
    placement: Placement,
}

impl<'a> Tensor<'a> {
    /// Its elements from `range.start` to `range.end` as runs of the pool.
    fn runs(self, range: Range<usize>) -> impl Iterator<Item = &'a [f16]> {
        let pool = self.values;
        let mut at = range.start;
        std::iter::from_fn(move || {
            let left = range.end - at;
            let run = match self.placement {
                Placement::Slice { start } => &pool[start + at..start + range.end],
                Placement::TileThenRotate { shift } => {
                    // The tiling is cut at the tensor's end, where the rotation begins anew.
                    let tiled = (at + shift) % self.len;
                    let first = tiled % pool.len();
                    &pool[first..first + left.min(pool.len() - first).min(self.len - tiled)]
                }
            };
            at += run.len();
            (left > 0).then_some(run)
        })
    }

    /// Writes its elements from `first` on, in single precision, which holds every half exactly.
    pub fn widen(self, first: usize, out: &mut [f32]) {
        let mut rest = out;
        for run in self.runs(first..first + rest.len()) {
            let (here, after) = rest.split_at_mut(run.len());
            run.convert_to_f32_slice(here);
            rest = after;
        }
    }

    /// SHA-256 of all elements, little-endian.
    pub fn digest(self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for run in self.runs(0..self.len) {
            digest_halves(&mut hash, run);
        }
        hash.finalize().into()
    }

    /// Some elements.
    pub fn halves(self, range: Range<usize>) -> Vec<f16> {
        self.runs(range).flatten().copied().collect()
    }
}

/// Feeds halves to a digest, little-endian.
pub fn digest_halves(hash: &mut Sha256, halves: &[f16]) {
    let mut bytes = [0; 8192];
    for part in halves.chunks(bytes.len() / 2) {
        for (pair, half) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(part) {
            *pair = half.to_le_bytes();
        }
        hash.update(&bytes[..2 * part.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(len: usize) -> TensorSpec {
        TensorSpec {
            name: "layers.0.attention.wq.weight".to_owned(),
            shape: vec![len],
        }
    }

    #[test]
    fn a_tensor_larger_than_the_pool_is_tiled_then_rotated() {
        let pool = Pool::new("AB", 7);
        let tensor = pool.tensor(&spec(17));
        let shift = name_hash("AB", &spec(17).name) as usize % 17;
        let mut tiled: Vec<f16> = pool.values.iter().cycle().take(17).copied().collect();
        tiled.rotate_left(shift);
        assert_eq!(tensor.halves(0..17), tiled);
        assert_eq!(tensor.halves(3..12), tiled[3..12]);
    }

    #[test]
    fn a_tensor_as_large_as_the_pool_is_the_pool() {
        let pool = Pool::new("AB", 7);
        assert_eq!(pool.tensor(&spec(7)).halves(0..7), pool.values);
    }

    #[test]
    fn halves_are_rounded_twice() {
        // A double just above the middle of two halves: single precision moves it to the middle, and the middle goes to the
        // even half below. Rounded once it would go up.
        let middle = 1.0 + 2.0_f64.powi(-11);
        let above = middle + 2.0_f64.powi(-40);
        let once = f16::from_f32(1.001);
        assert!(above - 1.0 > once.to_f64() - above, "the upper half is nearer");
        let mut out = [f16::ZERO; 2];
        fill_halves([above, middle + 2.0_f64.powi(-22)].into_iter(), 1.0, &mut out);
        assert_eq!(out, [f16::ONE, once]);
    }
}
