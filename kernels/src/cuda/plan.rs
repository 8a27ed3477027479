//! Decide: everything one batch runs, as values. No device is touched here: the same steps drive a GPU, the emulator of the tests and the ledger.
//!
//! | once a layer | reads | writes |
//! |---|---|---|
//! | product: queries, keys, values | normed | qkv |
//! | head norm and rotary embedding, in place | qkv | qkv |
//! | attention | qkv | heads |
//! | product: output | heads | hidden |
//! | residual + norm | hidden, residual | residual, normed |
//! | product: gate and up | normed | gate_up |
//! | silu × up | gate_up | inner |
//! | product: down | inner | hidden |
//! | reflect both, residual + norm of the next layer | hidden, residual | residual, normed |
//!
//! From the last layer only the last row of a sequence leaves: its queries, output and MLP are computed for that row alone.

use super::{Shape, weights::Layout};

/// Device memory by purpose. Rows are tokens unless said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Buffer {
    /// All weights (`weights::Layout`).
    Weights,
    /// One reflection vector a layer.
    Reflections,
    /// Cosines and sines by position.
    Rope,
    /// Seeds of a batch: inputs first, then pick and rotations of each nonce.
    Seeds,
    /// Artifacts of a batch, then one word a nonce: not finite.
    Results,
    /// The residual stream.
    Residual,
    /// What a layer's last product wrote.
    Hidden,
    /// What the next product reads.
    Normed,
    /// Queries, keys and values side by side.
    Qkv,
    /// Outputs of the heads.
    Heads,
    /// Gate and up side by side.
    GateUp,
    /// silu(gate) × up.
    Inner,
    /// One row a sequence, as `Residual`.
    LastResidual,
    /// One row a sequence, as `Hidden`.
    LastHidden,
    /// One row a sequence, as `Normed`.
    LastNormed,
    /// One row a sequence: queries.
    LastQueries,
    /// One row a sequence, as `Heads`.
    LastHeads,
    /// One row a sequence, as `GateUp`.
    LastGateUp,
    /// One row a sequence, as `Inner`.
    LastInner,
}

/// A place in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which buffer.
    pub buffer: Buffer,
    /// Bytes from its start.
    pub offset: u64,
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// An address.
    At(Place),
    /// No address: the kernel leaves a step out.
    Nothing,
    /// A size.
    Size(u32),
    /// A constant.
    Number(f32),
}

/// The kernels of `kernels/cuda`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kernel {
    /// Input embeddings from seeds.
    FillInputs,
    /// Norm of the inputs.
    Norm,
    /// Residual addition and norm.
    AddNorm,
    /// Reflection of both streams, residual addition and norm.
    ReflectAddNorm,
    /// Norm of queries and keys per head, and rotary embedding.
    HeadNormRope,
    /// Causal attention with heads of 16.
    Attention16,
    /// Of 32.
    Attention32,
    /// Of 64.
    Attention64,
    /// Of 128.
    Attention128,
    /// Attention of one query a sequence.
    AttentionLast,
    /// Last row of each sequence.
    GatherLast,
    /// silu(gate) × up.
    Swiglu,
    /// Last state to artifact.
    Project,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::FillInputs,
        Self::Norm,
        Self::AddNorm,
        Self::ReflectAddNorm,
        Self::HeadNormRope,
        Self::Attention16,
        Self::Attention32,
        Self::Attention64,
        Self::Attention128,
        Self::AttentionLast,
        Self::GatherLast,
        Self::Swiglu,
        Self::Project,
    ];

    /// Name of the symbol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FillInputs => "fill_inputs",
            Self::Norm => "norm",
            Self::AddNorm => "add_norm",
            Self::ReflectAddNorm => "reflect_add_norm",
            Self::HeadNormRope => "head_norm_rope",
            Self::Attention16 => "attention_16",
            Self::Attention32 => "attention_32",
            Self::Attention64 => "attention_64",
            Self::Attention128 => "attention_128",
            Self::AttentionLast => "attention_last",
            Self::GatherLast => "gather_last",
            Self::Swiglu => "swiglu",
            Self::Project => "project",
        }
    }

    /// Whether an ordinary prefill would not run it, or not with these bytes: what the proof adds (row A4 of the targets).
    pub const fn is_extra(self) -> bool {
        matches!(self, Self::FillInputs | Self::GatherLast | Self::Project)
    }
}

