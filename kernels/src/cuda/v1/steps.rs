//! Decide: the steps of a v1 forward pass in their order, and the memory they need.

use super::{Layout, Run};
use crate::{
    cuda::plan::{Arg, Buffer, Gemm, Kernel, Launch, Place, Step},
    transformer_v1::Params,
};

/// Threads of a block.
const THREADS: usize = 256;

/// Bytes of every buffer but weights and angles.
pub(super) fn sizes(params: &Params, run: &Run<'_>) -> Vec<(Buffer, u64)> {
    let (last, rows) = (run.sequences, run.sequences * params.seq_len);
    let (dim, inner) = (params.dim, params.ffn_hidden());
    let qkv = dim + 2 * params.kv_dim();
    let states = run.watched.len() * last * dim;
    // What no layer but the last one runs on all rows is not there when there is only one.
    let all = if params.n_layers > 1 { rows } else { 0 };
    [
        // Choosing algorithms draws numbers from a seed.
        (Buffer::Seeds, 128),
        (Buffer::Residual, rows * dim),
        (Buffer::Normed, rows * dim),
        (Buffer::Qkv, rows * qkv),
        (Buffer::Heads, all * dim),
        (Buffer::Hidden, all * dim),
        (Buffer::GateUp, all * 2 * inner),
        (Buffer::Inner, all * inner),
        (Buffer::LastResidual, last * dim),
        (Buffer::LastNormed, last * dim),
        (Buffer::LastQueries, last * dim),
        (Buffer::LastHeads, last * dim),
        (Buffer::LastHidden, last * dim),
        (Buffer::LastGateUp, last * 2 * inner),
        (Buffer::LastInner, last * inner),
        (Buffer::Results, states + last * params.vocab_size),
    ]
    .map(|(buffer, elements)| (buffer, 2 * elements.max(1) as u64))
    .to_vec()
}

/// All steps.
pub(super) fn of(params: &Params, layout: &Layout, run: &Run<'_>) -> Vec<Step> {
    let mut steps = Steps {
        params,
        layout,
        run,
        done: Vec::new(),
    };
    for layer in 0..params.n_layers {
        steps.layer(layer, layer + 1 == params.n_layers);
    }
    steps.logits();
    steps.done
}

struct Steps<'a> {
    params: &'a Params,
    layout: &'a Layout,
    run: &'a Run<'a>,
    done: Vec<Step>,
}

/// Where a stretch of a layer reads and writes: all rows, or the last of each sequence.
#[derive(Clone, Copy)]
struct Rows {
    count: usize,
    state: Buffer,
    normed: Buffer,
    heads: Buffer,
    sum: Buffer,
    gate_up: Buffer,
    inner: Buffer,
}

fn at(buffer: Buffer, elements: usize) -> Place {
    Place {
        buffer,
        offset: 2 * elements as u64,
    }
}

fn size(size: usize) -> Arg {
    Arg::Size(size as u32)
}

