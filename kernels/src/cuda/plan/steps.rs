//! Decide: the steps of a batch in their order, and what each reads and writes.

mod attention;

use super::{Arg, Batch, Buffer, Gemm, Kernel, Launch, Place, Step};
use crate::cuda::{Shape, weights::Layout};

/// Elements a block of the streaming kernels takes.
const STREAM: usize = 2048;

/// All steps of a batch.
pub(super) fn of(shape: &Shape, layout: &Layout, batch: Batch) -> Vec<Step> {
    let mut steps = Steps {
        shape,
        layout,
        batch,
        done: Vec::new(),
    };
    steps.inputs();
    for layer in 0..shape.layers {
        if layer + 1 < shape.layers {
            steps.layer(layer);
        } else {
            steps.last_layer(layer);
        }
    }
    steps.project();
    steps.done
}

/// The steps so far, and what they are of.
pub(in crate::cuda) struct Steps<'a> {
    pub(in crate::cuda) shape: &'a Shape,
    pub(in crate::cuda) layout: &'a Layout,
    pub(in crate::cuda) batch: Batch,
    pub(in crate::cuda) done: Vec<Step>,
}

/// Where a stretch of layers reads and writes: all rows, or the last row of each sequence.
pub(in crate::cuda) struct Rows {
    pub(in crate::cuda) count: usize,
    pub(in crate::cuda) residual: Buffer,
    pub(in crate::cuda) hidden: Buffer,
    pub(in crate::cuda) normed: Buffer,
    pub(in crate::cuda) heads: Buffer,
    gate_up: Buffer,
    inner: Buffer,
}

impl Buffer {
    /// The place a number of bf16 elements in.
    pub(in crate::cuda) fn element(self, elements: usize) -> Place {
        Place {
            buffer: self,
            offset: 2 * elements as u64,
        }
    }
}

