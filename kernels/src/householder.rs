//! Householder reflections after the decoder layers (`docs/poc-v2.md`, section 4.2).
//!
//! Both members of a layer's output (hidden and residual) are reflected, after every layer including the last.

use crate::{
    decoder::Arithmetic,
    rng, seed,
    vector::{self, LANES},
};

/// Unit vector of the reflection after `layer`, in single precision, `dim` elements; cast it to the run's type
/// before use (in bf16 it is then no longer exactly of length one, as in the reference).
pub fn reflection_vector(block_hash: &str, layer: usize, dim: usize) -> Vec<f32> {
    let mut vector = rng::normal(seed::seed_from_string(&seed::layer(block_hash, layer)), dim);
    let norm = norm(&vector);
    for element in &mut vector {
        *element /= norm;
    }
    vector
}

/// Replaces each row x of `rows` (row length = length of `v`) by x - 2 (x.v) v, every operation rounded to the run's
/// type and the dot product accumulated in single precision.
pub fn reflect<A: Arithmetic>(rows: &mut [f32], v: &[f32]) {
    if v.is_empty() {
        return;
    }
    vector::widest(
        #[inline(always)]
        || {
            for rows in rows.chunks_mut(LANES * v.len()) {
                // Dot products of sixteen rows, before one waits for its own.
                let mut dots = [0.0; LANES];
                for (dot, row) in dots.iter_mut().zip(rows.chunks_exact(v.len())) {
                    *dot = vector::sum_of_pairs(row, v, |x, v| A::round(x * v));
                }
                for (row, dot) in rows.chunks_exact_mut(v.len()).zip(dots) {
                    let twice = A::round(2.0 * A::round(dot));
                    for (x, v) in row.iter_mut().zip(v) {
                        *x = A::round(*x - A::round(twice * v));
                    }
                }
            }
        },
    );
}

/// Euclidean length, accumulated in double precision.
pub(crate) fn norm(vector: &[f32]) -> f32 {
    vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::F32;

    #[test]
    fn reflecting_twice_gives_the_vector_back() {
        let v = reflection_vector("AB", 3, 64);
        let original = rng::normal(9, 128);
        let mut rows = original.clone();
        reflect::<F32>(&mut rows, &v);
        assert!(rows.iter().zip(&original).any(|(a, b)| (a - b).abs() > 0.1));
        reflect::<F32>(&mut rows, &v);
        assert!(rows.iter().zip(&original).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
