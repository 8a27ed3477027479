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

mod part;
pub(in crate::cuda) mod steps;

pub use part::Part;

use super::{Error, MAX_ROWS, Shape, weights::Layout};

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
    /// Activations in eight bits.
    Codes,
    /// Their scales.
    Scales,
    /// The router's product: [row][expert], single precision.
    Logits,
    /// Experts of each row, best first.
    Chosen,
    /// Their weights.
    RouteWeights,
    /// How often each expert was chosen, by stretches of rows.
    Counts,
    /// First place of each expert among all rows sorted by expert, then their number.
    Starts,
    /// The same of tiles.
    Tiles,
    /// Pair of row and choice by place.
    Order,
    /// Place by pair.
    RoutePlaces,
    /// Outputs of the experts by place.
    Routed,
}

/// A place in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which buffer.
    pub buffer: Buffer,
    /// Bytes from its start.
    pub offset: u64,
}

impl Buffer {
    /// Where it begins.
    pub const fn start(self) -> Place {
        Place {
            buffer: self,
            offset: 0,
        }
    }
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
    /// Norm of all queries or keys of a row, and rotary embedding of a part of each head.
    WholeNormRope,
    /// Activations to eight bits.
    Quantize,
    /// silu(gate) × up to eight bits.
    SwigluQuantize,
    /// Products in eight bits, a matrix of weights a group of rows.
    GroupedGemmFp8,
    /// Logits of experts.
    Router,
    /// Logits to choices and weights.
    Route,
    /// Counts choices.
    CountRoutes,
    /// Sorts choices by expert.
    PlaceRoutes,
    /// Experts' outputs by weight.
    Combine,
    /// Words that follow from their place (burn-in).
    FillWords,
    /// Compares them (burn-in).
    CheckWords,
    /// Where each block ran (burn-in).
    Multiprocessors,
    /// Norm in half precision (`transformer_v1`, as all that follow).
    V1Norm,
    /// Rotary embedding of neighbours.
    V1Rope,
    /// Attention with its scores in half precision.
    V1Attention,
    /// silu(gate) × up.
    V1Swiglu,
    /// Residual addition.
    V1Add,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Self; 30] = [
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
        Self::WholeNormRope,
        Self::Quantize,
        Self::SwigluQuantize,
        Self::GroupedGemmFp8,
        Self::Router,
        Self::Route,
        Self::CountRoutes,
        Self::PlaceRoutes,
        Self::Combine,
        Self::FillWords,
        Self::CheckWords,
        Self::Multiprocessors,
        Self::V1Norm,
        Self::V1Rope,
        Self::V1Attention,
        Self::V1Swiglu,
        Self::V1Add,
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
            Self::WholeNormRope => "whole_norm_rope",
            Self::Quantize => "quantize",
            Self::SwigluQuantize => "swiglu_quantize",
            Self::GroupedGemmFp8 => "grouped_gemm_fp8",
            Self::Router => "router",
            Self::Route => "route",
            Self::CountRoutes => "count_routes",
            Self::PlaceRoutes => "place_routes",
            Self::Combine => "combine",
            Self::FillWords => "fill_words",
            Self::CheckWords => "check_words",
            Self::Multiprocessors => "multiprocessors",
            Self::V1Norm => "v1_norm",
            Self::V1Rope => "v1_rope",
            Self::V1Attention => "v1_attention",
            Self::V1Swiglu => "v1_swiglu",
            Self::V1Add => "v1_add",
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
    /// The same of numbers in half precision.
    HalfGemm(Gemm),
}

impl Step {
    /// Bytes (read, written) when every operand moves once.
    pub fn bytes(&self) -> (u64, u64) {
        match self {
            Self::Launch(launch) => launch.bytes,
            Self::Gemm(gemm) | Self::HalfGemm(gemm) => {
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
    /// Refuses more rows than a grid has.
    pub(in crate::cuda) fn check(self) -> Result<(), Error> {
        let rows = self.nonces.saturating_mul(self.seq_len);
        if rows > MAX_ROWS {
            Err(Error::Rows { rows })
        } else {
            Ok(())
        }
    }

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

/// The plan of a batch, which has at most [`MAX_ROWS`] rows.
pub fn plan(shape: &Shape, layout: &Layout, batch: Batch) -> Result<Plan, Error> {
    batch.check()?;
    Ok(Plan {
        steps: steps::of(shape, layout, batch),
        sizes: sizes(shape, batch),
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::Recipe;

    #[test]
    fn more_rows_than_a_grid_has_are_refused_by_name() {
        let shape = Shape::try_from(&Recipe::TinyQwen3Dense.config()).unwrap();
        let of = |nonces, seq_len| {
            let batch = Batch {
                nonces,
                seq_len,
                k_dim: 12,
                segments: 1,
            };
            plan(&shape, &Layout::new(&shape), batch)
        };
        let widest = of(63, 1024).unwrap();
        let grids = widest.steps.iter().filter_map(|step| match step {
            Step::Launch(launch) => Some(launch.grid),
            Step::Gemm(_) | Step::HalfGemm(_) => None,
        });
        assert!(grids.clone().all(|[_, y, z]| y <= 65_535 && z <= 65_535));
        assert!(
            grids.clone().any(|[_, y, _]| y == 64_512),
            "rows stand in the second dimension"
        );
        assert_eq!(of(64, 1024).unwrap_err(), Error::Rows { rows: 65_536 });
        assert_eq!(of(usize::MAX, 2).unwrap_err(), Error::Rows { rows: usize::MAX });
        assert!(of(65_535, 1).is_ok());
    }
}
