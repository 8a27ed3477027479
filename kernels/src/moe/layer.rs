//! The stack: layers over a residual stream, reflected after each.

use super::{Matrix, Scoring, Shape, Source, attention::Attention, choose, logits};
use crate::{
    decoder::{Arithmetic, Bf16, gate_by, rms},
    fp8::{Blocks, Rows},
    householder,
};

/// A decoder with its weights in memory.
#[derive(Debug, Clone)]
pub struct Model {
    shape: Shape,
    layers: Vec<Layer>,
    norm: Vec<f32>,
}

#[derive(Debug, Clone)]
struct Layer {
    input_norm: Vec<f32>,
    attention: Attention,
    post_norm: Vec<f32>,
    router: Vec<f32>,
    bias: Option<Vec<f32>>,
    experts: Vec<[Blocks; 3]>,
}

/// One token's experts.
#[derive(Debug, Clone, PartialEq)]
pub struct Routed {
    /// Best first.
    pub experts: Vec<usize>,
    /// Their weights, summing to one.
    pub weights: Vec<f32>,
    /// What separates the worst chosen from the best one left out: of sigmoids with bias the difference, of a softmax that of the logits.
    pub margin: f32,
}

impl Model {
    /// Takes a model's weights into memory.
    ///
    /// # Panics
    /// When the shape is none that [`Shape::check`] lets pass.
    pub fn new(shape: &Shape, source: &dyn Source) -> Self {
        let layers = (0..shape.layers)
            .map(|layer| Layer::new(shape, source, layer))
            .collect();
        Self {
            shape: shape.clone(),
            layers,
            norm: source.norm("norm", shape.hidden),
        }
    }

    /// Shape of the model.
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Runs one layer over whole sequences of the residual stream, in place: what enters is what the layer's first norm reads, what
    /// leaves what the next layer's does, both streams reflected by `v`. Only the last rows of the last layer mean something: it treats
    /// all rows as it must treat those.
    pub fn layer(&self, layer: usize, residual: &mut [f32], seq_len: usize, v: &[f32]) -> Vec<Routed> {
        let weights = &self.layers[layer];
        let normed = self.normed(residual, &weights.input_norm);
        let rounded = layer + 1 < self.shape.layers;
        let mut hidden = weights.attention.forward(&self.shape, &normed, seq_len, rounded);
        add(&hidden, residual);
        let routed = weights.experts(&self.shape, &self.normed(residual, &weights.post_norm), &mut hidden);
        householder::reflect::<Bf16>(&mut hidden, v);
        householder::reflect::<Bf16>(residual, v);
        add(&hidden, residual);
        routed
    }

    /// The last state of each sequence, normed.
    pub fn states(&self, residual: &[f32], seq_len: usize) -> Vec<f32> {
        let width = self.shape.hidden;
        let last: Vec<f32> = residual
            .chunks_exact(seq_len * width)
            .flat_map(|rows| rows[(seq_len - 1) * width..].iter().copied())
            .collect();
        self.normed(&last, &self.norm)
    }

    fn normed(&self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        rms::<Bf16>(x, weight, f64::from(self.shape.eps), &mut out);
        out
    }
}

impl Layer {
    fn new(shape: &Shape, source: &dyn Source, layer: usize) -> Self {
        let norm = |name: &str| source.norm(&format!("layers.{layer}.{name}"), shape.hidden);
        let expert = |expert| {
            [Matrix::Gate(expert), Matrix::Up(expert), Matrix::Down(expert)]
                .map(|matrix| source.matrix(shape, layer, matrix).into_owned())
        };
        Self {
            input_norm: norm("input_layernorm"),
            attention: Attention::new(source, shape, layer),
            post_norm: norm("post_attention_layernorm"),
            router: source.router(shape, layer),
            bias: (shape.scoring == Scoring::Sigmoid).then(|| source.bias(shape, layer)),
            experts: (0..shape.experts).map(expert).collect(),
        }
    }

    /// Outputs of each token's experts, best first, by weight, in single precision and rounded once.
    fn experts(&self, shape: &Shape, normed: &[f32], out: &mut [f32]) -> Vec<Routed> {
        let rows = Rows::quantise(normed, shape.hidden);
        let routed: Vec<Routed> = logits(normed, &self.router, shape.hidden)
            .chunks_exact(shape.experts)
            .map(|logits| choose(logits, self.bias.as_deref(), shape.top_k))
            .collect();
        for (row, (routed, out)) in routed.iter().zip(out.chunks_exact_mut(shape.hidden)).enumerate() {
            let x = rows.row(row);
            out.fill(0.0);
            for (&expert, weight) in routed.experts.iter().zip(&routed.weights) {
                for (out, y) in out.iter_mut().zip(self.expert(expert, &x)) {
                    *out += weight * y;
                }
            }
            for out in out {
                *out = Bf16::round(*out);
            }
        }
        routed
    }

    fn expert(&self, expert: usize, x: &Rows) -> Vec<f32> {
        let [gate, up, down] = &self.experts[expert];
        let (mut gated, up) = (gate.forward(x), up.forward(x));
        gate_by::<Bf16>(&mut gated, &up);
        down.forward(&Rows::quantise(&gated, down.inp()))
    }
}

fn add(hidden: &[f32], residual: &mut [f32]) {
    for (residual, hidden) in residual.iter_mut().zip(hidden) {
        *residual = Bf16::round(*hidden + *residual);
    }
}
