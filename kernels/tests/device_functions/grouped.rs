//! Products in eight bits against the sum of the scaled numbers in double precision, every element within what its roundings can do.

use crate::{
    emulator::{Argument, Buffer, NULL, Shape, bank_conflicts, in_every_order, launch},
    numbers::widen,
};
use kernels::{
    fp8::{Blocks, GROUP, Rows, decode},
    rng,
};
use rstest::rstest;

const TILE: usize = 128;
const SHARED: u32 = 98_304;

/// Rows by group, and whether they are taken from before the sort, each serving `sharing` pairs.
struct Problem {
    counts: Vec<usize>,
    sharing: Option<usize>,
    inner: usize,
    outer: usize,
    x: Rows,
    weights: Vec<Blocks>,
}

impl Problem {
    fn new(counts: &[usize], sharing: Option<usize>, (inner, outer): (usize, usize)) -> Self {
        let pairs: usize = counts.iter().sum();
        let rows = pairs / sharing.unwrap_or(1);
        let mut x = rng::normal(7, rows * inner);
        // Neighbouring groups' scales are far apart: a wrong one shows.
        for (at, group) in x.chunks_exact_mut(GROUP).enumerate() {
            for x in group {
                *x *= [1.0, 8.0, 0.1, 3.0][at % 4];
            }
        }
        let weights = (0..counts.len())
            .map(|group| {
                let mut weights = rng::normal(20 + group as u32, outer * inner);
                for (at, x) in weights.iter_mut().enumerate() {
                    *x *= [0.02, 0.3, 0.005][(at / inner / GROUP + at % inner / GROUP) % 3];
                }
                Blocks::quantise(&weights, outer, inner)
            })
            .collect();
        Self {
            counts: counts.to_vec(),
            sharing,
            inner,
            outer,
            x: Rows::quantise(&x, inner),
            weights,
        }
    }

    fn pairs(&self) -> usize {
        self.counts.iter().sum()
    }

    /// First rows and first tiles of the groups, and the number of all.
    fn starts(&self, unit: usize) -> Vec<u32> {
        let mut starts = vec![0];
        for count in &self.counts {
            starts.push(starts[starts.len() - 1] + count.div_ceil(unit) as u32);
        }
        starts
    }

    /// Pairs in an order that no group keeps.
    fn order(&self) -> Vec<u32> {
        let pairs = self.pairs();
        (0..pairs).map(|place| ((place * 7 + 3) % pairs) as u32).collect()
    }

    fn source(&self, place: usize) -> usize {
        self.sharing
            .map_or(place, |sharing| self.order()[place] as usize / sharing)
    }

    fn found(&self, out_stride: usize) -> Vec<u16> {
        let codes: Vec<u8> = self.weights.iter().flat_map(|blocks| blocks.codes.clone()).collect();
        let scales: Vec<f32> = self.weights.iter().flat_map(|blocks| blocks.scales.clone()).collect();
        let out = Buffer::new(&vec![0xffff_u16; self.pairs() * out_stride]);
        let [x, w, starts, tiles, order] = [
            words(&self.x.codes),
            words(&codes),
            self.starts(1),
            self.starts(TILE),
            self.order(),
        ]
        .map(|words| Buffer::new(&words));
        let (x_scales, w_scales) = (Buffer::new(&self.x.scales), Buffer::new(&scales));
        let grouped = self.counts.len() > 1;
        let tiles_there = self.pairs().div_ceil(TILE) + if grouped { self.counts.len() } else { 0 };
        let sizes = [
            self.counts.len(),
            self.pairs(),
            self.sharing.unwrap_or(1),
            self.inner,
            self.outer,
            out_stride,
        ]
        .map(|size| size as u32);
        let mut arguments: Vec<&dyn Argument> = vec![&x, &x_scales, &w, &w_scales, &out];
        arguments.extend(if grouped {
            [&starts as &dyn Argument, &tiles]
        } else {
            [&NULL as &dyn Argument, &NULL]
        });
        arguments.push(if self.sharing.is_some() { &order } else { &NULL });
        arguments.extend(sizes.iter().map(|size| size as &dyn Argument));
        let grid = [self.outer / TILE, tiles_there, 1].map(|size| size as u32);
        launch("grouped_gemm_fp8", Shape(grid, 256, SHARED), &arguments);
        out.to_vec()
    }

