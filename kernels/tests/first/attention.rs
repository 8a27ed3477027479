//! Causal self-attention with grouped key/value heads and rotary positions. Scores, softmax and the weighted sum of
//! values are in single precision.

use super::{Arithmetic, Config, Source, linear::Linear, norm, round_norm};

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

/// Buffers: queries, keys and values by token, the scores of one query, the heads' outputs.
#[derive(Debug, Default)]
pub(super) struct Work {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    scores: Vec<f32>,
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

    /// `x` holds all tokens; `out` receives those from `first` on.
    pub(super) fn forward<A: Arithmetic>(
        &self,
        x: &[f32],
        first: usize,
        rope: &Rope,
        work: &mut Work,
        out: &mut [f32],
    ) {
        let tokens = rope.positions();
        let width = x.len() / tokens;
        let queries = tokens - first;
        work.q.resize(queries * self.q.out(), 0.0);
        work.k.resize(tokens * self.k.out(), 0.0);
        work.v.resize(tokens * self.v.out(), 0.0);
        work.heads.resize(queries * self.q.out(), 0.0);
        self.q.forward::<A>(&x[first * width..], &mut work.q);
        self.k.forward::<A>(x, &mut work.k);
        self.v.forward::<A>(x, &mut work.v);
        if let Some((q, k)) = &self.qk_norm {
            norm::rms_in_place::<A>(&mut work.q, q, self.eps);
            norm::rms_in_place::<A>(&mut work.k, k, self.eps);
        }
        rope.turn::<A>(&mut work.q, self.q.out(), first);
        rope.turn::<A>(&mut work.k, self.k.out(), 0);
        for query in 0..queries {
            self.attend::<A>(query, first + query + 1, work);
        }
        self.o.forward::<A>(&work.heads, out);
    }

    /// All heads of one query over the first `visible` tokens.
    fn attend<A: Arithmetic>(&self, query: usize, visible: usize, work: &mut Work) {
        let Work { q, k, v, scores, heads } = work;
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        let row = query * self.q.out()..(query + 1) * self.q.out();
        let by_head = q[row.clone()]
            .chunks_exact(self.head_dim)
            .zip(heads[row].chunks_exact_mut(self.head_dim));
        for (head, (q, out)) in by_head.enumerate() {
            let at = head / self.group * self.head_dim;
            scores.clear();
            scores.extend(k.chunks_exact(self.k.out()).take(visible).map(|k| {
                let dot: f32 = q.iter().zip(&k[at..at + self.head_dim]).map(|(q, k)| q * k).sum();
                dot * scale
            }));
            softmax(scores);
            out.fill(0.0);
            for (weight, v) in scores.iter().zip(v.chunks_exact(self.v.out())) {
                for (out, v) in out.iter_mut().zip(&v[at..at + self.head_dim]) {
                    *out += weight * v;
                }
            }
            for out in out {
                *out = A::round(*out);
            }
        }
    }
}

/// Softmax in place, in single precision.
pub(super) fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}

/// Cosines and sines of the rotary embedding: pairs are the two halves of a head, angles single precision.
#[derive(Debug)]
pub(super) struct Rope {
    head_dim: usize,
    /// [position][half of the head] of (cosine, sine).
    table: Vec<(f32, f32)>,
}

impl Rope {
    pub(super) fn new(config: &Config, positions: usize) -> Self {
        let half = config.head_dim / 2;
        let frequency = |pair: usize| config.theta.powf(-(2.0 * pair as f64) / config.head_dim as f64) as f32;
        let table = (0..positions)
            .flat_map(|position| (0..half).map(move |pair| (position, pair)))
            .map(|(position, pair)| {
                let (sin, cos) = (position as f32 * frequency(pair)).sin_cos();
                (cos, sin)
            })
            .collect();
        Self {
            head_dim: config.head_dim,
            table,
        }
    }

    fn positions(&self) -> usize {
        self.table.len() / (self.head_dim / 2)
    }

    /// Turns rows of `width` elements (whole heads); the first row stands at position `first`.
    fn turn<A: Arithmetic>(&self, rows: &mut [f32], width: usize, first: usize) {
        let half = self.head_dim / 2;
        let angles = self.table.chunks_exact(half).skip(first);
        for (row, angles) in rows.chunks_exact_mut(width).zip(angles) {
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
}
