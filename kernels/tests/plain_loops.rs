//! The crate's decoder against the specification written down as plain loops (`docs/poc-v2.md`, section 4), at sequence lengths
//! around every tile of the fast one, and against itself with several sequences at a time.

use kernels::{
    decoder::{Config, Dtype, Model, Recipe, Runner, tensor},
    householder, rng,
};
use rstest::rstest;
use std::sync::Arc;

const TAG: &str = "public-tiny-v1";

/// One model as its tensors, rounded to its type whenever they are asked for.
struct Plain {
    recipe: Recipe,
    config: Config,
    dtype: Dtype,
}

impl Plain {
    fn tensor(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        let mut elements = tensor(TAG, self.recipe.name(), name, shape);
        self.round(&mut elements);
        elements
    }

    fn round(&self, elements: &mut [f32]) {
        for x in elements {
            *x = self.dtype.round(*x);
        }
    }

    fn linear(&self, name: &str, out: usize, x: &[f32], inp: usize) -> Vec<f32> {
        let weights = self.tensor(name, &[out, inp]);
        let mut y = Vec::new();
        for row in x.chunks_exact(inp) {
            for weights in weights.chunks_exact(inp) {
                let sum = row.iter().zip(weights).fold(0.0, |sum, (x, w)| sum + x * w);
                y.push(self.dtype.round(sum));
            }
        }
        y
    }

    fn norm(&self, name: &str, x: &[f32], width: usize) -> Vec<f32> {
        let weights = self.tensor(name, &[width]);
        let mut y = Vec::new();
        for row in x.chunks_exact(width) {
            let square = row.iter().map(|x| x * x).sum::<f32>() / width as f32;
            let scale = 1.0 / (square + self.config.eps as f32).sqrt();
            for (x, weight) in row.iter().zip(&weights) {
                y.push(self.dtype.round(self.dtype.round(x * scale) * weight));
            }
        }
        y
    }

    fn turn(&self, rows: &mut [f32], width: usize) {
        let (dim, half) = (self.config.head_dim, self.config.head_dim / 2);
        for (position, row) in rows.chunks_exact_mut(width).enumerate() {
            for head in row.chunks_exact_mut(dim) {
                for pair in 0..half {
                    let frequency = self.config.theta.powf(-2.0 * pair as f64 / dim as f64) as f32;
                    let (sin, cos) = (position as f32 * frequency).sin_cos();
                    let (x, y) = (head[pair], head[pair + half]);
                    head[pair] = self.dtype.round(x * cos - y * sin);
                    head[pair + half] = self.dtype.round(y * cos + x * sin);
                }
            }
        }
    }

    fn attention(&self, at: &str, x: &[f32]) -> Vec<f32> {
        let Config {
            hidden,
            heads,
            kv_heads,
            head_dim: dim,
            ..
        } = self.config;
        let (width, key_width) = (heads * dim, kv_heads * dim);
        let mut q = self.linear(&format!("{at}.q_proj"), width, x, hidden);
        let mut k = self.linear(&format!("{at}.k_proj"), key_width, x, hidden);
        let v = self.linear(&format!("{at}.v_proj"), key_width, x, hidden);
        if self.config.qk_norm {
            q = self.norm(&format!("{at}.q_norm"), &q, dim);
            k = self.norm(&format!("{at}.k_norm"), &k, dim);
        }
        self.turn(&mut q, width);
        self.turn(&mut k, key_width);
        let mut outputs = Vec::new();
        for token in 0..x.len() / hidden {
            for head in 0..heads {
                let query = &q[token * width + head * dim..][..dim];
                let place = |key: usize| key * key_width + head / (heads / kv_heads) * dim;
                let mut scores: Vec<f32> = (0..=token)
                    .map(|key| {
                        let dot: f32 = query.iter().zip(&k[place(key)..]).map(|(q, k)| q * k).sum();
                        dot / (dim as f32).sqrt()
                    })
                    .collect();
                softmax(&mut scores);
                for element in 0..dim {
                    let values = (0..=token).map(|key| scores[key] * v[place(key) + element]);
                    outputs.push(self.dtype.round(values.sum()));
                }
            }
        }
        self.linear(&format!("{at}.o_proj"), hidden, &outputs, width)
    }

    fn gated(&self, at: &str, x: &[f32], inner: usize) -> Vec<f32> {
        let gate = self.linear(&format!("{at}.gate_proj"), inner, x, self.config.hidden);
        let up = self.linear(&format!("{at}.up_proj"), inner, x, self.config.hidden);
        let mut product: Vec<f32> = gate
            .iter()
            .zip(&up)
            .map(|(gate, up)| self.dtype.round(gate / (1.0 + (-gate).exp())) * up)
            .collect();
        self.round(&mut product);
        self.linear(&format!("{at}.down_proj"), self.config.hidden, &product, inner)
    }

