//! A linear map without bias, its weights packed for vector units: blocks of sixteen outputs, input by input. Each
//! output is accumulated in single precision in ascending input order and rounded once. Both schemes compute with it.

use crate::decoder::{Arithmetic, Bf16, F32};

const LANES: usize = 16;

#[derive(Debug, Clone, Default)]
pub(crate) struct Linear {
    out: usize,
    inp: usize,
    /// [ceil(out / LANES)][inp][LANES], padded with zeros.
    packed: Vec<f32>,
}

impl Linear {
    /// Packs weights given row-major as [out, inp].
    pub(crate) fn pack(out: usize, inp: usize, weights: &[f32]) -> Self {
        let mut linear = Self::default();
        let mut rows = weights.chunks_exact(inp);
        linear.refill(out, inp, |_, row| {
            if let Some(weights) = rows.next() {
                row.copy_from_slice(weights);
            }
        });
        linear
    }

    /// Takes another map's weights into the same memory; `row` writes each row of them, in order.
    pub(crate) fn refill(&mut self, out: usize, inp: usize, mut row: impl FnMut(usize, &mut [f32])) {
        (self.out, self.inp) = (out, inp);
        self.packed.resize(out.div_ceil(LANES) * inp * LANES, 0.0);
        let mut rows = vec![0.0; LANES * inp];
        for (block, packed) in self.packed.chunks_exact_mut(inp * LANES).enumerate() {
            rows.fill(0.0);
            let present = LANES.min(out - block * LANES);
            for (lane, weights) in rows.chunks_exact_mut(inp).take(present).enumerate() {
                row(block * LANES + lane, weights);
            }
            for (column, packed) in packed.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                for (lane, packed) in packed.iter_mut().enumerate() {
                    *packed = rows[lane * inp + column];
                }
            }
        }
    }

    pub(crate) fn out(&self) -> usize {
        self.out
    }

    pub(crate) fn inp(&self) -> usize {
        self.inp
    }

    pub(crate) fn round(&mut self) {
        for weight in &mut self.packed {
            *weight = Bf16::round(*weight);
        }
    }

    /// Maps each row of `x` (`inp` elements) to a row of `y` (`out` elements).
    pub(crate) fn forward<A: Arithmetic>(&self, x: &[f32], y: &mut [f32]) {
        self.apply::<A, false>(x, y);
    }

    /// Adds the map of each row of `x` to a row of `y`, in single precision: a map cut along its inputs, part after part,
    /// gives the sums of the whole to the bit.
    pub(crate) fn accumulate(&self, x: &[f32], y: &mut [f32]) {
        self.apply::<F32, true>(x, y);
    }

    fn apply<A: Arithmetic, const ADD: bool>(&self, x: &[f32], y: &mut [f32]) {
        let mut pairs = x.chunks_exact(2 * self.inp);
        let mut outputs = y.chunks_exact_mut(2 * self.out);
        for (x, y) in pairs.by_ref().zip(outputs.by_ref()) {
            let (x0, x1) = x.split_at(self.inp);
            let (y0, y1) = y.split_at_mut(self.out);
            self.rows::<A, ADD, 2>([x0, x1], [y0, y1]);
        }
        let (x, y) = (pairs.remainder(), outputs.into_remainder());
        if x.len() == self.inp {
            self.rows::<A, ADD, 1>([x], [y]);
        }
    }

    fn rows<A: Arithmetic, const ADD: bool, const ROWS: usize>(&self, x: [&[f32]; ROWS], mut y: [&mut [f32]; ROWS]) {
        for (block, weights) in self.packed.chunks_exact(self.inp * LANES).enumerate() {
            let first = block * LANES;
            let count = LANES.min(self.out - first);
            let mut sums = [[0.0; LANES]; ROWS];
            if ADD {
                for (sums, y) in sums.iter_mut().zip(&y) {
                    sums[..count].copy_from_slice(&y[first..first + count]);
                }
            }
            let sums = dot::<ROWS>(sums, x, weights.as_chunks::<LANES>().0);
            for (y, sums) in y.iter_mut().zip(sums) {
                for (y, sum) in y[first..first + count].iter_mut().zip(sums) {
                    *y = A::round(sum);
                }
            }
        }
    }
}

#[inline]
fn dot<const ROWS: usize>(
    mut sums: [[f32; LANES]; ROWS],
    x: [&[f32]; ROWS],
    weights: &[[f32; LANES]],
) -> [[f32; LANES]; ROWS] {
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
    use crate::rng;
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

    #[test]
    fn a_map_cut_along_its_inputs_gives_the_sums_of_the_whole() {
        let (out, inp, cut, rows) = (21, 33, 20, 3);
        let (weights, x) = (rng::normal(1, out * inp), rng::normal(2, rows * inp));
        let mut whole = vec![0.0; rows * out];
        Linear::pack(out, inp, &weights).forward::<F32>(&x, &mut whole);
        let mut parts = vec![0.0; rows * out];
        let mut linear = Linear::default();
        for columns in [0..cut, cut..inp] {
            let part: Vec<f32> = x
                .chunks_exact(inp)
                .flat_map(|row| &row[columns.clone()])
                .copied()
                .collect();
            linear.refill(out, columns.len(), |row, to| {
                to.copy_from_slice(&weights[row * inp..][columns.clone()]);
            });
            linear.accumulate(&part, &mut parts);
        }
        assert_eq!(parts, whole);
    }
}
