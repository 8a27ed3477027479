//! A linear map without bias, its weights packed for vector units: blocks of sixteen outputs, input by input. Each
//! output is accumulated in single precision in ascending input order and rounded once. Both schemes compute with it.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the vector units of `vector::widest`"
)]

use crate::{
    decoder::{Arithmetic, Bf16, F32},
    vector::LANES,
};
use pulp::Arch;
use std::ops::Range;

/// Blocks a single row takes at a time.
const BLOCKS: usize = 4;
/// Rows whose inputs stay in a core's cache at the width of the largest model.
const TILE: usize = 64;

#[derive(Debug, Clone, Default)]
pub(crate) struct Linear {
    out: usize,
    inp: usize,
    /// [ceil(out / LANES)][inp][LANES], padded with zeros.
    packed: Vec<f32>,
    /// Rows on their way in.
    rows: Vec<f32>,
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
        let Self { packed, rows, .. } = self;
        rows.resize(LANES * inp, 0.0);
        for (block, packed) in packed.chunks_exact_mut(inp * LANES).enumerate() {
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

    /// As [`Linear::refill`] from the weights of one input after the other; those of an input may be missing altogether.
    pub(crate) fn refill_columns<'a>(&mut self, out: usize, inp: usize, column: impl Fn(usize) -> &'a [f32]) {
        (self.out, self.inp) = (out, inp);
        self.packed.clear();
        self.packed.resize(out.div_ceil(LANES) * inp * LANES, 0.0);
        for index in 0..inp {
            for (block, weights) in column(index).chunks(LANES).enumerate() {
                self.packed[(block * inp + index) * LANES..][..weights.len()].copy_from_slice(weights);
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
        self.part::<A, false>(self.out, self.inp, x, y);
    }

    /// As [`Linear::forward`] with the first `out` outputs and `inp` inputs of the map.
    pub(crate) fn forward_part<A: Arithmetic>(&self, out: usize, inp: usize, x: &[f32], y: &mut [f32]) {
        self.part::<A, false>(out, inp, x, y);
    }

    /// Adds the map of each row of `x` to a row of `y`, in single precision: a map cut along its inputs, part after part,
    /// gives the sums of the whole to the bit.
    pub(crate) fn accumulate(&self, x: &[f32], y: &mut [f32]) {
        self.part::<F32, true>(self.out, self.inp, x, y);
    }

    /// Runs on the widest vector units the machine has. No unit changes a bit: products and sums are rounded one by one, in
    /// the same order.
    fn part<A: Arithmetic, const ADD: bool>(&self, out: usize, inp: usize, x: &[f32], y: &mut [f32]) {
        match Arch::new() {
            Arch::V4(unit) => unit.vectorize(|| self.tiles::<A, ADD, 8>(out, inp, x, y)),
            Arch::V3(unit) => unit.vectorize(|| self.tiles::<A, ADD, 4>(out, inp, x, y)),
            _ => self.tiles::<A, ADD, 2>(out, inp, x, y),
        }
    }

    /// Rows by tiles that stay in a core's cache; within a tile each block of weights serves all rows, `ROWS` at a time. The
    /// rows left over take several blocks at a time instead.
    #[inline(always)]
    fn tiles<A: Arithmetic, const ADD: bool, const ROWS: usize>(
        &self,
        out: usize,
        inp: usize,
        x: &[f32],
        y: &mut [f32],
    ) {
        for (x, y) in x.chunks(TILE * inp).zip(y.chunks_mut(TILE * out)) {
            let whole = x.len() / inp / ROWS * ROWS;
            let (xs, x_rest) = x.split_at(whole * inp);
            let (ys, y_rest) = y.split_at_mut(whole * out);
            if whole > 0 {
                for (block, first) in (0..out).step_by(LANES).enumerate() {
                    let columns = first..out.min(first + LANES);
                    for (x, y) in xs.chunks_exact(ROWS * inp).zip(ys.chunks_exact_mut(ROWS * out)) {
                        let x = std::array::from_fn(|row| &x[row * inp..][..inp]);
                        tile::<A, ADD, ROWS>(x, self.block(block, inp), y, out, columns.clone());
                    }
                }
            }
            for (x, y) in x_rest.chunks_exact(inp).zip(y_rest.chunks_exact_mut(out)) {
                self.single::<A, ADD>(x, y);
            }
        }
    }

    fn block(&self, block: usize, inp: usize) -> &[[f32; LANES]] {
        &self.packed[block * self.inp * LANES..].as_chunks::<LANES>().0[..inp]
    }

    /// One row, some blocks of outputs at a time: as many sums as one chain of additions needs to be hidden.
    #[inline(always)]
    fn single<A: Arithmetic, const ADD: bool>(&self, x: &[f32], y: &mut [f32]) {
        let last = y.len().div_ceil(LANES) - 1;
        for (group, y) in y.chunks_mut(BLOCKS * LANES).enumerate() {
            let weights: [&[[f32; LANES]]; BLOCKS] =
                std::array::from_fn(|block| self.block((group * BLOCKS + block).min(last), x.len()));
            let mut sums = [[0.0; LANES]; BLOCKS];
            if ADD {
                for (sums, y) in sums.iter_mut().zip(y.chunks(LANES)) {
                    sums[..y.len()].copy_from_slice(y);
                }
            }
            for (column, factor) in x.iter().enumerate() {
                for block in 0..BLOCKS {
                    for lane in 0..LANES {
                        sums[block][lane] += factor * weights[block][column][lane];
                    }
                }
            }
            for (sums, y) in sums.into_iter().zip(y.chunks_mut(LANES)) {
                store::<A>(sums, y);
            }
        }
    }
}

/// Rounds a block of sums into its outputs, of which the last block may have fewer. Sums are passed by value: a loop over as many
/// as there are outputs would keep them in memory, not in registers, all the while they are added up.
#[inline(always)]
fn store<A: Arithmetic>(mut sums: [f32; LANES], y: &mut [f32]) {
    for sum in &mut sums {
        *sum = A::round(*sum);
    }
    // A whole block is one store.
    match <&mut [f32; LANES]>::try_from(&mut *y) {
        Ok(y) => *y = sums,
        Err(_) => y.copy_from_slice(&sums[..y.len()]),
    }
}

/// One block of outputs of `ROWS` rows.
#[inline(always)]
fn tile<A: Arithmetic, const ADD: bool, const ROWS: usize>(
    x: [&[f32]; ROWS],
    weights: &[[f32; LANES]],
    y: &mut [f32],
    out: usize,
    columns: Range<usize>,
) {
    let x = x.map(|row| &row[..weights.len()]);
    let mut sums = [[0.0; LANES]; ROWS];
    if ADD {
        for (sums, y) in sums.iter_mut().zip(y.chunks_exact(out)) {
            sums[..columns.len()].copy_from_slice(&y[columns.clone()]);
        }
    }
    for (column, weights) in weights.iter().enumerate() {
        for row in 0..ROWS {
            let factor = x[row][column];
            for lane in 0..LANES {
                sums[row][lane] += factor * weights[lane];
            }
        }
    }
    for (sums, y) in sums.into_iter().zip(y.chunks_exact_mut(out)) {
        store::<A>(sums, &mut y[columns.clone()]);
    }
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
