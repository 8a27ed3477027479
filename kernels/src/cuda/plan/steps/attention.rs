//! Decide: what attention is given, from queries and keys as a product left them to the heads' outputs.

use super::{Steps, size, weights_at};
use crate::cuda::plan::{Arg, Batch, Buffer, Kernel, Place};

/// Queries a block takes.
pub(super) const TILE: usize = 128;

impl Steps<'_> {
    /// Norms and turns queries and keys in place.
    pub(in crate::cuda) fn turn(
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
            Arg::At(Buffer::Rope.start()),
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

    pub(in crate::cuda) fn attention(&mut self, operands: [Place; 3]) {
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
            [seq_len.div_ceil(TILE), self.shape.heads, nonces],
            128,
            args,
            (2 * rows * self.shape.qkv_width(), 2 * rows * self.shape.q_width()),
        );
    }

    pub(in crate::cuda) fn attention_last(&mut self, operands: [Place; 3]) {
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
            Arg::At(out.start()),
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
}
