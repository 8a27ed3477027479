//! Matrices of codes with their scales, and their product in two levels: what has one pair of scales is added up first.

use super::{LARGEST, decode, encode};
use crate::{
    decoder::{Arithmetic, Bf16},
    vector,
};
use std::{array, ops::Range, sync::LazyLock};

/// Neighbours of a token that share a scale; blocks of weights are this long and this wide.
pub const GROUP: usize = 128;
/// A group of zeros is not divided by zero.
const SMALLEST_AMOUNT: f32 = 1e-10;

static NUMBERS: LazyLock<[f32; 256]> = LazyLock::new(|| array::from_fn(|code| decode(code as u8)));

/// The scale of some numbers: their largest amount to the largest code.
fn scale(numbers: impl Iterator<Item = f32>) -> f32 {
    numbers.map(f32::abs).fold(SMALLEST_AMOUNT, f32::max) / LARGEST
}

/// Rows of activations, quantised as they come: a scale a row and group.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    width: usize,
    /// Row-major.
    pub codes: Vec<u8>,
    /// [row][group].
    pub scales: Vec<f32>,
}

impl Rows {
    /// Quantises rows.
    ///
    /// # Panics
    /// When `width` is no multiple of [`GROUP`].
    pub fn quantise(x: &[f32], width: usize) -> Self {
        assert!(width.is_multiple_of(GROUP), "rows are whole groups");
        let mut rows = Self {
            width,
            codes: Vec::with_capacity(x.len()),
            scales: Vec::with_capacity(x.len() / GROUP),
        };
        for group in x.chunks_exact(GROUP) {
            let scale = scale(group.iter().copied());
            rows.scales.push(scale);
            rows.codes.extend(group.iter().map(|x| encode(x / scale)));
        }
        rows
    }

    /// One of the rows.
    #[must_use]
    pub fn row(&self, row: usize) -> Self {
        let groups = self.width / GROUP;
        Self {
            width: self.width,
            codes: self.codes[row * self.width..][..self.width].to_vec(),
            scales: self.scales[row * groups..][..groups].to_vec(),
        }
    }
}

/// A matrix of weights, quantised once: a scale a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocks {
    out: usize,
    inp: usize,
    /// [out][inp].
    pub codes: Vec<u8>,
    /// [block of out][block of inp].
    pub scales: Vec<f32>,
}

impl Blocks {
    /// Quantises weights, row-major [out][inp].
    ///
    /// # Panics
    /// When a side is no multiple of [`GROUP`].
    pub fn quantise(weights: &[f32], out: usize, inp: usize) -> Self {
        assert!(
            out.is_multiple_of(GROUP) && inp.is_multiple_of(GROUP),
            "weights are whole blocks"
        );
        let mut blocks = Self {
            out,
            inp,
            codes: Vec::with_capacity(out * inp),
            scales: Vec::with_capacity(out * inp / GROUP / GROUP),
        };
        for band in weights.chunks_exact(GROUP * inp) {
            let scales: Vec<f32> = (0..inp)
                .step_by(GROUP)
                .map(|first| {
                    scale(
                        band.chunks_exact(inp)
                            .flat_map(|row| row[first..first + GROUP].iter().copied()),
                    )
                })
                .collect();
            for row in band.chunks_exact(inp) {
                for (group, scale) in row.chunks_exact(GROUP).zip(&scales) {
                    blocks.codes.extend(group.iter().map(|x| encode(x / scale)));
                }
            }
            blocks.scales.extend(scales);
        }
        blocks
    }

    /// Length of an output row.
    pub const fn out(&self) -> usize {
        self.out
    }

    /// Length of an input row.
    pub const fn inp(&self) -> usize {
        self.inp
    }

    /// Products of rows with these weights, rounded to bf16.
    ///
    /// # Panics
    /// When the rows have another width.
    pub fn forward(&self, rows: &Rows) -> Vec<f32> {
        assert_eq!(rows.width, self.inp, "rows as wide as the weights");
        let numbers: Vec<f32> = rows.codes.iter().map(|&code| NUMBERS[usize::from(code)]).collect();
        let mut out = vec![0.0; rows.scales.len() / self.groups() * self.out];
        for o in 0..self.out {
            let weights: Vec<f32> = self.codes[self.row(o)]
                .iter()
                .map(|&code| NUMBERS[usize::from(code)])
                .collect();
            let weight_scales = &self.scales[o / GROUP * self.groups()..][..self.groups()];
            let rows = numbers
                .chunks_exact(self.inp)
                .zip(rows.scales.chunks_exact(self.groups()));
            for ((x, scales), out) in rows.zip(out.chunks_exact_mut(self.out)) {
                out[o] = Bf16::round(product((x, scales), (&weights, weight_scales)));
            }
        }
        out
    }