/// One kernel launch.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Which kernel.
    pub kernel: Kernel,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory, bytes.
    pub shared: u32,
    /// In the kernel's order.
    pub args: Vec<Arg>,
    /// Bytes of device memory it must move when every operand moves once: (read, written).
    pub bytes: (u64, u64),
}

/// out\[row\]\[o\] = Σ x\[row\]\[i\] · weights\[o\]\[i\]: bf16 in and out, accumulated in single precision.
#[derive(Debug, Clone, PartialEq)]
pub struct Gemm {
    /// [outer, inner], row-major.
    pub weights: Place,
    /// [rows, inner].
    pub x: Place,
    /// [rows, outer], rows `out_stride` elements apart.
    pub out: Place,
    /// Elements from row to row of `out`.
    pub out_stride: u32,
    /// Rows.
    pub rows: u32,
    /// Elements summed.
    pub inner: u32,
    /// Elements of an output row.
    pub outer: u32,
}

/// One thing a device does.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A kernel of ours.
    Launch(Launch),
    /// A product of cuBLASLt.
    Gemm(Gemm),
}

impl Step {
    /// Bytes (read, written) when every operand moves once.
    pub fn bytes(&self) -> (u64, u64) {
        match self {
            Self::Launch(launch) => launch.bytes,
            Self::Gemm(gemm) => {
                let (rows, inner, outer) = (u64::from(gemm.rows), u64::from(gemm.inner), u64::from(gemm.outer));
                (2 * (rows * inner + inner * outer), 2 * rows * outer)
            }
        }
    }
}

/// What a batch is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Nonces.
    pub nonces: usize,
    /// Tokens of each.
    pub seq_len: usize,
    /// Numbers of an artifact.
    pub k_dim: usize,
    /// Seeds of an input: 1, or 8 with the stronger generator.
    pub segments: usize,
}

impl Batch {
    /// Words of [`Buffer::Seeds`].
    pub const fn seed_words(&self) -> usize {
        self.nonces * (self.segments + self.k_dim)
    }

    /// Bytes of the artifacts in [`Buffer::Results`]; a word a nonce follows, aligned to it.
    pub const fn artifact_bytes(&self) -> usize {
        (self.nonces * self.k_dim * 2).next_multiple_of(4)
    }

    /// Bytes of [`Buffer::Results`].
    pub const fn result_bytes(&self) -> usize {
        self.artifact_bytes() + 4 * self.nonces
    }
}

/// Everything a batch runs, and what memory it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// Bytes of every buffer but the weights.
    pub sizes: Vec<(Buffer, u64)>,
}

/// The plan of a batch.
pub fn plan(shape: &Shape, layout: &Layout, batch: Batch) -> Plan {
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
    Plan {
        steps: steps.done,
        sizes: sizes(shape, batch),
    }
}

fn sizes(shape: &Shape, batch: Batch) -> Vec<(Buffer, u64)> {
    let (last, rows) = (batch.nonces, batch.nonces * batch.seq_len);
    [
        (Buffer::Reflections, 2 * shape.layers * shape.hidden),
        (Buffer::Rope, 4 * batch.seq_len * shape.head_dim),
        (Buffer::Seeds, 4 * batch.seed_words()),
        (Buffer::Results, batch.result_bytes()),
        (Buffer::Residual, 2 * rows * shape.hidden),
        (Buffer::Hidden, 2 * rows * shape.hidden),
        (Buffer::Normed, 2 * rows * shape.hidden),
        (Buffer::Qkv, 2 * rows * shape.qkv_width()),
        (Buffer::Heads, 2 * rows * shape.q_width()),
        (Buffer::GateUp, 4 * rows * shape.inner),
        (Buffer::Inner, 2 * rows * shape.inner),
        (Buffer::LastResidual, 2 * last * shape.hidden),
        (Buffer::LastHidden, 2 * last * shape.hidden),
        (Buffer::LastNormed, 2 * last * shape.hidden),
        (Buffer::LastQueries, 2 * last * shape.q_width()),
        (Buffer::LastHeads, 2 * last * shape.q_width()),
        (Buffer::LastGateUp, 4 * last * shape.inner),
        (Buffer::LastInner, 2 * last * shape.inner),
    ]
    .map(|(buffer, bytes)| (buffer, bytes as u64))
    .to_vec()
}

