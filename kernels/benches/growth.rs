//! What a nonce of the reference costs, in one run: against the first version of its decoder (kept beside the tests), and
//! against reading the model's weights once from memory. Ends with status 1 when a nonce costs more than at first.

#![allow(missing_debug_implementations, reason = "a bench binary")]
#![expect(clippy::print_stdout, reason = "a program for people")]

#[path = "../tests/first/decoder.rs"]
mod first;

use kernels::{
    artifact,
    decoder::{Config, Dtype, Model, Recipe, tensors},
    householder,
    prefill_v2::{self, PrefillV2},
    scheme::{Prepared, Round, Scheme as _, generate_on},
};
use std::{
    hint::black_box,
    num::NonZero,
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

const TAG: &str = "public-tiny-v1";
/// Passes measured of each kind, taken in turn so that a busy machine is busy for all; the fastest counts.
const PASSES: usize = 15;
/// Tokens computed in a pass.
const TOKENS: usize = 8192;

fn main() -> ExitCode {
    let bandwidth = bandwidth();
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    println!("memory {:.1} GB/s on one core; {threads} threads", bandwidth / 1e9);
    println!(
        "{:<17} {:>4} {:>7}  {:>10}  {:>13}  {:>11}",
        "model", "type", "tokens", "one thread", "every core", "of a reading"
    );
    let mut holds = true;
    for recipe in Recipe::ALL {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let published = recipe.config().seq_len;
            for tokens in [published, 256] {
                let [then, now, together] = costs(recipe, dtype, tokens, threads);
                let reading = weight_bytes(&recipe.config()) / bandwidth;
                let ratio = |cost: Duration| then.as_secs_f64() / cost.as_secs_f64();
                let readings = now.as_secs_f64() / reading;
                println!(
                    "{recipe:<17} {dtype:>4} {tokens:>7}  {:>9.1}x  {:>12.1}x  {readings:>10.2}x",
                    ratio(now),
                    ratio(together),
                );
                holds &= ratio(now) >= 1.0;
            }
        }
    }
    if holds {
        ExitCode::SUCCESS
    } else {
        println!("a nonce costs more than in the first version");
        ExitCode::FAILURE
    }
}

/// Cost of a nonce: in the first version, now, and now with every core.
fn costs(recipe: Recipe, dtype: Dtype, tokens: usize, threads: usize) -> [Duration; 3] {
    let round = Round {
        block_hash: "AB".to_owned(),
        public_key: "02".to_owned(),
        seq_len: tokens,
        k_dim: 12,
        stronger_rng: false,
    };
    let nonces: Vec<i64> = (0..(TOKENS / tokens).max(4) as i64).collect();
    let mut first = FirstVersion::new(recipe, dtype, &round);
    let scheme = PrefillV2::new(Arc::new(Model::from_recipe(&recipe, TAG)), dtype);
    let mut prepared: Vec<Box<dyn Prepared>> = (0..threads).filter_map(|_| scheme.prepare(&round).ok()).collect();
    let mut best = [Duration::MAX; 3];
    for _ in 0..PASSES {
        let then = time(&mut || nonces.iter().for_each(|nonce| first.artifact(&round, *nonce)));
        let now = time(&mut || drop(black_box(generate_on(&mut prepared[..1], &nonces))));
        let together = time(&mut || drop(black_box(generate_on(&mut prepared, &nonces))));
        for (best, cost) in best.iter_mut().zip([then, now, together]) {
            *best = cost.min(*best);
        }
    }
    best.map(|whole| whole / nonces.len() as u32)
}

fn time(pass: &mut dyn FnMut()) -> Duration {
    let begun = Instant::now();
    pass();
    begun.elapsed()
}

/// A nonce as the first version computed it: its decoder between inputs and projection, which are still what they were.
struct FirstVersion {
    runner: first::Runner,
    input: Vec<f32>,
}

impl FirstVersion {
    fn new(recipe: Recipe, dtype: Dtype, round: &Round) -> Self {
        let config = recipe.config();
        let reflections = (0..config.layers)
            .map(|layer| householder::reflection_vector(&round.block_hash, layer, config.hidden))
            .collect();
        let input = vec![0.0; round.seq_len * config.hidden];
        let model = first::Model::new(recipe.name(), config, TAG).loaded_as(dtype);
        Self {
            runner: first::Runner::new(model, dtype, round.seq_len, reflections),
            input,
        }
    }

    fn artifact(&mut self, round: &Round, nonce: i64) {
        prefill_v2::fill_input(round, nonce, &mut self.input);
        let last = self.runner.run(&self.input);
        let projection = artifact::project(last, &round.block_hash, &round.public_key, nonce, round.k_dim);
        black_box(projection.map(|projection| projection.encode()));
    }
}

/// Bytes of all weights as they lie in memory.
fn weight_bytes(config: &Config) -> f64 {
    let elements: usize = tensors(config)
        .iter()
        .map(|tensor| tensor.shape.iter().product::<usize>())
        .sum();
    (elements * size_of::<f32>()) as f64
}

/// Bytes one core reads per second from memory far larger than its caches.
fn bandwidth() -> f64 {
    let memory = vec![1_u64; 1 << 25];
    let read = || {
        let mut sums = [0_u64; 32];
        for part in black_box(&memory).as_chunks::<32>().0 {
            for (sum, x) in sums.iter_mut().zip(part) {
                *sum = sum.wrapping_add(*x);
            }
        }
        black_box(sums);
    };
    let fastest = (0..PASSES).map(|_| time(&mut || read())).min().unwrap_or_default();
    size_of_val(&memory[..]) as f64 / fastest.as_secs_f64()
}
