//! Attention against the formula in double precision, every element within what the roundings on its way can have done to it.

use crate::{
    emulator::{Argument, Buffer, Shape, bank_conflicts, in_every_order, launch},
    numbers::{bits, widen},
};
use kernels::rng;
use rstest::rstest;

/// Half a step of bf16, relative.
const HALF_STEP: f64 = 1.0 / 256.0;
const TILE: usize = 128;

/// Some sequences of tokens, each a row of queries, keys and values side by side.
struct Problem {
    sequences: usize,
    seq_len: usize,
    heads: usize,
    kv_heads: usize,
    dim: usize,
    rows: Vec<u16>,
}

impl Problem {
    /// Queries are `sharpness` times normal: the larger, the more a single key counts.
    fn new(
        (sequences, seq_len): (usize, usize),
        (heads, kv_heads): (usize, usize),
        dim: usize,
        sharpness: f32,
    ) -> Self {
        let width = (heads + 2 * kv_heads) * dim;
        let mut rows = rng::normal((seq_len * 1000 + heads * 10 + dim) as u32, sequences * seq_len * width);
        for row in rows.chunks_exact_mut(width) {
            for x in &mut row[..heads * dim] {
                *x *= sharpness;
            }
        }
        Self {
            sequences,
            seq_len,
            heads,
            kv_heads,
            dim,
            rows: bits(&rows),
        }
    }

    fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// Sequences, tokens, heads in the order of the kernels' arguments.
    fn sizes(&self, out_stride: usize) -> [u32; 6] {
        let width = self.width();
        [width, width, out_stride, self.heads, self.kv_heads, self.seq_len].map(|size| size as u32)
    }

    /// Outputs of all tokens, with a gap after each row that must stay as it was.
    fn attended(&self) -> Vec<u16> {
        let rows = Buffer::new(&self.rows);
        let width = self.heads * self.dim;
        let out = Buffer::new(&vec![0xaaaa_u16; self.sequences * self.seq_len * (width + 8)]);
        let sizes = self.sizes(width + 8);
        let places = [0, width, width + self.kv_heads * self.dim].map(|place| rows.at(place));
        let mut arguments: Vec<&dyn Argument> = places.iter().map(|place| place as &dyn Argument).collect();
        arguments.push(&out);
        arguments.extend(sizes.iter().map(|size| size as &dyn Argument));
        let scale = self.scale();
        arguments.push(&scale);
        let grid = [self.seq_len.div_ceil(TILE), self.heads, self.sequences].map(|size| size as u32);
        launch(
            &format!("attention_{}", self.dim),
            Shape(grid, 128, 768 * self.dim as u32),
            &arguments,
        );
        assert!(
            out.chunks_exact(width + 8)
                .all(|row| row[width..].iter().all(|&x| x == 0xaaaa))
        );
        out.chunks_exact(width + 8)
            .flat_map(|row| &row[..width])
            .copied()
            .collect()
    }

    /// Outputs of each sequence's last token; its query is given in a row of its own.
    fn attended_last(&self) -> Vec<u16> {
        let (width, q_width) = (self.width(), self.heads * self.dim);
        let last = |rows: &[u16]| rows[(self.seq_len - 1) * width..][..q_width].to_vec();
        let queries: Vec<u16> = self.rows.chunks_exact(self.seq_len * width).flat_map(last).collect();
        let (rows, queries) = (Buffer::new(&self.rows), Buffer::new(&queries));
        let out = Buffer::new(&vec![0xaaaa_u16; self.sequences * q_width]);
        let (k, v) = (rows.at(q_width), rows.at(q_width + self.kv_heads * self.dim));
        let [_, kv_stride, out_stride, heads, kv_heads, seq_len] = self.sizes(q_width);
        launch(
            "attention_last",
            Shape([self.heads as u32, self.sequences as u32, 1], 256, 0),
            &[
                &queries,
                &k,
                &v,
                &out,
                &out_stride,
                &kv_stride,
                &out_stride,
                &heads,
                &kv_heads,
                &seq_len,
                &(self.dim as u32),
                &self.scale(),
            ],
        );
        out.to_vec()
    }

    /// Each element of a token's output, and the sum of what its values weigh.
    fn expected(&self, sequence: usize, token: usize) -> Vec<(f64, f64)> {
        let (dim, width) = (self.dim, self.width());
        let row = |token: usize| widen(&self.rows[(sequence * self.seq_len + token) * width..][..width]);
        let rows: Vec<Vec<f32>> = (0..=token).map(row).collect();
        let mut outputs = Vec::new();
        for head in 0..self.heads {
            let k = (self.heads + head / (self.heads / self.kv_heads)) * dim;
            let v = k + self.kv_heads * dim;
            let query = &rows[token][head * dim..][..dim];
            let score = |row: &Vec<f32>| {
                let products = query.iter().zip(&row[k..]).map(|(q, k)| f64::from(*q) * f64::from(*k));
                products.sum::<f64>() * f64::from(self.scale())
            };
            let scores: Vec<f64> = rows.iter().map(score).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for element in 0..dim {
                let terms = rows
                    .iter()
                    .zip(&weights)
                    .map(|(row, weight)| weight / total * f64::from(row[v + element]));
                outputs.push(terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs())));
            }
        }
        outputs
    }
}

/// `probabilities`: how far, relative, a probability may be from the exact one.
#[track_caller]
fn assert_within(found: &[u16], expected: &[(f64, f64)], probabilities: f64) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, (exact, size))) in widen(found).into_iter().zip(expected).enumerate() {
        let allowed = 1.01 * (HALF_STEP * exact.abs() + probabilities * size) + 1e-30;
        let distance = (f64::from(found) - exact).abs();
        assert!(
            distance <= allowed,
            "element {at}: {found} instead of {exact}, {distance} is more than {allowed}"
        );
    }
}

