//! Decide: the steps of a batch in their order. Those that are not of experts or of eight bits are the dense plan's.
//!
//! | once a layer | reads | writes |
//! |---|---|---|
//! | to eight bits; product: queries, keys, values | normed | codes, qkv |
//! | norm of queries and of keys, rotary embedding | qkv | qkv |
//! | attention | qkv | heads |
//! | to eight bits; product: output | heads | codes, hidden |
//! | residual + norm | hidden, residual | residual, normed |
//! | router, choice, count, sort | normed | logits, chosen, weights, order |
//! | to eight bits; product by expert: gate and up | normed, order | codes, gate_up |
//! | silu × up to eight bits; product by expert: down | gate_up | codes, routed |
//! | experts' outputs by weight | routed, places, weights | hidden |
//! | reflect both, residual + norm of the next layer | hidden, residual | residual, normed |

use super::{Layout, dense, layout::Place as Weights};
use crate::{
    cuda::plan::{
        Arg, Batch, Buffer, Kernel, Launch, Place, Step,
        steps::{Rows, Steps, size, weights_at},
    },
    fp8::GROUP,
    moe::{QkNorm, Shape},
};

/// Pairs of row and choice that one block of the sort counts.
pub(super) const SLOTS: usize = 2048;
/// Rows and columns of a tile of the product.
pub(super) const TILE: usize = 128;
/// Shared memory of the product: three stages of two tiles.
const STAGES: usize = 3 * 2 * TILE * GROUP;
/// Rows and experts of a tile of the router, and its shared memory: two stages of four tiles of 128 bytes a row.
const ROUTER_TILE: usize = 64;
const ROUTER_STAGES: usize = 2 * 4 * ROUTER_TILE * 128;
/// Groups that one block quantises.
const GROUPS: usize = 16;
/// Rows that one block routes.
const ROUTED: usize = 4;

/// All steps of a batch.
pub(super) fn of(shape: &Shape, layout: &Layout, batch: Batch) -> Vec<Step> {
    let dense = dense(shape);
    let mut steps = MoeSteps::new(shape, layout, &dense, batch);
    steps.base.inputs();
    for layer in 0..shape.layers {
        if layer + 1 < shape.layers {
            steps.layer(layer);
        } else {
            steps.last_layer(layer);
        }
    }
    steps.base.project();
    steps.base.done
}

/// Rows of a product: all of a buffer, or sorted by expert.
#[derive(Clone, Copy)]
enum Grouped {
    /// One matrix of weights.
    No,
    /// Rows taken from before the sort: one serves all its experts.
    Taken,
    /// Rows that lie sorted.
    Sorted,
}

pub(super) struct MoeSteps<'a> {
    shape: &'a Shape,
    layout: &'a Layout,
    pub(super) base: Steps<'a>,
}

impl<'a> MoeSteps<'a> {
    pub(super) const fn new(shape: &'a Shape, layout: &'a Layout, dense: &'a crate::cuda::Shape, batch: Batch) -> Self {
        Self {
            shape,
            layout,
            base: Steps {
                shape: dense,
                layout: &layout.norms,
                batch,
                done: Vec::new(),
            },
        }
    }

    pub(super) fn layer(&mut self, layer: usize) {
        let rows = self.base.all_rows();
        let (hidden, q, kv, qkv) = (
            self.shape.hidden,
            self.shape.q_width(),
            self.shape.kv_width(),
            self.shape.qkv_width(),
        );
        self.quantise(rows.normed, rows.count, hidden);
        let weights = self.layout.layers[layer].qkv;
        self.product(
            weights,
            (Buffer::Qkv.start(), qkv),
            (rows.count, hidden, qkv),
            Grouped::No,
        );
        let seq_len = self.base.batch.seq_len;
        self.turn(layer, (Buffer::Qkv.start(), true), qkv, (rows.count, seq_len, 0));
        self.turn(layer, (Buffer::Qkv.element(q), false), qkv, (rows.count, seq_len, 0));
        self.base.attention([
            Buffer::Qkv.element(0),
            Buffer::Qkv.element(q),
            Buffer::Qkv.element(q + kv),
        ]);
        self.rest_of_layer(layer, &rows);
    }

