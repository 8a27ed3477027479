//! Root-mean-square norm and the residual addition before it.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the vector units of `vector::widest`"
)]

use super::arithmetic::Arithmetic;
use crate::vector;

/// residual = hidden + residual, rounded to the run's type.
pub(super) fn add<A: Arithmetic>(hidden: &[f32], residual: &mut [f32]) {
    vector::widest(
        #[inline(always)]
        || {
            for (residual, hidden) in residual.iter_mut().zip(hidden) {
                *residual = A::round(*hidden + *residual);
            }
        },
    );
}

/// Norms each row of `x` (as long as `weight`) into `out`: in single precision, rounded, then times the weight.
pub(crate) fn rms<A: Arithmetic>(x: &[f32], weight: &[f32], eps: f64, out: &mut [f32]) {
    vector::widest(
        #[inline(always)]
        || {
            for (row, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
                let scale = scale(row, eps);
                for ((x, weight), out) in row.iter().zip(weight).zip(out) {
                    *out = A::round(A::round(x * scale) * weight);
                }
            }
        },
    );
}

/// As [`rms`], in place.
pub(super) fn rms_in_place<A: Arithmetic>(x: &mut [f32], weight: &[f32], eps: f64) {
    vector::widest(
        #[inline(always)]
        || {
            for row in x.chunks_exact_mut(weight.len()) {
                let scale = scale(row, eps);
                for (x, weight) in row.iter_mut().zip(weight) {
                    *x = A::round(A::round(*x * scale) * weight);
                }
            }
        },
    );
}

#[inline(always)]
fn scale(row: &[f32], eps: f64) -> f32 {
    let squares = vector::sum(row, |x| x * x);
    1.0 / (squares / row.len() as f32 + eps as f32).sqrt()
}