/// Probabilities are rounded to bf16; scores in single precision are off by some of its steps, more when they are large.
#[rstest]
fn every_token_attends_to_those_before_it(
    #[values(16, 32, 64, 128)] dim: usize,
    #[values(1, 7, 64, 65, 128, 200)] seq_len: usize,
    #[values((2, 2), (4, 2), (8, 1))] heads: (usize, usize),
) {
    let problem = Problem::new((2, seq_len), heads, dim, 1.0);
    let found = in_every_order(|| problem.attended());
    for (row, found) in found.chunks_exact(heads.0 * dim).enumerate() {
        let expected = problem.expected(row / seq_len, row % seq_len);
        assert_within(found, &expected, HALF_STEP + 1e-5);
    }
}

/// Scores up to a few thousand: without the largest taken off, nothing of them could be held.
#[rstest]
fn large_scores_are_held(#[values(16, 32, 64, 128)] dim: usize) {
    let problem = Problem::new((1, 200), (2, 1), dim, 400.0);
    for (token, found) in problem.attended().chunks_exact(2 * dim).enumerate() {
        assert_within(found, &problem.expected(0, token), HALF_STEP + 5e-3);
    }
    assert_within(&problem.attended_last(), &problem.expected(0, 199), 5e-3);
}

/// Every score is hundreds below zero: a key that is not there and counted with a score of zero would be all that is seen.
#[rstest]
fn scores_far_below_zero_are_no_less_than_those_of_keys_that_are_not_there(
    #[values(16, 32, 64, 128)] dim: usize,
    #[values(1, 5, 65, 130, 200)] seq_len: usize,
) {
    let mut problem = Problem::new((2, seq_len), (2, 1), dim, 1.0);
    let (width, keys) = (problem.width(), 2 * dim..3 * dim);
    for row in problem.rows.chunks_exact_mut(width) {
        row[..2 * dim].fill(bits(&[40.0])[0]);
        for key in &mut row[keys.clone()] {
            *key = bits(&[-40.0 + widen(&[*key])[0]])[0];
        }
    }
    let found = problem.attended();
    for (row, found) in found.chunks_exact(2 * dim).enumerate() {
        assert_within(found, &problem.expected(row / seq_len, row % seq_len), HALF_STEP + 5e-3);
    }
    for (sequence, found) in problem.attended_last().chunks_exact(2 * dim).enumerate() {
        assert_within(found, &problem.expected(sequence, seq_len - 1), 5e-3);
    }
}

#[rstest]
fn the_last_token_attends_to_all(
    #[values(16, 24, 32, 64, 128, 256)] dim: usize,
    #[values(1, 7, 64, 65, 200, 1024)] seq_len: usize,
    #[values((2, 2), (4, 2), (8, 1))] heads: (usize, usize),
) {
    let problem = Problem::new((2, seq_len), heads, dim, 1.0);
    let found = in_every_order(|| problem.attended_last());
    for (sequence, found) in found.chunks_exact(heads.0 * dim).enumerate() {
        assert_within(found, &problem.expected(sequence, seq_len - 1), 2e-5);
    }
}

/// To the bit: what comes later, and the other sequence, do not touch a token.
#[rstest]
fn a_token_sees_nothing_behind_it_and_nobody_elses(
    #[values(16, 32, 64, 128)] dim: usize,
    #[values(1, 63, 64, 127, 130)] changed: usize,
) {
    let mut problem = Problem::new((2, 150), (2, 1), dim, 1.0);
    let before = problem.attended();
    let width = problem.width();
    for x in &mut problem.rows[changed * width..][..width] {
        *x ^= 0x8000;
    }
    let after = problem.attended();
    let (row, width) = (changed * 2 * dim, 150 * 2 * dim);
    assert!(before[..row] == after[..row] && before[width..] == after[width..]);
    assert!(
        before[row..width]
            .chunks(2 * dim)
            .zip(after[row..width].chunks(2 * dim))
            .all(|(a, b)| a != b)
    );
}

/// A key that is no number spoils those that see it. In its own tile of keys it may spoil others, which weigh it with zero.
#[rstest]
fn what_is_no_number_is_seen_by_the_last_token(#[values(16, 32, 64, 128)] dim: usize, #[values(0, 80, 149)] at: usize) {
    for kind in 0..3 {
        let mut problem = Problem::new((1, 150), (1, 1), dim, 1.0);
        let place = at * problem.width() + kind * dim + 3;
        problem.rows[place] = 0x7fc0;
        let found = widen(&problem.attended());
        let (spoilt, last) = (&found[at * dim..][..dim], &found[149 * dim..]);
        assert!(spoilt.iter().any(|x| x.is_nan()), "kind {kind}");
        assert!(kind == 0 || last.iter().any(|x| x.is_nan()), "kind {kind}");
        assert!(found[..at / 64 * 64 * dim].iter().all(|x| x.is_finite()), "kind {kind}");
        assert!(
            kind == 0 || widen(&problem.attended_last()).iter().any(|x| x.is_nan()),
            "kind {kind}"
        );
    }
}

#[rstest]
fn no_tile_is_read_through_one_bank_twice(#[values(16, 32, 64, 128)] dim: usize) {
    let problem = Problem::new((1, 200), (1, 1), dim, 1.0);
    assert_eq!(
        bank_conflicts(|| {
            problem.attended();
        }),
        0
    );
}