impl Steps<'_> {
    fn all_rows(&self) -> Rows {
        Rows {
            count: self.run.sequences * self.params.seq_len,
            state: Buffer::Residual,
            normed: Buffer::Normed,
            heads: Buffer::Heads,
            sum: Buffer::Hidden,
            gate_up: Buffer::GateUp,
            inner: Buffer::Inner,
        }
    }

    fn last_rows(&self) -> Rows {
        Rows {
            count: self.run.sequences,
            state: Buffer::LastResidual,
            normed: Buffer::LastNormed,
            heads: Buffer::LastHeads,
            sum: Buffer::LastHidden,
            gate_up: Buffer::LastGateUp,
            inner: Buffer::LastInner,
        }
    }

    fn layer(&mut self, layer: usize, is_last: bool) {
        let (dim, kv, tokens) = (self.params.dim, self.params.kv_dim(), self.params.seq_len);
        let (qkv, all) = (dim + 2 * kv, self.all_rows());
        let weight = |name: &str| format!("layers.{layer}.{name}.weight");
        self.norm(&weight("attention_norm"), &all);
        for (name, first, width) in [("attention.wk", dim, kv), ("attention.wv", dim + kv, kv)] {
            let out = (at(Buffer::Qkv, first), qkv);
            self.gemm(&weight(name), all.normed.start(), out, (all.count, dim, width));
        }
        let rows = if is_last {
            let last = self.last_rows();
            self.gather(all.state, last.state.start(), tokens);
            self.gather(all.normed, last.normed.start(), tokens);
            last
        } else {
            all
        };
        let queries = if is_last {
            (Buffer::LastQueries.start(), dim)
        } else {
            (Buffer::Qkv.start(), qkv)
        };
        self.gemm(
            &weight("attention.wq"),
            rows.normed.start(),
            queries,
            (rows.count, dim, dim),
        );
        let seen = rows.count / self.run.sequences;
        self.turn(queries, self.params.n_heads, (rows.count, seen));
        self.turn((at(Buffer::Qkv, dim), qkv), self.params.n_kv_heads, (all.count, tokens));
        self.attention(queries, rows.heads, seen);
        let sum = (rows.sum.start(), dim);
        self.gemm(&weight("attention.wo"), rows.heads.start(), sum, (rows.count, dim, dim));
        self.add(&rows);
        self.norm(&weight("ffn_norm"), &rows);
        self.feed_forward(&weight, &rows);
        self.add(&rows);
        self.keep(layer, rows.state, seen);
    }

    fn feed_forward(&mut self, weight: &dyn Fn(&str) -> String, rows: &Rows) {
        let (dim, inner) = (self.params.dim, self.params.ffn_hidden());
        for (name, first) in [("feed_forward.w1", 0), ("feed_forward.w3", inner)] {
            let out = (at(rows.gate_up, first), 2 * inner);
            self.gemm(&weight(name), rows.normed.start(), out, (rows.count, dim, inner));
        }
        let args = vec![Arg::At(rows.gate_up.start()), Arg::At(rows.inner.start()), size(inner)];
        let moved = 2 * rows.count * inner;
        self.launch(
            Kernel::V1Swiglu,
            [inner.div_ceil(THREADS), rows.count, 1],
            args,
            (2 * moved, moved),
        );
        let sum = (rows.sum.start(), dim);
        self.gemm(
            &weight("feed_forward.w2"),
            rows.inner.start(),
            sum,
            (rows.count, inner, dim),
        );
    }

    /// The last tokens' states after a layer, into each place that was asked for.
    fn keep(&mut self, layer: usize, state: Buffer, rows_each: usize) {
        let states = self.run.sequences * self.params.dim;
        for (place, watched) in self.run.watched.iter().enumerate() {
            if *watched == layer {
                self.gather(state, at(Buffer::Results, place * states), rows_each);
            }
        }
    }

    fn logits(&mut self) {
        let last = self.last_rows();
        self.norm("norm.weight", &last);
        let (dim, vocabulary) = (self.params.dim, self.params.vocab_size);
        let first = self.run.watched.len() * self.run.sequences * dim;
        let out = (at(Buffer::Results, first), vocabulary);
        self.gemm("output.weight", last.normed.start(), out, (last.count, dim, vocabulary));
    }

    fn norm(&mut self, weight: &str, rows: &Rows) {
        let dim = self.params.dim;
        let args = vec![
            Arg::At(rows.state.start()),
            Arg::At(self.weights(weight)),
            Arg::At(rows.normed.start()),
            size(dim),
            Arg::Number(self.params.norm_eps as f32),
        ];
        let moved = 2 * rows.count * dim;
        self.launch(Kernel::V1Norm, [rows.count, 1, 1], args, (moved, moved));
    }

    fn turn(&mut self, (place, stride): (Place, usize), heads: usize, (rows, each): (usize, usize)) {
        let head_dim = self.params.head_dim();
        let args = vec![
            Arg::At(place),
            Arg::At(Buffer::Rope.start()),
            size(heads),
            size(head_dim),
            size(stride),
            size(each),
            size(self.params.seq_len - each),
        ];
        let moved = 2 * rows * heads * head_dim;
        self.launch(Kernel::V1Rope, [rows, 1, 1], args, (moved, moved));
    }

    fn attention(&mut self, (queries, stride): (Place, usize), heads: Buffer, seen: usize) {
        let (params, dim, kv) = (self.params, self.params.dim, self.params.kv_dim());
        let head_dim = params.head_dim();
        let args = vec![
            Arg::At(queries),
            Arg::At(at(Buffer::Qkv, dim)),
            Arg::At(at(Buffer::Qkv, dim + kv)),
            Arg::At(heads.start()),
            size(head_dim),
            size(params.n_heads / params.n_kv_heads),
            size(params.seq_len),
            size(stride),
            size(dim + 2 * kv),
            size(dim),
            Arg::Number((head_dim as f64).sqrt() as f32),
        ];
        let moved = 2 * self.run.sequences * (params.seq_len * 2 * kv + seen * dim);
        self.launch(
            Kernel::V1Attention,
            [seen, params.n_heads, self.run.sequences],
            args,
            (moved, 2 * self.run.sequences * seen * dim),
        );
    }

    fn add(&mut self, rows: &Rows) {
        let dim = self.params.dim;
        let args = vec![Arg::At(rows.state.start()), Arg::At(rows.sum.start()), size(dim)];
        let moved = 2 * rows.count * dim;
        self.launch(
            Kernel::V1Add,
            [dim.div_ceil(THREADS), rows.count, 1],
            args,
            (2 * moved, moved),
        );
    }

    fn gather(&mut self, from: Buffer, to: Place, rows_each: usize) {
        let dim = self.params.dim;
        let args = vec![Arg::At(from.start()), Arg::At(to), size(rows_each), size(dim)];
        let moved = 2 * self.run.sequences * dim;
        self.launch(Kernel::GatherLast, [self.run.sequences, 1, 1], args, (moved, moved));
    }

    fn weights(&self, name: &str) -> Place {
        Place {
            buffer: Buffer::Weights,
            offset: self.layout.of(name),
        }
    }

    fn gemm(
        &mut self,
        name: &str,
        x: Place,
        (out, stride): (Place, usize),
        (rows, inner, outer): (usize, usize, usize),
    ) {
        self.done.push(Step::HalfGemm(Gemm {
            weights: self.weights(name),
            x,
            out,
            out_stride: stride as u32,
            rows: rows as u32,
            inner: inner as u32,
            outer: outer as u32,
        }));
    }

    fn launch(&mut self, kernel: Kernel, grid: [usize; 3], args: Vec<Arg>, bytes: (usize, usize)) {
        let shared = if kernel == Kernel::V1Attention {
            4 * self.params.seq_len
        } else {
            0
        };
        self.done.push(Step::Launch(Launch {
            kernel,
            grid: grid.map(|blocks| blocks as u32),
            block: THREADS as u32,
            shared: shared as u32,
            args,
            bytes: (bytes.0 as u64, bytes.1 as u64),
        }));
    }
}