    fn row(&self, row: usize) -> Range<usize> {
        row * self.inp..(row + 1) * self.inp
    }

    const fn groups(&self) -> usize {
        self.inp / GROUP
    }
}

/// One element: each group's products added from zero, scaled by both scales, and added.
fn product((x, x_scales): (&[f32], &[f32]), (w, w_scales): (&[f32], &[f32])) -> f32 {
    vector::widest(
        #[inline(always)]
        || {
            let groups = x.as_chunks::<GROUP>().0.iter().zip(w.as_chunks::<GROUP>().0);
            let scales = x_scales.iter().zip(w_scales).map(|(x, w)| x * w);
            groups.zip(scales).fold(0.0, |sum: f32, ((x, w), scale)| {
                vector::sum_of_pairs(x, w, |x, w| x * w).mul_add(scale, sum)
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    #[test]
    fn each_group_of_a_row_reaches_the_largest_code_and_is_near_what_it_was() {
        let mut x = rng::normal(3, 4 * 384);
        x[128..256].fill(0.0);
        x[256] = 1e4;
        let rows = Rows::quantise(&x, 384);
        for (group, (codes, scale)) in rows.codes.chunks_exact(GROUP).zip(&rows.scales).enumerate() {
            let largest = codes.iter().map(|code| code & 0x7f).max();
            assert_eq!(largest, Some(if group == 1 { 0 } else { 0x7e }), "group {group}");
            for (code, x) in codes.iter().zip(&x[group * GROUP..]) {
                // Half of the last of four bits, or half of the smallest step.
                let bound = (x.abs() / 16.0).max(scale / 1024.0) * 1.000_001;
                assert!((decode(*code) * scale - x).abs() <= bound, "{x} in group {group}");
            }
        }
    }

    #[test]
    fn a_block_of_weights_has_one_scale_and_its_neighbours_their_own() {
        let mut weights = rng::normal(4, 256 * 384);
        weights[130 * 384 + 140] = 99.0;
        let blocks = Blocks::quantise(&weights, 256, 384);
        assert_eq!(blocks.scales.len(), 6);
        let large: Vec<bool> = blocks.scales.iter().map(|scale| *scale > 0.2).collect();
        assert_eq!(large, [false, false, false, false, true, false]);
        assert_eq!(decode(blocks.codes[130 * 384 + 140]).to_bits(), LARGEST.to_bits());
    }

    #[test]
    fn products_are_those_of_the_scaled_numbers() {
        let (x, weights) = (rng::normal(5, 3 * 256), rng::normal(6, 256 * 256));
        let (rows, blocks) = (Rows::quantise(&x, 256), Blocks::quantise(&weights, 256, 256));
        let found = blocks.forward(&rows);
        for (row, o) in [(0, 0), (1, 127), (1, 128), (2, 255)] {
            let (mut exact, mut amount) = (0.0, 0.0);
            for k in 0..256 {
                let x = f64::from(decode(rows.codes[row * 256 + k])) * f64::from(rows.scales[row * 2 + k / GROUP]);
                let w = f64::from(decode(blocks.codes[o * 256 + k]));
                let term = x * w * f64::from(blocks.scales[o / GROUP * 2 + k / GROUP]);
                exact += term;
                amount += term.abs();
            }
            let apart = (f64::from(found[row * 256 + o]) - exact).abs();
            assert!(apart <= exact.abs() / 256.0 + 1e-5 * amount, "{row} {o}");
        }
    }

    #[test]
    fn what_is_not_finite_reaches_the_product() {
        let blocks = Blocks::quantise(&rng::normal(6, 128 * 128), 128, 128);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = rng::normal(5, 2 * 128);
            x[5] = bad;
            let out = blocks.forward(&Rows::quantise(&x, 128));
            assert!(out[..128].iter().all(|x| x.is_nan()) && out[128..].iter().all(|x| x.is_finite()));
        }
    }
}
