//! What a nonce of the reference costs, in one run with reading the model's weights once from memory. Ends with status 1 when,
//! on a machine with 512-bit units, a nonce of a published length costs one thread more than two readings, or three where
//! checks of overflow are compiled in.

#![allow(missing_debug_implementations, reason = "a bench binary")]
#![expect(clippy::print_stdout, reason = "a program for people")]

use kernels::{
    decoder::{Config, Dtype, Model, Recipe, tensors},
    prefill_v2::PrefillV2,
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
const PASSES: usize = 40;
/// Tokens computed in a pass: about as long as reading [`MEMORY`] takes.
const TOKENS: usize = 2048;
/// Numbers of eight bytes that are read: far more than caches hold.
const MEMORY: usize = 1 << 25;
/// Readings of its weights that a nonce of a published length may cost.
const READINGS: f64 = if cfg!(debug_assertions) { 3.0 } else { 2.0 };

fn main() -> ExitCode {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let memory = vec![1_u64; MEMORY];
    println!("readings of the weights as they lie in memory, four bytes each, and as a file of the type has them");
    println!(
        "{:<17} {:>4} {:>7}  {:>10}  {:>11}  {:>9}  {:>8}  {:>12}",
        "model", "type", "tokens", "one thread", "memory GB/s", "in memory", "in files", "every core"
    );
    let mut holds = true;
    for recipe in Recipe::ALL {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let published = recipe.config().seq_len;
            for tokens in [published, 256] {
                let costs = costs(recipe, dtype, tokens, threads, &memory);
                let bandwidth = size_of_val(&memory[..]) as f64 / costs.memory.as_secs_f64();
                let weights = weights(&recipe.config()) as f64;
                let readings = |width: usize| costs.alone.as_secs_f64() * bandwidth / (weights * width as f64);
                let in_files = match dtype {
                    Dtype::F32 => readings(4),
                    Dtype::Bf16 => readings(2),
                };
                println!(
                    "{recipe:<17} {dtype:>4} {tokens:>7}  {:>7.1} us  {:>11.1}  {:>9.2}  {in_files:>8.2}  {:>10.0}/s",
                    costs.alone.as_secs_f64() * 1e6,
                    bandwidth / 1e9,
                    readings(4),
                    1.0 / costs.together.as_secs_f64(),
                );
                holds &= tokens != published || readings(4) <= READINGS;
            }
        }
    }
    if holds || !matches!(pulp::Arch::new(), pulp::Arch::V4(_)) {
        ExitCode::SUCCESS
    } else {
        println!("a nonce costs more than {READINGS} readings of its weights");
        ExitCode::FAILURE
    }
}

/// A nonce on one thread and on every core, and reading the memory once on one core.
struct Costs {
    alone: Duration,
    together: Duration,
    memory: Duration,
}

fn costs(recipe: Recipe, dtype: Dtype, tokens: usize, threads: usize, memory: &[u64]) -> Costs {
    let round = Round {
        block_hash: "AB".to_owned(),
        public_key: "02".to_owned(),
        seq_len: tokens,
        k_dim: 12,
        stronger_rng: false,
    };
    let nonces: Vec<i64> = (0..(TOKENS / tokens) as i64).collect();
    let scheme = PrefillV2::new(Arc::new(Model::from_recipe(&recipe, TAG)), dtype);
    let mut prepared: Vec<Box<dyn Prepared>> = (0..threads).filter_map(|_| scheme.prepare(&round).ok()).collect();
    let mut best = Costs {
        alone: Duration::MAX,
        together: Duration::MAX,
        memory: Duration::MAX,
    };
    for _ in 0..PASSES {
        let alone = time(&mut || drop(black_box(generate_on(&mut prepared[..1], &nonces))));
        let together = time(&mut || drop(black_box(generate_on(&mut prepared, &nonces))));
        best.alone = best.alone.min(alone / nonces.len() as u32);
        best.together = best.together.min(together / nonces.len() as u32);
        best.memory = best.memory.min(time(&mut || read(memory)));
    }
    best
}

fn time(pass: &mut dyn FnMut()) -> Duration {
    let begun = Instant::now();
    pass();
    begun.elapsed()
}

fn read(memory: &[u64]) {
    let mut sums = [0_u64; 32];
    for part in black_box(memory).as_chunks::<32>().0 {
        for (sum, x) in sums.iter_mut().zip(part) {
            *sum = sum.wrapping_add(*x);
        }
    }
    black_box(sums);
}

/// How many weights a model has.
fn weights(config: &Config) -> usize {
    tensors(config)
        .iter()
        .map(|tensor| tensor.shape.iter().product::<usize>())
        .sum()
}
