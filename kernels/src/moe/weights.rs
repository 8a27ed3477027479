//! Weights that grow from a tag, quantised by blocks as a checkpoint's are.

use super::Shape;
use crate::{
    decoder::{Arithmetic, Bf16, tensor},
    fp8::Blocks,
};
use std::{borrow::Cow, collections::BTreeMap};

/// Matrices in eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matrix {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Output of attention.
    O,
    /// Gate of an expert.
    Gate(usize),
    /// What it lets through.
    Up(usize),
    /// Back to the hidden width.
    Down(usize),
}

impl Matrix {
    /// As publishers name it within a layer.
    pub fn name(self) -> String {
        let expert = |expert: usize, name: &str| format!("block_sparse_moe.experts.{expert}.{name}");
        match self {
            Self::Q => "self_attn.q_proj".into(),
            Self::K => "self_attn.k_proj".into(),
            Self::V => "self_attn.v_proj".into(),
            Self::O => "self_attn.o_proj".into(),
            Self::Gate(index) => expert(index, "w1"),
            Self::Up(index) => expert(index, "w3"),
            Self::Down(index) => expert(index, "w2"),
        }
    }

    /// Length of output and of input rows.
    pub const fn sides(self, shape: &Shape) -> [usize; 2] {
        match self {
            Self::Q => [shape.q_width(), shape.hidden],
            Self::K | Self::V => [shape.kv_width(), shape.hidden],
            Self::O => [shape.hidden, shape.q_width()],
            Self::Gate(_) | Self::Up(_) => [shape.inner, shape.hidden],
            Self::Down(_) => [shape.hidden, shape.inner],
        }
    }
}

/// Where a model's weights come from.
pub trait Source {
    /// A matrix of a layer.
    fn matrix(&self, shape: &Shape, layer: usize, matrix: Matrix) -> Cow<'_, Blocks>;
    /// A norm by its name, in bf16.
    fn norm(&self, name: &str, width: usize) -> Vec<f32>;
    /// A layer's router, [expert][hidden], in single precision.
    fn router(&self, shape: &Shape, layer: usize) -> Vec<f32>;
    /// What a layer adds to the scores for its choice.
    fn bias(&self, shape: &Shape, layer: usize) -> Vec<f32>;
}

/// Weights of a tag: seeded by tag, model and tensor as those of [`crate::decoder`] are, then quantised.
#[derive(Debug, Clone)]
pub struct Grown {
    /// The tag.
    pub tag: String,
    /// Name of the model, part of the seed strings.
    pub model: String,
}

impl Grown {
    fn tensor(&self, name: &str, sides: &[usize]) -> Vec<f32> {
        tensor(&self.tag, &self.model, name, sides)
    }
}

impl Source for Grown {
    fn matrix(&self, shape: &Shape, layer: usize, matrix: Matrix) -> Cow<'_, Blocks> {
        let [out, inp] = matrix.sides(shape);
        let weights = self.tensor(&format!("layers.{layer}.{}", matrix.name()), &[out, inp]);
        Cow::Owned(Blocks::quantise(&weights, out, inp))
    }

    fn norm(&self, name: &str, width: usize) -> Vec<f32> {
        self.tensor(name, &[width]).into_iter().map(Bf16::round).collect()
    }

    fn router(&self, shape: &Shape, layer: usize) -> Vec<f32> {
        let name = format!("layers.{layer}.block_sparse_moe.gate");
        self.tensor(&name, &[shape.experts, shape.hidden])
    }

    fn bias(&self, shape: &Shape, layer: usize) -> Vec<f32> {
        let name = format!("layers.{layer}.block_sparse_moe.e_score_correction_bias");
        self.tensor(&name, &[shape.experts])
    }
}

/// A few experts of one layer that stand for all of all layers: enough to time a stack on, and it fits a host's memory. Norms, routers
/// and biases are each layer's own.
#[derive(Debug)]
pub struct Repeated {
    grown: Grown,
    experts: usize,
    matrices: BTreeMap<Matrix, Blocks>,
}

impl Repeated {
    /// Grows `experts` experts and one attention.
    pub fn new(grown: Grown, shape: &Shape, experts: usize) -> Self {
        let experts = experts.clamp(1, shape.experts);
        let matrices = [Matrix::Q, Matrix::K, Matrix::V, Matrix::O]
            .into_iter()
            .chain((0..experts).flat_map(|expert| [Matrix::Gate(expert), Matrix::Up(expert), Matrix::Down(expert)]))
            .map(|matrix| (matrix, grown.matrix(shape, 0, matrix).into_owned()))
            .collect();
        Self {
            grown,
            experts,
            matrices,
        }
    }
}

impl Source for Repeated {
    fn matrix(&self, _: &Shape, _: usize, matrix: Matrix) -> Cow<'_, Blocks> {
        let stands = match matrix {
            Matrix::Gate(expert) => Matrix::Gate(expert % self.experts),
            Matrix::Up(expert) => Matrix::Up(expert % self.experts),
            Matrix::Down(expert) => Matrix::Down(expert % self.experts),
            other => other,
        };
        Cow::Borrowed(&self.matrices[&stands])
    }

    fn norm(&self, name: &str, width: usize) -> Vec<f32> {
        self.grown.norm(name, width)
    }

    fn router(&self, shape: &Shape, layer: usize) -> Vec<f32> {
        self.grown.router(shape, layer)
    }

    fn bias(&self, shape: &Shape, layer: usize) -> Vec<f32> {
        self.grown.bias(shape, layer)
    }
}
