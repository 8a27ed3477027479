//! Attention of one layer: projections in eight bits, the rest as in [`crate::decoder`], written out.

use super::{Matrix, QkNorm, Shape, Source};
use crate::{
    decoder::{Arithmetic, Bf16, angles, rms},
    fp8::{Blocks, Rows},
    vector,
};

#[derive(Debug, Clone)]
pub(super) struct Attention {
    q: Blocks,
    k: Blocks,
    v: Blocks,
    o: Blocks,
    q_norm: Vec<f32>,
    k_norm: Vec<f32>,
}

impl Attention {
    pub(super) fn new(source: &dyn Source, shape: &Shape, layer: usize) -> Self {
        let matrix = |matrix| source.matrix(shape, layer, matrix).into_owned();
        let norm = |name: &str, whole: usize| {
            let width = match shape.qk_norm {
                QkNorm::Heads => shape.head_dim,
                QkNorm::Whole => whole,
            };
            source.norm(&format!("layers.{layer}.self_attn.{name}"), width)
        };
        Self {
            q: matrix(Matrix::Q),
            k: matrix(Matrix::K),
            v: matrix(Matrix::V),
            o: matrix(Matrix::O),
            q_norm: norm("q_norm", shape.q_width()),
            k_norm: norm("k_norm", shape.kv_width()),
        }
    }

    /// Sequences of `seq_len` normed rows to as many rows.
    pub(super) fn forward(&self, shape: &Shape, normed: &[f32], seq_len: usize, rounded: bool) -> Vec<f32> {
        let rows = Rows::quantise(normed, shape.hidden);
        let turns = angles(shape.rotary, shape.theta, seq_len);
        let prepared = |map: &Blocks, norm: &[f32]| {
            let x = map.forward(&rows);
            let mut out = vec![0.0; x.len()];
            rms::<Bf16>(&x, norm, f64::from(shape.eps), &mut out);
            turn(&mut out, (map.out(), shape.head_dim), &turns, seq_len);
            out
        };
        let (q, k, v) = (
            prepared(&self.q, &self.q_norm),
            prepared(&self.k, &self.k_norm),
            self.v.forward(&rows),
        );
        let mut heads = vec![0.0; q.len()];
        let (q_rows, kv_rows) = (seq_len * shape.q_width(), seq_len * shape.kv_width());
        for (sequence, heads) in heads.chunks_exact_mut(q_rows).enumerate() {
            attend(
                shape,
                &q[sequence * q_rows..][..q_rows],
                [&k, &v].map(|x| &x[sequence * kv_rows..][..kv_rows]),
                heads,
                rounded,
            );
        }
        self.o.forward(&Rows::quantise(&heads, shape.q_width()))
    }
}

/// Turns the first elements of each head, pairs being the two halves of what is turned.
fn turn(rows: &mut [f32], (width, head_dim): (usize, usize), turns: &[(f32, f32)], seq_len: usize) {
    let half = turns.len() / seq_len;
    for (row, x) in rows.chunks_exact_mut(width).enumerate() {
        let turns = &turns[row % seq_len * half..][..half];
        for head in x.chunks_exact_mut(head_dim) {
            for (pair, (cos, sin)) in turns.iter().enumerate() {
                let (left, right) = (head[pair], head[pair + half]);
                head[pair] = Bf16::round(left * cos - right * sin);
                head[pair + half] = Bf16::round(right * cos + left * sin);
            }
        }
    }
}

/// Causal attention of one sequence; scores and sums in single precision, probabilities relative to the largest and, where `rounded`, in
/// bf16 when they meet the values, as kernels for whole sequences have them.
fn attend(shape: &Shape, q: &[f32], [k, v]: [&[f32]; 2], heads: &mut [f32], rounded: bool) {
    let (dim, group, scale) = (
        shape.head_dim,
        shape.heads / shape.kv_heads,
        1.0 / (shape.head_dim as f32).sqrt(),
    );
    let rows = q
        .chunks_exact(shape.q_width())
        .zip(heads.chunks_exact_mut(shape.q_width()));
    for (token, (q, heads)) in rows.enumerate() {
        for (head, (q, out)) in q.chunks_exact(dim).zip(heads.chunks_exact_mut(dim)).enumerate() {
            let place = |key: usize| key * shape.kv_width() + head / group * dim;
            let scores: Vec<f32> = (0..=token)
                .map(|key| vector::sum_of_pairs(q, &k[place(key)..][..dim], |q, k| q * k) * scale)
                .collect();
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for (key, score) in scores.iter().enumerate() {
                let probability = vector::exp(score - largest);
                sum += probability;
                let met = if rounded { Bf16::round(probability) } else { probability };
                for (out, v) in out.iter_mut().zip(&v[place(key)..][..dim]) {
                    *out += met * v;
                }
            }
            for out in out {
                *out = Bf16::round(*out / sum);
            }
        }
    }
}
