//! The model under examination: a pre-norm decoder in the residual form of the serving engine
//! (`docs/poc-v2.md`, section 4).
//!
//! Input: embeddings of one sequence. Output: the final-norm hidden state of its last token. A layer returns a pair
//! (hidden, residual); the hook reflects both before the next layer. Sequences never see each other.

mod arithmetic;
mod attention;
mod mlp;
mod moe;
mod norm;
mod recipe;
mod trace;
mod weights;

pub use arithmetic::{Arithmetic, Bf16, Dtype, F16, F32, ParseDtypeError};
pub use mlp::silu;
pub use recipe::{Config, InvalidConfig, MoeConfig, Recipe, UnknownRecipe};
pub use trace::{LayerTrace, Routed, Trace};
pub use weights::{TensorSpec, tensor, tensors};

pub(crate) use attention::angles;
pub(crate) use mlp::gate_by;
pub(crate) use norm::rms;

use crate::{householder, vector};
use attention::{Attention, Rope};
use mlp::Mlp;
use std::sync::Arc;

/// A decoder with its weights in memory.
#[derive(Debug, Clone)]
pub struct Model {
    name: String,
    config: Config,
    layers: Vec<Layer>,
    norm: Vec<f32>,
}

#[derive(Debug, Clone)]
struct Layer {
    input_norm: Vec<f32>,
    attention: Attention,
    post_norm: Vec<f32>,
    mlp: Mlp,
}

impl Model {
    /// The model of a recipe with the weights of a tag. Takes milliseconds; do it once.
    pub fn from_recipe(recipe: &Recipe, weights_tag: &str) -> Self {
        Self::build(recipe.name(), recipe.config(), weights_tag)
    }

    /// A model of any shape, its weights seeded by tag, name and tensor names as those of the recipes are.
    pub fn from_config(name: &str, config: Config, weights_tag: &str) -> Result<Self, InvalidConfig> {
        config.check()?;
        Ok(Self::build(name, config, weights_tag))
    }

    fn build(name: &str, config: Config, weights_tag: &str) -> Self {
        let source = weights::Source {
            tag: weights_tag,
            model: name,
        };
        let layers = (0..config.layers)
            .map(|index| {
                let prefix = format!("layers.{index}");
                Layer {
                    input_norm: source.norm(&format!("{prefix}.input_layernorm"), config.hidden),
                    attention: Attention::build(&source, &format!("{prefix}.self_attn"), &config),
                    post_norm: source.norm(&format!("{prefix}.post_attention_layernorm"), config.hidden),
                    mlp: Mlp::build(&source, &format!("{prefix}.mlp"), &config),
                }
            })
            .collect();
        let norm = source.norm("norm", config.hidden);
        Self {
            name: name.to_owned(),
            config,
            layers,
            norm,
        }
    }

    /// Name of the recipe, part of the weights' seed strings.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same model with every weight rounded as when loaded in `dtype`.
    #[must_use]
    pub fn loaded_as(&self, dtype: Dtype) -> Self {
        let mut model = self.clone();
        if dtype == Dtype::Bf16 {
            weights::round_norm(&mut model.norm);
            for layer in &mut model.layers {
                weights::round_norm(&mut layer.input_norm);
                weights::round_norm(&mut layer.post_norm);
                layer.attention.round();
                layer.mlp.round();
            }
        }
        model
    }
}

/// One sequence length and one set of reflections on a loaded model, with the buffers to run it. Reused for all
/// nonces of a round.
#[derive(Debug)]
pub struct Runner {
    model: Arc<Model>,
    dtype: Dtype,
    seq_len: usize,
    rope: Rope,
    reflections: Vec<Vec<f32>>,
    work: Work,
}

/// Buffers of one forward pass: `seq_len` rows of each sequence, and the last row of each.
#[derive(Debug, Default)]
struct Work {
    hidden: Vec<f32>,
    residual: Vec<f32>,
    normed: Vec<f32>,
    asking: Vec<f32>,
    last: Vec<f32>,
    attention: attention::Work,
    mlp: mlp::Work,
}

impl Runner {
    /// `model` must come from [`Model::loaded_as`] with the same `dtype`. `reflections` holds one unit vector of the
    /// model's width per layer; none at all runs the model without hooks.
    pub fn new(model: Arc<Model>, dtype: Dtype, seq_len: usize, mut reflections: Vec<Vec<f32>>) -> Self {
        for element in reflections.iter_mut().flatten() {
            *element = dtype.round(*element);
        }
        let rope = Rope::new(&model.config, seq_len);
        Self {
            model,
            dtype,
            seq_len,
            rope,
            reflections,
            work: Work::default(),
        }
    }

