//! Causal self-attention with grouped key/value heads and rotary positions. Scores, softmax and the weighted sum of
//! values are in single precision.

use super::{
    Config,
    arithmetic::{Arithmetic, F32},
    norm,
    weights::{Source, round_norm},
};
use crate::{
    linear::Linear,
    vector::{self, LANES},
};

#[derive(Debug, Clone)]
pub(super) struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    /// Weights of the per-head norms of queries and keys.
    qk_norm: Option<(Vec<f32>, Vec<f32>)>,
    head_dim: usize,
    group: usize,
    eps: f64,
}

/// Queries whose scores are in memory at a time.
const TILE: usize = 64;

/// Buffers: queries, keys and values by token, one key head as linear maps, one tile of queries with its scores, the
/// heads' outputs.
#[derive(Debug, Default)]
pub(super) struct Work {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    keys: Linear,
    values: Linear,
    queries: Vec<f32>,
    scores: Vec<f32>,
    outputs: Vec<f32>,
    heads: Vec<f32>,
}

impl Attention {
    pub(super) fn build(source: &Source<'_>, prefix: &str, config: &Config) -> Self {
        let (hidden, q, kv) = (
            config.hidden,
            config.heads * config.head_dim,
            config.kv_heads * config.head_dim,
        );
        Self {
            q: source.linear(&format!("{prefix}.q_proj"), q, hidden),
            k: source.linear(&format!("{prefix}.k_proj"), kv, hidden),
            v: source.linear(&format!("{prefix}.v_proj"), kv, hidden),
            o: source.linear(&format!("{prefix}.o_proj"), hidden, q),
            qk_norm: config.qk_norm.then(|| {
                let norm = |name: &str| source.norm(&format!("{prefix}.{name}"), config.head_dim);
                (norm("q_norm"), norm("k_norm"))
            }),
            head_dim: config.head_dim,
            group: config.heads / config.kv_heads,
            eps: config.eps,
        }
    }

    pub(super) fn round(&mut self) {
        for linear in [&mut self.q, &mut self.k, &mut self.v, &mut self.o] {
            linear.round();
        }
        if let Some((q, k)) = &mut self.qk_norm {
            round_norm(q);
            round_norm(k);
        }
    }

    /// `x` holds all tokens of some sequences, `asking` those of each from `first` on, which `out` receives.
    pub(super) fn forward<A: Arithmetic>(
        &self,
        (x, asking): (&[f32], &[f32]),
        first: usize,
        rope: &Rope,
        work: &mut Work,
        out: &mut [f32],
    ) {
        let rows = |x: &[f32]| x.len() / self.q.inp();
        work.q.resize(rows(asking) * self.q.out(), 0.0);
        work.k.resize(rows(x) * self.k.out(), 0.0);
        work.v.resize(rows(x) * self.v.out(), 0.0);
        work.heads.resize(work.q.len(), 0.0);
        self.q.forward::<A>(asking, &mut work.q);
        self.k.forward::<A>(x, &mut work.k);
        self.v.forward::<A>(x, &mut work.v);
        if let Some((q, k)) = &self.qk_norm {
            norm::rms_in_place::<A>(&mut work.q, q, self.eps);
            norm::rms_in_place::<A>(&mut work.k, k, self.eps);
        }
        rope.turn::<A>(&mut work.q, self.q.out(), first);
        rope.turn::<A>(&mut work.k, self.k.out(), 0);
        for sequence in 0..rows(x) / rope.positions() {
            for key_head in 0..self.k.out() / self.head_dim {
                self.attend::<A>((sequence, rope.positions()), key_head, first, work);
            }
        }
        self.o.forward::<A>(&work.heads, out);
    }