/// Elements a block of the streaming kernels takes.
const STREAM: usize = 2048;
/// Queries a block of attention takes.
const ATTENTION_TILE: usize = 128;

struct Steps<'a> {
    shape: &'a Shape,
    layout: &'a Layout,
    batch: Batch,
    done: Vec<Step>,
}

/// Where a stretch of layers reads and writes: all rows, or the last row of each sequence.
struct Rows {
    count: usize,
    residual: Buffer,
    hidden: Buffer,
    normed: Buffer,
    heads: Buffer,
    gate_up: Buffer,
    inner: Buffer,
}

fn at(buffer: Buffer) -> Place {
    Place { buffer, offset: 0 }
}

impl Buffer {
    /// The place a number of bf16 elements in.
    fn element(self, elements: usize) -> Place {
        Place {
            buffer: self,
            offset: 2 * elements as u64,
        }
    }
}

impl Steps<'_> {
    fn all_rows(&self) -> Rows {
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

    fn last_rows(&self) -> Rows {
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
    fn inputs(&mut self) {
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
                Arg::At(at(Buffer::Residual)),
                Arg::At(at(Buffer::Seeds)),
                size(segments),
                size(segment),
                size(length),
            ],
            (4 * nonces * segments, 2 * nonces * length),
        );
        let rows = nonces * seq_len;
        let bytes = 2 * rows * self.shape.hidden;
        let args = vec![
            Arg::At(at(Buffer::Residual)),
            self.norm_weights(0, false),
            Arg::At(at(Buffer::Normed)),
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
            at(rows.normed),
            (at(Buffer::Qkv), qkv),
            (rows.count, self.shape.hidden, qkv),
        );
        self.turn(
            layer,
            at(Buffer::Qkv),
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
        self.gemm(of_keys, at(rows.normed), (keys, qkv), (rows.count, hidden, 2 * kv));
        self.gather(rows.normed, last.normed);
        self.gather(rows.residual, last.residual);
        self.gemm(
            weights,
            at(last.normed),
            (at(Buffer::LastQueries), q),
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
            at(Buffer::LastQueries),
            q,
            (self.shape.heads, 0),
            (last.count, 1, self.batch.seq_len - 1),
        );
        self.attention_last([at(Buffer::LastQueries), keys, Buffer::Qkv.element(q + kv)]);
        self.rest_of_layer(layer, &last);
    }

    fn rest_of_layer(&mut self, layer: usize, rows: &Rows) {
        let (hidden, q, inner) = (self.shape.hidden, self.shape.q_width(), self.shape.inner);
        let weights = self.layout.layers[layer].clone();
        self.gemm(
            weights.o,
            at(rows.heads),
            (at(rows.hidden), hidden),
            (rows.count, q, hidden),
        );
        let stream = 2 * rows.count * hidden;
        let post_norm = self.norm_weights(layer, true);
        let args = vec![
            Arg::At(at(rows.hidden)),
            Arg::At(at(rows.residual)),
            post_norm,
            Arg::At(at(rows.normed)),
            size(hidden),
            Arg::Number(self.shape.eps),
        ];
        self.row_launch(Kernel::AddNorm, rows.count, args, (2 * stream + 2 * hidden, 2 * stream));
        self.gemm(
            weights.gate_up,
            at(rows.normed),
            (at(rows.gate_up), 2 * inner),
            (rows.count, hidden, 2 * inner),
        );
        self.launch(
            Kernel::Swiglu,
            [inner.div_ceil(STREAM), rows.count, 1],
            256,
            vec![Arg::At(at(rows.gate_up)), Arg::At(at(rows.inner)), size(inner)],
            (4 * rows.count * inner, 2 * rows.count * inner),
        );
        self.gemm(
            weights.down,
            at(rows.inner),
            (at(rows.hidden), hidden),
            (rows.count, inner, hidden),
        );
        let next = self.norm_weights(layer + 1, false);
        let args = vec![
            Arg::At(at(rows.hidden)),
            Arg::At(at(rows.residual)),
            Arg::At(Buffer::Reflections.element(layer * hidden)),
            next,
            Arg::At(at(rows.normed)),
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

    /// Norms and turns queries and keys in place.
    fn turn(
        &mut self,
        layer: usize,
        x: Place,
        stride: usize,
        (q_heads, k_heads): (usize, usize),
        (rows, period, first): (usize, usize, usize),
    ) {
        let weights = &self.layout.layers[layer];
        let norm = |offset: Option<u64>| offset.map_or(Arg::Nothing, weights_at);
        let args = vec![
            Arg::At(x),
            norm(weights.q_norm),
            norm(weights.k_norm),
            Arg::At(at(Buffer::Rope)),
            size(stride),
            size(q_heads),
            size(k_heads),
            size(self.shape.head_dim),
            size(period),
            size(first),
            Arg::Number(self.shape.eps),
        ];
        let moved = 2 * rows * (q_heads + k_heads) * self.shape.head_dim;
        let grid = [(q_heads + k_heads).div_ceil(8), rows, 1];
        self.launch(
            Kernel::HeadNormRope,
            grid,
            256,
            args,
            (moved + 4 * period * self.shape.head_dim, moved),
        );
    }

    fn attention(&mut self, operands: [Place; 3]) {
        let Batch { nonces, seq_len, .. } = self.batch;
        let rows = nonces * seq_len;
        let kernel = match self.shape.head_dim {
            16 => Kernel::Attention16,
            32 => Kernel::Attention32,
            64 => Kernel::Attention64,
            _ => Kernel::Attention128,
        };
        let mut args = self.attention_args(operands, Buffer::Heads, self.shape.qkv_width());
        args.push(self.scale());
        self.launch(
            kernel,
            [seq_len.div_ceil(ATTENTION_TILE), self.shape.heads, nonces],
            128,
            args,
            (2 * rows * self.shape.qkv_width(), 2 * rows * self.shape.q_width()),
        );
    }

    fn attention_last(&mut self, operands: [Place; 3]) {
        let Batch { nonces, seq_len, .. } = self.batch;
        let mut args = self.attention_args(operands, Buffer::LastHeads, self.shape.q_width());
        args.extend([size(self.shape.head_dim), self.scale()]);
        let row = 2 * self.shape.q_width();
        let keys = 4 * seq_len * self.shape.kv_width();
        self.launch(
            Kernel::AttentionLast,
            [self.shape.heads, nonces, 1],
            256,
            args,
            (nonces * (row + keys), nonces * row),
        );
    }

    fn attention_args(&self, operands: [Place; 3], out: Buffer, q_stride: usize) -> Vec<Arg> {
        let shape = self.shape;
        let mut args = operands.map(Arg::At).to_vec();
        args.extend([
            Arg::At(at(out)),
            size(q_stride),
            size(shape.qkv_width()),
            size(shape.q_width()),
            size(shape.heads),
            size(shape.kv_heads),
            size(self.batch.seq_len),
        ]);
        args
    }

    fn scale(&self) -> Arg {
        Arg::Number(1.0 / (self.shape.head_dim as f32).sqrt())
    }

    fn gather(&mut self, from: Buffer, to: Buffer) {
        let moved = 2 * self.batch.nonces * self.shape.hidden;
        let args = vec![
            Arg::At(at(from)),
            Arg::At(at(to)),
            size(self.batch.seq_len),
            size(self.shape.hidden),
        ];
        self.launch(Kernel::GatherLast, [self.batch.nonces, 1, 1], 256, args, (moved, moved));
    }

    fn project(&mut self) {
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
            Arg::At(at(Buffer::LastNormed)),
            Arg::At(seeds),
            Arg::At(at(Buffer::Results)),
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

    fn launch(&mut self, kernel: Kernel, grid: [usize; 3], block: u32, args: Vec<Arg>, bytes: (usize, usize)) {
        let shared = match kernel {
            // A tile of queries, and two of keys and of values at half its rows.
            Kernel::Attention16 | Kernel::Attention32 | Kernel::Attention64 | Kernel::Attention128 => {
                2 * self.shape.head_dim * (ATTENTION_TILE + 4 * ATTENTION_TILE / 2)
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

fn weights_at(offset: u64) -> Arg {
    Arg::At(Place {
        buffer: Buffer::Weights,
        offset,
    })
}

fn size(of: usize) -> Arg {
    Arg::Size(of as u32)
}