impl Steps<'_> {
    pub(in crate::cuda) fn all_rows(&self) -> Rows {
        Rows {
            count: self.batch.nonces * self.batch.seq_len,
            residual: Buffer::Residual,
            hidden: Buffer::Hidden,
            normed: Buffer::Normed,
            heads: Buffer::Heads,
            gate_up: Buffer::GateUp,
            inner: Buffer::Inner,
        }
    }

    pub(in crate::cuda) fn last_rows(&self) -> Rows {
        Rows {
            count: self.batch.nonces,
            residual: Buffer::LastResidual,
            hidden: Buffer::LastHidden,
            normed: Buffer::LastNormed,
            heads: Buffer::LastHeads,
            gate_up: Buffer::LastGateUp,
            inner: Buffer::LastInner,
        }
    }

    /// Inputs into the residual stream, and the first norm.
    pub(in crate::cuda) fn inputs(&mut self) {
        let Batch {
            nonces,
            seq_len,
            segments,
            ..
        } = self.batch;
        let length = seq_len * self.shape.hidden;
        let segment = length.div_ceil(segments);
        self.launch(
            Kernel::FillInputs,
            [segment.div_ceil(2).div_ceil(STREAM), segments, nonces],
            256,
            vec![
                Arg::At(Buffer::Residual.start()),
                Arg::At(Buffer::Seeds.start()),
                size(segments),
                size(segment),
                size(length),
            ],
            (4 * nonces * segments, 2 * nonces * length),
        );
        let rows = nonces * seq_len;
        let bytes = 2 * rows * self.shape.hidden;
        let args = vec![
            Arg::At(Buffer::Residual.start()),
            self.norm_weights(0, false),
            Arg::At(Buffer::Normed.start()),
            size(self.shape.hidden),
            Arg::Number(self.shape.eps),
        ];
        self.row_launch(Kernel::Norm, rows, args, (bytes + 2 * self.shape.hidden, bytes));
    }

    fn layer(&mut self, layer: usize) {
        let rows = self.all_rows();
        let (q, kv, qkv) = (self.shape.q_width(), self.shape.kv_width(), self.shape.qkv_width());
        self.gemm(
            self.layout.layers[layer].qkv,
            rows.normed.start(),
            (Buffer::Qkv.start(), qkv),
            (rows.count, self.shape.hidden, qkv),
        );
        self.turn(
            layer,
            Buffer::Qkv.start(),
            qkv,
            (self.shape.heads, self.shape.kv_heads),
            (rows.count, self.batch.seq_len, 0),
        );
        self.attention([
            Buffer::Qkv.element(0),
            Buffer::Qkv.element(q),
            Buffer::Qkv.element(q + kv),
        ]);
        self.rest_of_layer(layer, &rows);
    }

    /// Keys and values of all rows; queries and what follows of the last rows.
    fn last_layer(&mut self, layer: usize) {
        let (rows, last) = (self.all_rows(), self.last_rows());
        let (hidden, q, kv, qkv) = (
            self.shape.hidden,
            self.shape.q_width(),
            self.shape.kv_width(),
            self.shape.qkv_width(),
        );
        let keys = Buffer::Qkv.element(q);
        let weights = self.layout.layers[layer].qkv;
        let of_keys = weights + 2 * (q * hidden) as u64;
        self.gemm(of_keys, rows.normed.start(), (keys, qkv), (rows.count, hidden, 2 * kv));
        self.gather(rows.normed, last.normed);
        self.gather(rows.residual, last.residual);
        self.gemm(
            weights,
            last.normed.start(),
            (Buffer::LastQueries.start(), q),
            (last.count, hidden, q),
        );
        self.turn(
            layer,
            keys,
            qkv,
            (0, self.shape.kv_heads),
            (rows.count, self.batch.seq_len, 0),
        );
        self.turn(
            layer,
            Buffer::LastQueries.start(),
            q,
            (self.shape.heads, 0),
            (last.count, 1, self.batch.seq_len - 1),
        );
        self.attention_last([Buffer::LastQueries.start(), keys, Buffer::Qkv.element(q + kv)]);
        self.rest_of_layer(layer, &last);
    }

    fn rest_of_layer(&mut self, layer: usize, rows: &Rows) {
        let (hidden, q, inner) = (self.shape.hidden, self.shape.q_width(), self.shape.inner);
        let weights = self.layout.layers[layer].clone();
        self.gemm(
            weights.o,
            rows.heads.start(),
            (rows.hidden.start(), hidden),
            (rows.count, q, hidden),
        );
        self.add_norm(layer, rows);
        self.gemm(
            weights.gate_up,
            rows.normed.start(),
            (rows.gate_up.start(), 2 * inner),
            (rows.count, hidden, 2 * inner),
        );
        self.launch(
            Kernel::Swiglu,
            [inner.div_ceil(STREAM), rows.count, 1],
            256,
            vec![Arg::At(rows.gate_up.start()), Arg::At(rows.inner.start()), size(inner)],
            (4 * rows.count * inner, 2 * rows.count * inner),
        );
        self.gemm(
            weights.down,
            rows.inner.start(),
            (rows.hidden.start(), hidden),
            (rows.count, inner, hidden),
        );
        self.reflect_add_norm(layer, rows);
    }

    /// What attention gave to the residual stream, and the norm before the MLP.
    pub(in crate::cuda) fn add_norm(&mut self, layer: usize, rows: &Rows) {
        let hidden = self.shape.hidden;
        let stream = 2 * rows.count * hidden;
        let post_norm = self.norm_weights(layer, true);
        let args = vec![
            Arg::At(rows.hidden.start()),
            Arg::At(rows.residual.start()),
            post_norm,
            Arg::At(rows.normed.start()),
            size(hidden),
            Arg::Number(self.shape.eps),
        ];
        self.row_launch(Kernel::AddNorm, rows.count, args, (2 * stream + 2 * hidden, 2 * stream));
    }

    /// Both streams reflected and added, and the norm of what comes next.
    pub(in crate::cuda) fn reflect_add_norm(&mut self, layer: usize, rows: &Rows) {
        let hidden = self.shape.hidden;
        let stream = 2 * rows.count * hidden;
        let next = self.norm_weights(layer + 1, false);
        let args = vec![
            Arg::At(rows.hidden.start()),
            Arg::At(rows.residual.start()),
            Arg::At(Buffer::Reflections.element(layer * hidden)),
            next,
            Arg::At(rows.normed.start()),
            size(hidden),
            Arg::Number(self.shape.eps),
        ];
        self.row_launch(
            Kernel::ReflectAddNorm,
            rows.count,
            args,
            (2 * stream + 4 * hidden, 2 * stream),
        );
    }

    pub(in crate::cuda) fn gather(&mut self, from: Buffer, to: Buffer) {
        let moved = 2 * self.batch.nonces * self.shape.hidden;
        let args = vec![
            Arg::At(from.start()),
            Arg::At(to.start()),
            size(self.batch.seq_len),
            size(self.shape.hidden),
        ];
        self.launch(Kernel::GatherLast, [self.batch.nonces, 1, 1], 256, args, (moved, moved));
    }

    pub(in crate::cuda) fn project(&mut self) {
        let Batch {
            nonces,
            segments,
            k_dim,
            ..
        } = self.batch;
        let seeds = Place {
            buffer: Buffer::Seeds,
            offset: 4 * (nonces * segments) as u64,
        };
        let flags = Place {
            buffer: Buffer::Results,
            offset: self.batch.artifact_bytes() as u64,
        };
        let args = vec![
            Arg::At(Buffer::LastNormed.start()),
            Arg::At(seeds),
            Arg::At(Buffer::Results.start()),
            Arg::At(flags),
            size(self.shape.hidden),
            size(k_dim),
        ];
        let read = nonces * (2 * self.shape.hidden + 4 * k_dim);
        self.launch(
            Kernel::Project,
            [nonces, 1, 1],
            256,
            args,
            (read, self.batch.result_bytes()),
        );
    }

    /// Weights of a norm: before a layer, or within one; before the layer after the last, the final one.
    fn norm_weights(&self, layer: usize, within: bool) -> Arg {
        let offset = match self.layout.layers.get(layer) {
            Some(layer) if within => layer.post_norm,
            Some(layer) => layer.input_norm,
            None => self.layout.norm,
        };
        weights_at(offset)
    }

    fn gemm(
        &mut self,
        weights: u64,
        x: Place,
        (out, out_stride): (Place, usize),
        (rows, inner, outer): (usize, usize, usize),
    ) {
        self.done.push(Step::Gemm(Gemm {
            weights: Place {
                buffer: Buffer::Weights,
                offset: weights,
            },
            x,
            out,
            out_stride: out_stride as u32,
            rows: rows as u32,
            inner: inner as u32,
            outer: outer as u32,
        }));
    }

    /// One block a row, sixteen elements a thread.
    fn row_launch(&mut self, kernel: Kernel, rows: usize, args: Vec<Arg>, bytes: (usize, usize)) {
        let threads = self.shape.hidden.div_ceil(16).next_multiple_of(32).clamp(32, 1024);
        self.launch(kernel, [rows, 1, 1], threads as u32, args, bytes);
    }

    pub(in crate::cuda) fn launch(
        &mut self,
        kernel: Kernel,
        grid: [usize; 3],
        block: u32,
        args: Vec<Arg>,
        bytes: (usize, usize),
    ) {
        let shared = match kernel {
            // A tile of queries, and two of keys and of values at half its rows.
            Kernel::Attention16 | Kernel::Attention32 | Kernel::Attention64 | Kernel::Attention128 => {
                2 * self.shape.head_dim * (attention::TILE + 4 * attention::TILE / 2)
            }
            _ => 0,
        };
        self.done.push(Step::Launch(Launch {
            kernel,
            grid: grid.map(|blocks| blocks as u32),
            block,
            shared: shared as u32,
            args,
            bytes: (bytes.0 as u64, bytes.1 as u64),
        }));
    }
}

/// A place among the weights.
pub(in crate::cuda) fn weights_at(offset: u64) -> Arg {
    Arg::At(Place {
        buffer: Buffer::Weights,
        offset,
    })
}

/// A size as an argument.
pub(in crate::cuda) fn size(of: usize) -> Arg {
    Arg::Size(of as u32)
}
