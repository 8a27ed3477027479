//! One block of the transformer (`docs/poc-v1.md`, section 3.3), its weights cut from the pool where they are used and dropped
//! after: no more than one matrix is in memory in single precision.

use super::{
    attention::{Heads, Rope},
    params::{Params, TensorSpec},
    pool::Pool,
};
use crate::{
    decoder::{Arithmetic as _, F16, gate_by},
    linear::Linear,
};

/// Feed-forward columns computed at a time.
const INNER: usize = 2048;

/// Buffers of a forward pass over some sequences of equal length.
#[derive(Debug, Default)]
pub(super) struct Work {
    linear: Linear,
    normed: Vec<f32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    heads: Vec<f32>,
    scores: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    sum: Vec<f32>,
}

impl Work {
    pub(super) fn linear_mut(&mut self) -> &mut Linear {
        &mut self.linear
    }
}

/// What every block of a model shares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) params: &'a Params,
    pub(super) pool: &'a Pool,
    pub(super) rope: &'a Rope,
}

impl Block<'_> {
    /// Runs block `layer` over `sequences` sequences. With `last_only` the state shrinks to the last token of each: nothing
    /// after the last block looks at the others.
    pub(super) fn run(self, layer: usize, last_only: bool, sequences: usize, state: &mut Vec<f32>, work: &mut Work) {
        let (dim, kv) = (self.params.dim, self.params.kv_dim());
        let name = |tensor: &str| format!("layers.{layer}.{tensor}.weight");
        self.norm(&name("attention_norm"), state, &mut work.normed);
        self.linear(
            &name("attention.wk"),
            kv,
            &work.normed,
            &mut work.linear,
            &mut work.keys,
        );
        self.linear(
            &name("attention.wv"),
            kv,
            &work.normed,
            &mut work.linear,
            &mut work.values,
        );
        if last_only {
            keep_last(state, sequences, dim);
            keep_last(&mut work.normed, sequences, dim);
        }
        self.linear(
            &name("attention.wq"),
            dim,
            &work.normed,
            &mut work.linear,
            &mut work.queries,
        );
        self.attend(sequences, work);
        self.linear(&name("attention.wo"), dim, &work.heads, &mut work.linear, &mut work.sum);
        add(state, &work.sum);
        self.norm(&name("ffn_norm"), state, &mut work.normed);
        self.feed_forward(layer, work);
        add(state, &work.sum);
    }

    /// y = W x, accumulated in single precision, rounded once.
    pub(super) fn linear(self, tensor: &str, out: usize, x: &[f32], linear: &mut Linear, y: &mut Vec<f32>) {
        let dim = self.params.dim;
        let weights = self.pool.tensor(&spec(tensor, &[out, dim]));
        linear.refill(out, dim, |row, to| weights.widen(row * dim, to));
        y.resize(x.len() / dim * out, 0.0);
        linear.forward::<F16>(x, y);
    }

    /// Root-mean-square norm in single precision, rounded, times the weight.
    pub(super) fn norm(self, tensor: &str, x: &[f32], out: &mut Vec<f32>) {
        let dim = self.params.dim;
        let mut weight = vec![0.0; dim];
        self.pool.tensor(&spec(tensor, &[dim])).widen(0, &mut weight);
        out.resize(x.len(), 0.0);
        crate::decoder::rms::<F16>(x, &weight, self.params.norm_eps, out);
    }

    fn attend(self, sequences: usize, work: &mut Work) {
        let (heads, tokens) = (Heads::of(self.params), self.params.seq_len);
        let queries = work.queries.len() / sequences;
        let keys = tokens * heads.key_width;
        work.heads.resize(work.queries.len(), 0.0);
        for sequence in 0..sequences {
            let q = &mut work.queries[sequence * queries..][..queries];
            let k = &mut work.keys[sequence * keys..][..keys];
            self.rope
                .turn(q, heads.query_width, tokens - queries / heads.query_width);
            self.rope.turn(k, heads.key_width, 0);
            let (v, out) = (
                &work.values[sequence * keys..][..keys],
                &mut work.heads[sequence * queries..][..queries],
            );
            heads.attend(q, k, v, &mut work.scores, out);
        }
    }

    /// w2(silu(w1 x) * (w3 x)) into `work.sum`, some inner columns at a time.
    fn feed_forward(self, layer: usize, work: &mut Work) {
        let (dim, inner) = (self.params.dim, self.params.ffn_hidden());
        let tensor = |name: &str, shape: &[usize]| {
            self.pool
                .tensor(&spec(&format!("layers.{layer}.feed_forward.{name}.weight"), shape))
        };
        let (gate, down, up) = (
            tensor("w1", &[inner, dim]),
            tensor("w2", &[dim, inner]),
            tensor("w3", &[inner, dim]),
        );
        let rows = work.normed.len() / dim;
        work.sum.clear();
        work.sum.resize(rows * dim, 0.0);
        for first in (0..inner).step_by(INNER) {
            let columns = INNER.min(inner - first);
            for (weights, y) in [(gate, &mut work.gate), (up, &mut work.up)] {
                let refill = |row: usize, to: &mut [f32]| weights.widen((first + row) * dim, to);
                work.linear.refill(columns, dim, refill);
                y.resize(rows * columns, 0.0);
                work.linear.forward::<F16>(&work.normed, y);
            }
            gate_by::<F16>(&mut work.gate, &work.up);
            let refill = |row: usize, to: &mut [f32]| down.widen(row * inner + first, to);
            work.linear.refill(dim, columns, refill);
            work.linear.accumulate(&work.gate, &mut work.sum);
        }
        for x in &mut work.sum {
            *x = F16::round(*x);
        }
    }
}

fn spec(name: &str, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: name.to_owned(),
        shape: shape.to_vec(),
    }
}

fn add(state: &mut [f32], y: &[f32]) {
    for (x, y) in state.iter_mut().zip(y) {
        *x = F16::round(*x + y);
    }
}

/// Cuts the rows of equally long sequences down to the last of each.
pub(super) fn keep_last(rows: &mut Vec<f32>, sequences: usize, width: usize) {
    let len = rows.len() / sequences;
    for sequence in 0..sequences {
        let end = (sequence + 1) * len;
        rows.copy_within(end - width..end, sequence * width);
    }
    rows.truncate(sequences * width);
}