    /// All queries of a sequence that look at one key head: its keys map a query to scores, its values map probabilities to an output. A
    /// tile of queries sees the keys up to its last one; what a query must not see has probability zero, which adds nothing.
    fn attend<A: Arithmetic>(
        &self,
        (sequence, tokens): (usize, usize),
        key_head: usize,
        first: usize,
        work: &mut Work,
    ) {
        let (dim, width, key_width) = (self.head_dim, self.q.out(), self.k.out());
        let Work {
            q,
            k,
            v,
            heads,
            keys,
            values,
            queries,
            scores,
            outputs,
        } = work;
        let at = key_head * dim;
        let k = &k[sequence * tokens * key_width..][..tokens * key_width];
        let v = &v[sequence * tokens * key_width..][..tokens * key_width];
        keys.refill(tokens, dim, |token, row| {
            row.copy_from_slice(&k[token * key_width + at..][..dim]);
        });
        values.refill_columns(dim, tokens.next_multiple_of(LANES), |token| {
            let first = token * key_width + at;
            v.get(first..first + dim).unwrap_or_default()
        });
        for head in key_head * self.group..(key_head + 1) * self.group {
            for tile in (0..tokens - first).step_by(TILE) {
                let rows = TILE.min(tokens - first - tile);
                let visible = first + tile + rows;
                let padded = visible.next_multiple_of(LANES);
                let place = |row: usize| (sequence * (tokens - first) + tile + row) * width + head * dim;
                queries.clear();
                for row in 0..rows {
                    queries.extend_from_slice(&q[place(row)..][..dim]);
                }
                scores.resize(rows * padded, 0.0);
                keys.forward_part::<F32>(padded, dim, queries, scores);
                probabilities(scores, visible, rows, 1.0 / (dim as f32).sqrt());
                outputs.resize(rows * dim, 0.0);
                values.forward_part::<A>(dim, padded, scores, outputs);
                for (row, out) in outputs.chunks_exact(dim).enumerate() {
                    heads[place(row)..][..dim].copy_from_slice(out);
                }
            }
        }
    }
}

/// Scores to probabilities, in rows padded for vector units: the last row sees `visible` keys, each row before it one fewer.
fn probabilities(scores: &mut [f32], visible: usize, rows: usize, scale: f32) {
    let padded = scores.len() / rows;
    vector::widest(
        #[inline(always)]
        || {
            for score in &mut *scores {
                *score *= scale;
            }
            for (row, scores) in scores.chunks_exact_mut(padded).enumerate() {
                scores[visible - (rows - 1 - row)..].fill(f32::NEG_INFINITY);
            }
            vector::softmax(scores, padded);
        },
    );
}

/// Cosine and sine of each position and pair, position by position: pairs are the two halves of a head, angles single precision.
pub(crate) fn angles(head_dim: usize, theta: f64, positions: usize) -> Vec<(f32, f32)> {
    let half = head_dim / 2;
    let frequency = |pair: usize| theta.powf(-(2.0 * pair as f64) / head_dim as f64) as f32;
    (0..positions)
        .flat_map(|position| (0..half).map(move |pair| (position, pair)))
        .map(|(position, pair)| {
            let (sin, cos) = (position as f32 * frequency(pair)).sin_cos();
            (cos, sin)
        })
        .collect()
}

/// Cosines and sines of the rotary embedding.
#[derive(Debug)]
pub(super) struct Rope {
    head_dim: usize,
    /// [position][half of the head] of (cosine, sine).
    table: Vec<(f32, f32)>,
}

impl Rope {
    pub(super) fn new(config: &Config, positions: usize) -> Self {
        let table = angles(config.head_dim, config.theta, positions);
        Self {
            head_dim: config.head_dim,
            table,
        }
    }

    fn positions(&self) -> usize {
        self.table.len() / (self.head_dim / 2)
    }

    /// Turns rows of `width` elements (whole heads); the first row of each sequence stands at position `first`.
    fn turn<A: Arithmetic>(&self, rows: &mut [f32], width: usize, first: usize) {
        let half = self.head_dim / 2;
        let table = &self.table[first * half..];
        vector::widest(
            #[inline(always)]
            || {
                for rows in rows.chunks_exact_mut(table.len() / half * width) {
                    for (row, angles) in rows.chunks_exact_mut(width).zip(table.chunks_exact(half)) {
                        for head in row.chunks_exact_mut(self.head_dim) {
                            let (left, right) = head.split_at_mut(half);
                            for ((left, right), (cos, sin)) in left.iter_mut().zip(right).zip(angles) {
                                let (x, y) = (*left, *right);
                                *left = A::round(x * cos - y * sin);
                                *right = A::round(y * cos + x * sin);
                            }
                        }
                    }
                }
            },
        );
    }
}