    /// The model this runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Number of f32 elements of an input: sequence length times width.
    pub fn input_len(&self) -> usize {
        self.seq_len * self.model.config.hidden
    }

    /// Runs one sequence of embeddings, row-major [`seq_len`, `hidden`], and returns the last token's state after the
    /// final norm, `hidden` elements. Rows that later layers cannot see are not computed.
    ///
    /// # Panics
    /// When `input` has another length than [`Runner::input_len`].
    pub fn run(&mut self, input: &[f32], trace: Option<&mut Trace>) -> &[f32] {
        assert_eq!(input.len(), self.input_len(), "an input has seq_len * hidden elements");
        self.dispatch(input, trace)
    }

    /// As [`Runner::run`] for any number of sequences, one after the other in `inputs`: their last states, in the same order and
    /// to the bit what each gives alone. Weights are read once for all of them.
    ///
    /// # Panics
    /// When the length of `inputs` is no multiple of [`Runner::input_len`].
    pub fn run_all(&mut self, inputs: &[f32]) -> &[f32] {
        assert!(
            inputs.len().is_multiple_of(self.input_len()),
            "inputs have seq_len * hidden elements each"
        );
        self.dispatch(inputs, None)
    }

    fn dispatch(&mut self, inputs: &[f32], trace: Option<&mut Trace>) -> &[f32] {
        match self.dtype {
            Dtype::F32 => self.forward::<F32>(inputs, trace),
            Dtype::Bf16 => self.forward::<Bf16>(inputs, trace),
        }
        &self.work.last
    }

    fn forward<A: Arithmetic>(&mut self, inputs: &[f32], mut trace: Option<&mut Trace>) {
        let Self {
            model,
            seq_len,
            rope,
            reflections,
            work,
            ..
        } = self;
        let (width, eps) = (model.config.hidden, model.config.eps);
        work.begin::<A>(inputs);
        for (index, layer) in model.layers.iter().enumerate() {
            if index > 0 {
                norm::add::<A>(&work.hidden, &mut work.residual);
            }
            norm::rms::<A>(&work.residual, &layer.input_norm, eps, &mut work.normed);
            // Only the last token leaves the last layer; the others matter to it through keys and values alone.
            let first = if index + 1 == model.layers.len() {
                work.keep_last(*seq_len, width);
                *seq_len - 1
            } else {
                0
            };
            let rows = 0..work.residual.len();
            let asking = if first > 0 { &work.asking } else { &work.normed };
            layer.attention.forward::<A>(
                (&work.normed, asking),
                first,
                rope,
                &mut work.attention,
                &mut work.hidden[rows.clone()],
            );
            norm::add::<A>(&work.hidden[rows.clone()], &mut work.residual);
            norm::rms::<A>(&work.residual, &layer.post_norm, eps, &mut work.normed[rows.clone()]);
            layer.mlp.forward::<A>(
                &work.normed[rows.clone()],
                &mut work.mlp,
                &mut work.hidden[rows.clone()],
                trace.as_deref_mut(),
            );
            if let Some(v) = reflections.get(index) {
                householder::reflect::<A>(&mut work.hidden[rows.clone()], v);
                householder::reflect::<A>(&mut work.residual[rows.clone()], v);
            }
            if let Some(trace) = trace.as_deref_mut() {
                let last = rows.end - width..rows.end;
                trace.layers.push(LayerTrace {
                    hidden: work.hidden[last.clone()].to_vec(),
                    residual: work.residual[last].to_vec(),
                });
            }
        }
        let rows = 0..work.residual.len();
        norm::add::<A>(&work.hidden[rows], &mut work.residual);
        work.last.resize(work.residual.len(), 0.0);
        norm::rms::<A>(&work.residual, &model.norm, eps, &mut work.last);
    }
}

impl Work {
    fn begin<A: Arithmetic>(&mut self, inputs: &[f32]) {
        self.hidden.resize(inputs.len(), 0.0);
        self.normed.resize(inputs.len(), 0.0);
        self.residual.resize(inputs.len(), 0.0);
        vector::widest(
            #[inline(always)]
            || {
                for (residual, &x) in self.residual.iter_mut().zip(inputs) {
                    *residual = A::round(x);
                }
            },
        );
    }

    /// Leaves the last row of each sequence in `residual`, and writes that of `normed` to `asking`.
    fn keep_last(&mut self, seq_len: usize, width: usize) {
        let lasts = |rows: &[f32], to: &mut Vec<f32>| {
            to.clear();
            for rows in rows.chunks_exact(seq_len * width) {
                to.extend_from_slice(&rows[(seq_len - 1) * width..]);
            }
        };
        lasts(&self.residual, &mut self.last);
        lasts(&self.normed, &mut self.asking);
        std::mem::swap(&mut self.residual, &mut self.last);
    }
}