    /// Keys and values of all rows; queries and what follows of the last rows.
    fn last_layer(&mut self, layer: usize) {
        let (rows, last, seq_len) = (self.base.all_rows(), self.base.last_rows(), self.base.batch.seq_len);
        let (hidden, q, kv, qkv) = (
            self.shape.hidden,
            self.shape.q_width(),
            self.shape.kv_width(),
            self.shape.qkv_width(),
        );
        let weights = self.layout.layers[layer].qkv;
        let of_keys = Weights {
            codes: weights.codes + (q * hidden) as u64,
            scales: weights.scales + (4 * (q / GROUP) * (hidden / GROUP)) as u64,
        };
        let keys = Buffer::Qkv.element(q);
        self.quantise(rows.normed, rows.count, hidden);
        self.product(of_keys, (keys, qkv), (rows.count, hidden, 2 * kv), Grouped::No);
        self.base.gather(rows.normed, last.normed);
        self.base.gather(rows.residual, last.residual);
        self.quantise(last.normed, last.count, hidden);
        let queries = Buffer::LastQueries.start();
        self.product(weights, (queries, q), (last.count, hidden, q), Grouped::No);
        self.turn(layer, (keys, false), qkv, (rows.count, seq_len, 0));
        self.turn(layer, (queries, true), q, (last.count, 1, seq_len - 1));
        self.base.attention_last([queries, keys, Buffer::Qkv.element(q + kv)]);
        self.rest_of_layer(layer, &last);
    }

    fn rest_of_layer(&mut self, layer: usize, rows: &Rows) {
        let (hidden, q) = (self.shape.hidden, self.shape.q_width());
        self.quantise(rows.heads, rows.count, q);
        let weights = self.layout.layers[layer].o;
        self.product(
            weights,
            (rows.hidden.start(), hidden),
            (rows.count, q, hidden),
            Grouped::No,
        );
        self.base.add_norm(layer, rows);
        self.route(layer, rows);
        self.quantise(rows.normed, rows.count, hidden);
        self.experts(layer, rows.count);
        self.combine(rows);
        self.base.reflect_add_norm(layer, rows);
    }

    /// The two products by expert and what lies between them; codes and order are there.
    pub(super) fn experts(&mut self, layer: usize, rows: usize) {
        let (hidden, inner, pairs) = (self.shape.hidden, self.shape.inner, rows * self.shape.top_k);
        let weights = self.layout.layers[layer];
        let out = (Buffer::GateUp.start(), 2 * inner);
        self.product(weights.gate_up, out, (pairs, hidden, 2 * inner), Grouped::Taken);
        let groups = pairs * inner / GROUP;
        let args = vec![
            Arg::At(Buffer::GateUp.start()),
            Arg::At(Buffer::Codes.start()),
            Arg::At(Buffer::Scales.start()),
            size(groups),
            size(inner / GROUP),
        ];
        let bytes = (4 * pairs * inner, pairs * inner + 4 * groups);
        self.launch(
            Kernel::SwigluQuantize,
            ([groups.div_ceil(GROUPS), 1, 1], 256, 0),
            args,
            bytes,
        );
        let out = (Buffer::Routed.start(), hidden);
        self.product(weights.down, out, (pairs, inner, hidden), Grouped::Sorted);
    }

    /// Logits, choices, and their order by expert.
    pub(super) fn route(&mut self, layer: usize, rows: &Rows) {
        let (hidden, experts, pairs) = (self.shape.hidden, self.shape.experts, rows.count * self.shape.top_k);
        let weights = self.layout.layers[layer];
        let args = vec![
            Arg::At(rows.normed.start()),
            weights_at(weights.router),
            Arg::At(Buffer::Logits.start()),
            size(rows.count),
            size(experts),
            size(hidden),
        ];
        let grid = [experts.div_ceil(ROUTER_TILE), rows.count.div_ceil(ROUTER_TILE), 1];
        let logits = 4 * rows.count * experts;
        let read = 2 * rows.count * hidden + 6 * experts * hidden;
        self.launch(Kernel::Router, (grid, 128, ROUTER_STAGES), args, (read, logits));
        let args = vec![
            Arg::At(Buffer::Logits.start()),
            weights.bias.map_or(Arg::Nothing, weights_at),
            Arg::At(Buffer::Chosen.start()),
            Arg::At(Buffer::RouteWeights.start()),
            size(rows.count),
            size(experts),
            size(self.shape.top_k),
        ];
        let grid = [rows.count.div_ceil(ROUTED), 1, 1];
        self.launch(Kernel::Route, (grid, 128, 0), args, (logits, 8 * pairs));
        let (blocks, threads) = (pairs.div_ceil(SLOTS), experts.next_multiple_of(32));
        let counts = 4 * blocks * experts;
        let args = vec![
            Arg::At(Buffer::Chosen.start()),
            Arg::At(Buffer::Counts.start()),
            size(pairs),
            size(experts),
        ];
        self.launch(
            Kernel::CountRoutes,
            ([blocks, 1, 1], threads, 0),
            args,
            (4 * pairs, counts),
        );
        let args = [
            Buffer::Chosen,
            Buffer::Counts,
            Buffer::Starts,
            Buffer::Tiles,
            Buffer::Order,
            Buffer::RoutePlaces,
        ]
        .map(|buffer| Arg::At(buffer.start()))
        .into_iter()
        .chain([size(pairs), size(experts), size(TILE)])
        .collect();
        let bytes = (4 * pairs + counts, 8 * pairs + 8 * (experts + 1));
        self.launch(Kernel::PlaceRoutes, ([blocks, 1, 1], threads, 0), args, bytes);
    }

