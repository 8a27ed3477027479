//! The crate's decoder against the plain loops it began as, at sequence lengths around every tile of the fast one.

#[path = "first/decoder.rs"]
mod first;

use kernels::{
    decoder::{Config, Dtype, Model, Recipe, Runner},
    householder, rng,
};
use rstest::rstest;
use std::sync::Arc;

const TAG: &str = "public-tiny-v1";

fn reflections(config: &Config) -> Vec<Vec<f32>> {
    (0..config.layers)
        .map(|layer| householder::reflection_vector("AB", layer, config.hidden))
        .collect()
}

/// Last states of the crate's decoder and of the first one, on the same input.
fn both(recipe: Recipe, dtype: Dtype, tokens: usize) -> (Vec<f32>, Vec<f32>) {
    let config = recipe.config();
    let input = rng::normal(tokens as u32, tokens * config.hidden);
    let model = Arc::new(Model::from_recipe(&recipe, TAG).loaded_as(dtype));
    let mut now = Runner::new(model, dtype, tokens, reflections(&config));
    let model = first::Model::new(recipe.name(), config.clone(), TAG).loaded_as(dtype);
    let mut then = first::Runner::new(model, dtype, tokens, reflections(&config));
    (now.run(&input, None).to_vec(), then.run(&input).to_vec())
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[rstest]
fn single_precision_agrees_at_every_length(
    #[values(Recipe::TinyLlamaDense, Recipe::TinyQwen3Dense, Recipe::TinyQwen3Moe)] recipe: Recipe,
    #[values(1, 2, 7, 8, 9, 17, 63, 64, 65, 130)] tokens: usize,
) {
    let (now, then) = both(recipe, Dtype::F32, tokens);
    assert!(worst(&now, &then) < 5e-5, "{}", worst(&now, &then));
}

#[rstest]
fn bf16_agrees_within_its_own_noise(
    #[values(Recipe::TinyLlamaDense, Recipe::TinyQwen3Dense)] recipe: Recipe,
    #[values(1, 8, 65)] tokens: usize,
) {
    let (now, then) = both(recipe, Dtype::Bf16, tokens);
    assert!(worst(&now, &then) < 0.1, "{}", worst(&now, &then));
}
