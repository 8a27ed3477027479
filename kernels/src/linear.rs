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
use pulp::{Arch, Scalar, Simd};
use std::marker::PhantomData;

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
        let product = Product::<A, ADD> {
            linear: self,
            out,
            inp,
            arithmetic: PhantomData,
        };
        match Arch::new() {
            Arch::V4(unit) => unit.vectorize(
                #[inline(always)]
                || product.tiles::<_, 8, 2, 1>(unit, x, y),
            ),
            Arch::V3(unit) => unit.vectorize(
                #[inline(always)]
                || product.tiles::<_, 4, 1, 2>(unit, x, y),
            ),
            _ => product.tiles::<_, 2, 1, LANES>(Scalar, x, y),
        }
    }
}

/// The first `out` outputs and `inp` inputs of a map, at work.
struct Product<'a, A, const ADD: bool> {
    linear: &'a Linear,
    out: usize,
    inp: usize,
    arithmetic: PhantomData<A>,
}

/// `ROWS` rows by `WIDE` blocks of outputs, each held in `PARTS` registers.
type Sums<S, const ROWS: usize, const WIDE: usize, const PARTS: usize> = [[[<S as Simd>::f32s; PARTS]; WIDE]; ROWS];

impl<A: Arithmetic, const ADD: bool> Product<'_, A, ADD> {
    /// Rows by tiles that stay in a core's cache; within a tile each `WIDE` blocks of weights serve all rows, `ROWS` at a time.
    /// The rows left over take several blocks at a time instead.
    #[inline(always)]
    fn tiles<S: Simd, const ROWS: usize, const WIDE: usize, const PARTS: usize>(
        &self,
        unit: S,
        x: &[f32],
        y: &mut [f32],
    ) {
        let blocks = self.out.div_ceil(LANES);
        for (x, y) in x.chunks(TILE * self.inp).zip(y.chunks_mut(TILE * self.out)) {
            let whole = x.len() / self.inp / ROWS * ROWS;
            let (x, x_rest) = x.split_at(whole * self.inp);
            let (y, y_rest) = y.split_at_mut(whole * self.out);
            let together = if whole > 0 { blocks / WIDE * WIDE } else { 0 };
            for block in (0..together).step_by(WIDE) {
                self.rows::<S, ROWS, WIDE, PARTS>(unit, block, x, y);
            }
            for block in together..blocks {
                self.rows::<S, ROWS, 1, PARTS>(unit, block, x, y);
            }
            let together = blocks / BLOCKS * BLOCKS;
            for block in (0..together).step_by(BLOCKS) {
                self.rows::<S, 1, BLOCKS, PARTS>(unit, block, x_rest, y_rest);
            }
            for block in together..blocks {
                self.rows::<S, 1, 1, PARTS>(unit, block, x_rest, y_rest);
            }
        }
    }

    /// `WIDE` blocks of outputs, from `block` on, of all rows, whose number `ROWS` divides.
    #[inline(always)]
    fn rows<S: Simd, const ROWS: usize, const WIDE: usize, const PARTS: usize>(
        &self,
        unit: S,
        block: usize,
        x: &[f32],
        y: &mut [f32],
    ) {
        let mut weights: [&[[S::f32s; PARTS]]; WIDE] = [&[]; WIDE];
        for (wide, weights) in weights.iter_mut().enumerate() {
            let packed = &self.linear.packed[(block + wide) * self.linear.inp * LANES..][..self.inp * LANES];
            *weights = S::as_simd_f32s(packed).0.as_chunks::<PARTS>().0;
        }
        let (out, first) = (self.out, block * LANES);
        for (x, y) in x.chunks_exact(ROWS * self.inp).zip(y.chunks_exact_mut(ROWS * out)) {
            let mut sums = [[[unit.splat_f32s(0.0); PARTS]; WIDE]; ROWS];
            if ADD {
                for (sums, y) in sums.iter_mut().zip(y.chunks_exact(out)) {
                    for (sums, y) in sums.iter_mut().zip(y[first..].chunks(LANES)) {
                        load::<S, PARTS>(y, sums);
                    }
                }
            }
            let sums = tile::<S, ROWS, WIDE, PARTS>(unit, x, weights, sums);
            for row in 0..ROWS {
                let y = &mut y[row * out..][first..out];
                for wide in 0..WIDE {
                    store::<A, S, PARTS>(sums[row][wide], &mut y[wide * LANES..]);
                }
            }
        }
    }
}