    fn mlp(&self, at: &str, x: &[f32]) -> Vec<f32> {
        let Some(moe) = &self.config.moe else {
            return self.gated(at, x, self.config.intermediate);
        };
        let mut logits = self.linear(&format!("{at}.gate"), moe.experts, x, self.config.hidden);
        let experts: Vec<Vec<f32>> = (0..moe.experts)
            .map(|expert| self.gated(&format!("{at}.experts.{expert}"), x, moe.intermediate))
            .collect();
        let mut out = Vec::new();
        for (token, probabilities) in logits.chunks_exact_mut(moe.experts).enumerate() {
            softmax(probabilities);
            let mut chosen: Vec<usize> = (0..moe.experts).collect();
            chosen.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
            chosen.truncate(moe.top_k);
            let total: f32 = chosen.iter().map(|&expert| probabilities[expert]).sum();
            for element in 0..self.config.hidden {
                let place = token * self.config.hidden + element;
                let parts = chosen
                    .iter()
                    .map(|&expert| probabilities[expert] / total * experts[expert][place]);
                out.push(self.dtype.round(parts.sum()));
            }
        }
        out
    }

    fn reflect(&self, rows: &mut [f32], v: &[f32]) {
        let round = |x: f32| self.dtype.round(x);
        for row in rows.chunks_exact_mut(v.len()) {
            let dot: f32 = row.iter().zip(v).map(|(x, v)| round(x * v)).sum();
            for (x, v) in row.iter_mut().zip(v) {
                *x = round(*x - round(round(2.0 * round(dot)) * v));
            }
        }
    }

    fn run(&self, input: &[f32]) -> Vec<f32> {
        let width = self.config.hidden;
        let add = |hidden: &[f32], residual: &mut [f32]| {
            for (residual, hidden) in residual.iter_mut().zip(hidden) {
                *residual = self.dtype.round(hidden + *residual);
            }
        };
        let mut residual = input.to_vec();
        self.round(&mut residual);
        let mut hidden = vec![0.0; input.len()];
        for (index, mut v) in reflections(&self.config).into_iter().enumerate() {
            self.round(&mut v);
            let at = format!("layers.{index}");
            add(&hidden, &mut residual);
            let normed = self.norm(&format!("{at}.input_layernorm"), &residual, width);
            hidden = self.attention(&format!("{at}.self_attn"), &normed);
            add(&hidden, &mut residual);
            let normed = self.norm(&format!("{at}.post_attention_layernorm"), &residual, width);
            hidden = self.mlp(&format!("{at}.mlp"), &normed);
            self.reflect(&mut hidden, &v);
            self.reflect(&mut residual, &v);
        }
        add(&hidden, &mut residual);
        self.norm("norm", &residual[residual.len() - width..], width)
    }
}

fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for score in &mut *scores {
        *score = (*score - largest).exp();
    }
    let total: f32 = scores.iter().sum();
    for score in scores {
        *score /= total;
    }
}

fn reflections(config: &Config) -> Vec<Vec<f32>> {
    (0..config.layers)
        .map(|layer| householder::reflection_vector("AB", layer, config.hidden))
        .collect()
}

fn runner(recipe: Recipe, dtype: Dtype, tokens: usize) -> Runner {
    let model = Arc::new(Model::from_recipe(&recipe, TAG).loaded_as(dtype));
    Runner::new(model, dtype, tokens, reflections(&recipe.config()))
}

/// Largest difference of the last states of the crate's decoder and of the plain loops, on the same input.
fn difference(recipe: Recipe, dtype: Dtype, tokens: usize) -> f32 {
    let config = recipe.config();
    let input = rng::normal(tokens as u32, tokens * config.hidden);
    let mut runner = runner(recipe, dtype, tokens);
    let plain = Plain { recipe, config, dtype }.run(&input);
    let fast = runner.run(&input, None);
    assert_eq!(fast.len(), plain.len());
    fast.iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[rstest]
fn single_precision_agrees_at_every_length(
    #[values(Recipe::TinyLlamaDense, Recipe::TinyQwen3Dense, Recipe::TinyQwen3Moe)] recipe: Recipe,
    #[values(1, 2, 7, 8, 9, 17, 63, 64, 65, 130)] tokens: usize,
) {
    let difference = difference(recipe, Dtype::F32, tokens);
    assert!(difference < 5e-5, "{difference}");
}

#[rstest]
fn bf16_agrees_within_its_own_noise(
    #[values(Recipe::TinyLlamaDense, Recipe::TinyQwen3Dense)] recipe: Recipe,
    #[values(1, 8, 65)] tokens: usize,
) {
    let difference = difference(recipe, Dtype::Bf16, tokens);
    assert!(difference < 0.1, "{difference}");
}

#[rstest]
fn sequences_computed_together_give_to_the_bit_what_each_gives_alone(
    #[values(Recipe::TinyLlamaDense, Recipe::TinyQwen3Dense, Recipe::TinyQwen3Moe)] recipe: Recipe,
    #[values(Dtype::F32, Dtype::Bf16)] dtype: Dtype,
    #[values(1, 5, 16, 70)] tokens: usize,
    #[values(1, 3, 9)] sequences: usize,
) {
    let mut runner = runner(recipe, dtype, tokens);
    let inputs = rng::normal(7, sequences * runner.input_len());
    let alone: Vec<f32> = inputs
        .chunks_exact(runner.input_len())
        .flat_map(|input| runner.run(input, None).to_vec())
        .collect();
    assert_eq!(runner.run_all(&inputs), alone);
}
