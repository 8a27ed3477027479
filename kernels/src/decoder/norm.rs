//! Root-mean-square norm and the residual addition before it.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the vector units of `vector::widest`"
)]

use super::arithmetic::Arithmetic;
use crate::vector::{self, LANES};

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
    let width = weight.len();
    vector::widest(
        #[inline(always)]
        || {
            for (x, out) in x.chunks(LANES * width).zip(out.chunks_mut(LANES * width)) {
                let rows = x.chunks_exact(width).zip(out.chunks_exact_mut(width));
                for ((row, out), scale) in rows.zip(scales(x, width, eps)) {
                    for ((x, weight), out) in row.iter().zip(weight).zip(out) {
                        *out = A::round(A::round(x * scale) * weight);
                    }
                }
            }
        },
    );
}

/// As [`rms`], in place.
pub(super) fn rms_in_place<A: Arithmetic>(x: &mut [f32], weight: &[f32], eps: f64) {
    let width = weight.len();
    vector::widest(
        #[inline(always)]
        || {
            for x in x.chunks_mut(LANES * width) {
                let scales = scales(x, width, eps);
                for (row, scale) in x.chunks_exact_mut(width).zip(scales) {
                    for (x, weight) in row.iter_mut().zip(weight) {
                        *x = A::round(A::round(*x * scale) * weight);
                    }
                }
            }
        },
    );
}

/// What multiplies each of some rows: one root and two divisions of all of them at a time.
#[inline(always)]
fn scales(rows: &[f32], width: usize, eps: f64) -> [f32; LANES] {
    let mut squares = [0.0; LANES];
    for (squares, row) in squares.iter_mut().zip(rows.chunks_exact(width)) {
        *squares = vector::sum(row, |x| x * x);
    }
    squares.map(
        #[inline(always)]
        |squares| 1.0 / (squares / width as f32 + eps as f32).sqrt(),
    )
}