    fn combine(&mut self, rows: &Rows) {
        let (hidden, top_k) = (self.shape.hidden, self.shape.top_k);
        let args = vec![
            Arg::At(Buffer::Routed.start()),
            Arg::At(Buffer::RoutePlaces.start()),
            Arg::At(Buffer::RouteWeights.start()),
            Arg::At(rows.hidden.start()),
            size(hidden),
            size(top_k),
        ];
        let row = 2 * rows.count * hidden;
        let bytes = (top_k * (row + 8 * rows.count), row);
        self.launch(Kernel::Combine, ([rows.count, 1, 1], 128, 0), args, bytes);
    }

    /// Rows without gaps to eight bits.
    pub(super) fn quantise(&mut self, from: Buffer, rows: usize, width: usize) {
        let groups = rows * width / GROUP;
        let args = vec![
            Arg::At(from.start()),
            Arg::At(Buffer::Codes.start()),
            Arg::At(Buffer::Scales.start()),
            size(groups),
        ];
        let bytes = (2 * rows * width, rows * width + 4 * groups);
        self.launch(Kernel::Quantize, ([groups.div_ceil(GROUPS), 1, 1], 256, 0), args, bytes);
    }

    /// A product of what was quantised last.
    fn product(
        &mut self,
        weights: Weights,
        (out, out_stride): (Place, usize),
        (rows, inner, outer): (usize, usize, usize),
        grouped: Grouped,
    ) {
        let (experts, top_k) = (self.shape.experts, self.shape.top_k);
        let at = |buffer: Buffer, when: bool| if when { Arg::At(buffer.start()) } else { Arg::Nothing };
        let (by_expert, taken) = (!matches!(grouped, Grouped::No), matches!(grouped, Grouped::Taken));
        let groups = if by_expert { experts } else { 1 };
        let args = vec![
            Arg::At(Buffer::Codes.start()),
            Arg::At(Buffer::Scales.start()),
            weights_at(weights.codes),
            weights_at(weights.scales),
            Arg::At(out),
            at(Buffer::Starts, by_expert),
            at(Buffer::Tiles, by_expert),
            at(Buffer::Order, taken),
            size(groups),
            size(rows),
            size(top_k),
            size(inner),
            size(outer),
            size(out_stride),
        ];
        // Each group may leave one tile partly empty; with few rows there are not even that many.
        let tiles = rows.div_ceil(TILE) + if by_expert { experts.min(rows) } else { 0 };
        let read_rows = if taken { rows / top_k } else { rows };
        let with_scales = |elements: usize, scales: usize| elements + 4 * scales;
        let read = with_scales(read_rows * inner, read_rows * inner / GROUP)
            + with_scales(groups * inner * outer, groups * inner * outer / GROUP / GROUP);
        self.launch(
            Kernel::GroupedGemmFp8,
            ([outer / TILE, tiles, 1], 256, STAGES),
            args,
            (read, 2 * rows * outer),
        );
    }

    /// Norms and turns queries or keys in place.
    fn turn(
        &mut self,
        layer: usize,
        (x, queries): (Place, bool),
        stride: usize,
        (rows, period, first): (usize, usize, usize),
    ) {
        let heads = if queries { self.shape.heads } else { self.shape.kv_heads };
        if self.shape.qk_norm == QkNorm::Heads {
            let counts = if queries { (heads, 0) } else { (0, heads) };
            self.base.turn(layer, x, stride, counts, (rows, period, first));
            return;
        }
        let (norms, width) = (&self.layout.norms.layers[layer], heads * self.shape.head_dim);
        let norm = if queries { norms.q_norm } else { norms.k_norm };
        let args = vec![
            Arg::At(x),
            norm.map_or(Arg::Nothing, weights_at),
            Arg::At(Buffer::Rope.start()),
            size(stride),
            size(width),
            size(self.shape.head_dim),
            size(self.shape.rotary),
            size(period),
            size(first),
            Arg::Number(self.shape.eps),
        ];
        let moved = 2 * rows * width;
        let read = moved + 2 * width + 4 * period * self.shape.rotary;
        self.launch(
            Kernel::WholeNormRope,
            ([rows, 1, 1], 256, 2 * width),
            args,
            (read, moved),
        );
    }

    fn launch(
        &mut self,
        kernel: Kernel,
        (grid, block, shared): ([usize; 3], usize, usize),
        args: Vec<Arg>,
        bytes: (usize, usize),
    ) {
        self.base.done.push(Step::Launch(Launch {
            kernel,
            grid: grid.map(|blocks| blocks as u32),
            block: block as u32,
            shared: shared as u32,
            args,
            bytes: (bytes.0 as u64, bytes.1 as u64),
        }));
    }
}
