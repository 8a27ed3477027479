//! A linear map without bias, its weights packed for vector units: blocks of sixteen outputs, input by input. Each
//! output is accumulated in single precision in ascending input order and rounded once.

use super::arithmetic::{Arithmetic, Bf16};

const LANES: usize = 16;

#[derive(Debug, Clone)]
pub(super) struct Linear {
    out: usize,
    inp: usize,
    /// [ceil(out / LANES)][inp][LANES], padded with zeros.
    packed: Vec<f32>,
}

impl Linear {
    /// Packs weights given row-major as [out, inp].
    pub(super) fn pack(out: usize, inp: usize, weights: &[f32]) -> Self {
        let mut packed = vec![0.0; out.div_ceil(LANES) * inp * LANES];
        for (row, weights) in weights.chunks_exact(inp).enumerate() {
            let block = row / LANES * inp * LANES;
            for (column, &weight) in weights.iter().enumerate() {
                packed[block + column * LANES + row % LANES] = weight;
            }
        }
        Self { out, inp, packed }
    }

    pub(super) fn out(&self) -> usize {
        self.out
    }

    pub(super) fn inp(&self) -> usize {
        self.inp
    }

    pub(super) fn round(&mut self) {
        for weight in &mut self.packed {
            *weight = Bf16::round(*weight);
        }
    }

    /// Maps each row of `x` (`inp` elements) to a row of `y` (`out` elements).
    pub(super) fn forward<A: Arithmetic>(&self, x: &[f32], y: &mut [f32]) {
        let mut pairs = x.chunks_exact(2 * self.inp);
        let mut outputs = y.chunks_exact_mut(2 * self.out);
        for (x, y) in pairs.by_ref().zip(outputs.by_ref()) {
            let (x0, x1) = x.split_at(self.inp);
            let (y0, y1) = y.split_at_mut(self.out);
            self.rows::<A, 2>([x0, x1], [y0, y1]);
        }
        let (x, y) = (pairs.remainder(), outputs.into_remainder());
        if x.len() == self.inp {
            self.rows::<A, 1>([x], [y]);
        }
    }

    fn rows<A: Arithmetic, const ROWS: usize>(&self, x: [&[f32]; ROWS], mut y: [&mut [f32]; ROWS]) {
        for (block, weights) in self.packed.chunks_exact(self.inp * LANES).enumerate() {
            let sums = dot::<ROWS>(x, weights.as_chunks::<LANES>().0);
            let first = block * LANES;
            let count = LANES.min(self.out - first);
            for (y, sums) in y.iter_mut().zip(sums) {
                for (y, sum) in y[first..first + count].iter_mut().zip(sums) {
                    *y = A::round(sum);
                }
            }
        }
    }
}

#[inline]
fn dot<const ROWS: usize>(x: [&[f32]; ROWS], weights: &[[f32; LANES]]) -> [[f32; LANES]; ROWS] {
    let mut sums = [[0.0; LANES]; ROWS];
    let x = x.map(|row| &row[..weights.len()]);
    for (column, weights) in weights.iter().enumerate() {
        for row in 0..ROWS {
            let factor = x[row][column];
            for lane in 0..LANES {
                sums[row][lane] += factor * weights[lane];
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decoder::F32, rng};
    use rstest::rstest;

    #[rstest]
    #[case(8, 64, 1)]
    #[case(16, 3, 2)]
    #[case(33, 17, 5)]
    fn agrees_with_the_plain_sum(#[case] out: usize, #[case] inp: usize, #[case] rows: usize) {
        let (weights, x) = (rng::normal(1, out * inp), rng::normal(2, rows * inp));
        let mut y = vec![0.0; rows * out];
        Linear::pack(out, inp, &weights).forward::<F32>(&x, &mut y);
        for row in 0..rows {
            for o in 0..out {
                let mut expected = 0.0_f32;
                for i in 0..inp {
                    expected += x[row * inp + i] * weights[o * inp + i];
                }
                assert_eq!(y[row * out + o].to_bits(), expected.to_bits());
            }
        }
    }
}