    #[track_caller]
    fn check(&self, found: &[u16], out_stride: usize) {
        let (found, starts) = (widen(found), self.starts(1));
        let groups = self.inner / GROUP;
        for place in 0..self.pairs() {
            let expert = starts
                .iter()
                .rposition(|start| *start as usize <= place)
                .expect("a group");
            let (row, weights) = (self.source(place), &self.weights[expert]);
            let scaled = |codes: &[u8], scales: &[f32]| -> Vec<f64> {
                let number = |(at, code): (usize, &u8)| f64::from(decode(*code)) * f64::from(scales[at / GROUP]);
                codes.iter().enumerate().map(number).collect()
            };
            let x = scaled(
                &self.x.codes[row * self.inner..][..self.inner],
                &self.x.scales[row * groups..],
            );
            for o in 0..self.outer {
                let w = scaled(
                    &weights.codes[o * self.inner..][..self.inner],
                    &weights.scales[o / GROUP * groups..],
                );
                let (mut exact, mut amount) = (0.0, 0.0);
                for (x, w) in x.iter().zip(&w) {
                    exact += x * w;
                    amount += (x * w).abs();
                }
                // Half a step of bf16, and single precision's roundings before it.
                let within = exact.abs() / 256.0 + amount * 2.0_f64.powi(-24) * (8 + groups) as f64;
                let apart = (f64::from(found[place * out_stride + o]) - exact).abs();
                assert!(apart <= within * 1.01, "{place} {o}: {apart} of {exact}");
            }
            let beyond = &found[place * out_stride + self.outer..(place + 1) * out_stride];
            assert!(
                beyond.iter().all(|x| x.is_nan()),
                "nothing is written beside the output"
            );
        }
    }
}

/// Bytes as words: buffers are aligned by their length.
fn words(bytes: &[u8]) -> Vec<u32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word))
        .collect()
}

#[rstest]
#[case::one_group(&[5], None, (128, 128))]
#[case::more_than_a_tile(&[130], None, (384, 256))]
#[case::borders(&[1, 0, 127, 128, 129, 0, 0, 2], None, (256, 128))]
#[case::taken(&[3, 0, 130, 40, 1, 66], Some(3), (512, 128))]
#[case::empty_ends(&[0, 4, 2, 0], Some(2), (128, 256))]
fn rows_meet_their_groups_weights(
    #[case] counts: &[usize],
    #[case] sharing: Option<usize>,
    #[case] sides: (usize, usize),
) {
    let problem = Problem::new(counts, sharing, sides);
    for stride in [sides.1, sides.1 + 24] {
        let found = in_every_order(|| problem.found(stride));
        problem.check(&found, stride);
    }
}

#[test]
fn nothing_waits_for_a_bank_of_shared_memory() {
    let problem = Problem::new(&[40, 100], Some(2), (384, 128));
    assert_eq!(bank_conflicts(|| drop(problem.found(128))), 0);
}

#[test]
fn a_row_that_is_not_finite_spoils_itself_alone() {
    let mut problem = Problem::new(&[9, 4], None, (256, 128));
    problem.x.codes[3 * 256 + 130] = 0x7f;
    problem.x.scales[11 * 2] = f32::INFINITY;
    let found = problem.found(128);
    for (row, x) in widen(&found).chunks_exact(128).enumerate() {
        let spoilt = x.iter().filter(|x| !x.is_finite()).count();
        assert_eq!(spoilt, if row == 3 || row == 11 { 128 } else { 0 }, "row {row}");
    }
}
