//! Causal attention as the reference materialises it (`docs/poc-v1.md`, section 3.3): scores, their scaling, probabilities and
//! outputs each rounded to half precision; softmax in single precision.

use super::params::Params;
use crate::{
    decoder::{Arithmetic as _, F16},
    vector::{softmax, widest},
};

/// Cosines and sines of the rotary embedding in single precision, [position][pair of the head]: the caller rounds them.
pub fn rope(params: &Params, positions: usize) -> Vec<(f32, f32)> {
    let width = params.head_dim() as f32;
    let theta = params.rope_theta as f32;
    let frequency = |pair: usize| 1.0 / theta.powf((2 * pair) as f32 / width);
    (0..positions)
        .flat_map(|position| (0..params.head_dim() / 2).map(move |pair| (position, pair)))
        .map(|(position, pair)| {
            let angle = position as f32 * frequency(pair);
            (angle.cos(), angle.sin())
        })
        .collect()
}

/// The half-precision table of a model.
#[derive(Debug)]
pub(super) struct Rope {
    pairs: usize,
    table: Vec<(f32, f32)>,
}

impl Rope {
    pub(super) fn new(params: &Params) -> Self {
        let round = |(cos, sin): (f32, f32)| (F16::round(cos), F16::round(sin));
        Self {
            pairs: params.head_dim() / 2,
            table: rope(params, params.seq_len).into_iter().map(round).collect(),
        }
    }

    /// Turns rows of `width` elements, whole heads, of one sequence; the first stands at position `first`. Pairs are
    /// neighbours.
    pub(super) fn turn(&self, rows: &mut [f32], width: usize, first: usize) {
        let angles = self.table.chunks_exact(self.pairs).skip(first);
        for (row, angles) in rows.chunks_exact_mut(width).zip(angles) {
            for head in row.chunks_exact_mut(2 * self.pairs) {
                for (pair, (cos, sin)) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                    let [x, y] = *pair;
                    *pair = [F16::round(x * cos - y * sin), F16::round(x * sin + y * cos)];
                }
            }
        }
    }
}

/// Shape of one sequence's attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) head_dim: usize,
    pub(super) query_width: usize,
    pub(super) key_width: usize,
    /// Query heads per key head.
    pub(super) group: usize,
}

impl Heads {
    pub(super) fn of(params: &Params) -> Self {
        Self {
            head_dim: params.head_dim(),
            query_width: params.dim,
            key_width: params.kv_dim(),
            group: params.n_heads / params.n_kv_heads,
        }
    }

    /// The queries of one sequence, which end at its last token, over its keys and values.
    pub(super) fn attend(self, q: &[f32], k: &[f32], v: &[f32], scores: &mut Vec<f32>, out: &mut [f32]) {
        let hidden_before = k.len() / self.key_width - q.len() / self.query_width;
        let root = (self.head_dim as f64).sqrt() as f32;
        let rows = q
            .chunks_exact(self.query_width)
            .zip(out.chunks_exact_mut(self.query_width));
        for (query, (q, out)) in rows.enumerate() {
            let visible = hidden_before + query + 1;
            let by_head = q.chunks_exact(self.head_dim).zip(out.chunks_exact_mut(self.head_dim));
            for (head, (q, out)) in by_head.enumerate() {
                let at = head / self.group * self.head_dim;
                let part = |row: usize| row * self.key_width + at..row * self.key_width + at + self.head_dim;
                scores.clear();
                scores.extend((0..visible).map(|row| {
                    let dot: f32 = q.iter().zip(&k[part(row)]).map(|(q, k)| q * k).sum();
                    F16::round(F16::round(dot) / root)
                }));
                widest(
                    #[inline(always)]
                    || softmax(scores, visible),
                );
                out.fill(0.0);
                for (row, weight) in scores.iter().enumerate() {
                    let weight = F16::round(*weight);
                    for (out, v) in out.iter_mut().zip(&v[part(row)]) {
                        *out += weight * v;
                    }
                }
                for out in out {
                    *out = F16::round(*out);
                }
            }
        }
    }
}
