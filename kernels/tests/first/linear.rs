//! A linear map without bias, its weights packed for vector units: blocks of sixteen outputs, input by input. Each
//! output is accumulated in single precision in ascending input order and rounded once.

use super::{Arithmetic, Bf16};

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