/// Adds the products of `ROWS` rows, one after the other in `x`, with the weights of some blocks.
#[inline(always)]
fn tile<S: Simd, const ROWS: usize, const WIDE: usize, const PARTS: usize>(
    unit: S,
    x: &[f32],
    weights: [&[[S::f32s; PARTS]]; WIDE],
    mut sums: Sums<S, ROWS, WIDE, PARTS>,
) -> Sums<S, ROWS, WIDE, PARTS> {
    // Rows and weights of one length that is plain to see: no index below needs a check.
    let inp = x.len() / ROWS;
    let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
    for (row, place) in rows.iter_mut().enumerate() {
        *place = &x[row * inp..][..inp];
    }
    let mut blocks = weights;
    for block in &mut blocks {
        *block = &block[..inp];
    }
    for column in 0..inp {
        for row in 0..ROWS {
            let factor = unit.splat_f32s(rows[row][column]);
            for wide in 0..WIDE {
                for part in 0..PARTS {
                    let product = unit.mul_f32s(factor, blocks[wide][column][part]);
                    sums[row][wide][part] = unit.add_f32s(sums[row][wide][part], product);
                }
            }
        }
    }
    sums
}

/// A block of outputs, of which the last may have fewer.
#[inline(always)]
fn load<S: Simd, const PARTS: usize>(y: &[f32], sums: &mut [S::f32s; PARTS]) {
    let mut block = [0.0; LANES];
    block[..y.len()].copy_from_slice(y);
    sums.copy_from_slice(S::as_simd_f32s(&block).0);
}

/// Rounds a block of sums into the first of the outputs, of which the last block may have fewer.
#[inline(always)]
fn store<A: Arithmetic, S: Simd, const PARTS: usize>(sums: [S::f32s; PARTS], y: &mut [f32]) {
    let mut block = [0.0; LANES];
    S::as_mut_simd_f32s(&mut block).0.copy_from_slice(&sums);
    let block = block.map(
        #[inline(always)]
        |sum| A::round(sum),
    );
    // A whole block is one store.
    match y.first_chunk_mut::<LANES>() {
        Some(y) => *y = block,
        None => store_some(block, y),
    }
}

#[inline(never)]
fn store_some(block: [f32; LANES], y: &mut [f32]) {
    y.copy_from_slice(&block[..y.len()]);
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
    #[case(80, 20, 19)]
    #[case(70, 33, 73)]
    fn agrees_with_the_plain_sum_on_every_unit(#[case] out: usize, #[case] inp: usize, #[case] rows: usize) {
        let (weights, x) = (rng::normal(1, out * inp), rng::normal(2, rows * inp));
        let mut expected = Vec::new();
        for x in x.chunks_exact(inp) {
            for weights in weights.chunks_exact(inp) {
                let sum = x.iter().zip(weights).fold(0.0_f32, |sum, (x, weight)| sum + x * weight);
                expected.push(sum.to_bits());
            }
        }
        let linear = Linear::pack(out, inp, &weights);
        let agrees = |unit: &str, run: &dyn Fn(&mut [f32])| {
            let mut y = vec![f32::NAN; rows * out];
            run(&mut y);
            let found: Vec<u32> = y.iter().map(|y| y.to_bits()).collect();
            assert!(found == expected, "{unit}");
        };
        let product = Product::<F32, false> {
            linear: &linear,
            out,
            inp,
            arithmetic: PhantomData,
        };
        agrees("widest", &|y| linear.forward::<F32>(&x, y));
        agrees("none", &|y| product.tiles::<_, 2, 1, LANES>(Scalar, &x, y));
        #[cfg(target_arch = "x86_64")]
        if let Some(unit) = pulp::x86::V3::try_new() {
            agrees("V3", &|y| unit.vectorize(|| product.tiles::<_, 4, 1, 2>(unit, &x, y)));
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
