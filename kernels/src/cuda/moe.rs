//! Mixtures of experts in eight bits on a GPU (`docs/fp8-moe.md`): what [`crate::moe`] computes, as a plan of the same kind as the dense one.
//!
//! | box | module |
//! |---|---|
//! | decide: where weights lie | [`layout`] |
//! | decide: what a batch runs | [`plan`] |
//! | decide: what that costs | [`ledger`] |
//! | decide: what a measurement of row A3 runs | [`bench`] |
//! | the scheme over it | [`round`] |

pub mod bench;
pub mod layout;
pub mod ledger;
mod round;
mod steps;

pub use layout::Layout;
pub use round::CudaMoePrefillV2;

use super::{
    Error,
    plan::{Batch, Buffer, Plan},
};
use crate::moe::Shape;

/// The plan of a batch, which has at most [`MAX_ROWS`](super::MAX_ROWS) rows.
pub fn plan(shape: &Shape, layout: &Layout, batch: Batch) -> Result<Plan, Error> {
    batch.check()?;
    Ok(Plan {
        steps: steps::of(shape, layout, batch),
        sizes: sizes(shape, batch),
    })
}

/// What the plan of the dense parts is told.
fn dense(shape: &Shape) -> super::Shape {
    super::Shape {
        hidden: shape.hidden,
        layers: shape.layers,
        heads: shape.heads,
        kv_heads: shape.kv_heads,
        head_dim: shape.head_dim,
        inner: shape.inner,
        eps: shape.eps,
        theta: shape.theta,
        qk_norm: true,
    }
}

fn sizes(shape: &Shape, batch: Batch) -> Vec<(Buffer, u64)> {
    let (last, rows) = (batch.nonces, batch.nonces * batch.seq_len);
    let pairs = rows * shape.top_k;
    let codes = (rows * shape.hidden.max(shape.q_width())).max(pairs * shape.inner);
    [
        (Buffer::Reflections, 2 * shape.layers * shape.hidden),
        (Buffer::Rope, 4 * batch.seq_len * shape.rotary),
        (Buffer::Seeds, 4 * batch.seed_words()),
        (Buffer::Results, batch.result_bytes()),
        (Buffer::Residual, 2 * rows * shape.hidden),
        (Buffer::Hidden, 2 * rows * shape.hidden),
        (Buffer::Normed, 2 * rows * shape.hidden),
        (Buffer::Qkv, 2 * rows * shape.qkv_width()),
        (Buffer::Heads, 2 * rows * shape.q_width()),
        (Buffer::GateUp, 4 * pairs * shape.inner),
        (Buffer::LastResidual, 2 * last * shape.hidden),
        (Buffer::LastHidden, 2 * last * shape.hidden),
        (Buffer::LastNormed, 2 * last * shape.hidden),
        (Buffer::LastQueries, 2 * last * shape.q_width()),
        (Buffer::LastHeads, 2 * last * shape.q_width()),
        (Buffer::Codes, codes),
        (Buffer::Scales, codes / 32),
        (Buffer::Logits, 4 * rows * shape.experts),
        (Buffer::Chosen, 4 * pairs),
        (Buffer::RouteWeights, 4 * pairs),
        (Buffer::Counts, 4 * pairs.div_ceil(steps::SLOTS) * shape.experts),
        (Buffer::Starts, 4 * (shape.experts + 1)),
        (Buffer::Tiles, 4 * (shape.experts + 1)),
        (Buffer::Order, 4 * pairs),
        (Buffer::RoutePlaces, 4 * pairs),
        (Buffer::Routed, 2 * pairs * shape.hidden),
    ]
    .map(|(buffer, bytes)| (buffer, bytes as u64))
    .to_vec()
}
