//! `transformer_v1` through the driver's own interface, as `gpu.rs` does it: on the simulated driver in every test run, on a GPU by `make gpu-test`.

#![expect(
    clippy::disallowed_methods,
    reason = "short-lived programs without async around them"
)]
#![expect(clippy::panic, reason = "helpers of tests")]

use kernels::{
    cuda::{
        Device, Error,
        driver::{Gpu, Options},
        v1::CudaForward,
    },
    transformer_v1::{self as v1, Forward, Output, Params, Pool},
};
use rstest::rstest;
use std::{process::Command, sync::Arc};

const HASH: &str = "C0DEC0DE00112233445566778899AABBCCDDEEFF0123456789ABCDEF01234567";
const KEY: &str = "02feedface";
const NONCES: [i64; 3] = [0, 7, 1001];

#[test]
fn what_a_gpu_must_do_the_simulated_driver_shows() {
    let folder = tempfile::tempdir().expect("a folder");
    let built = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/cuda/host/build-host.sh"))
        .arg("--driver")
        .arg(folder.path())
        .output()
        .expect("build-host.sh runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let ledger = folder.path().join("ledger");
    let run = Command::new(std::env::current_exe().expect("this program"))
        .args(["--ignored", "--test-threads=1", "gpu_"])
        .env("LD_LIBRARY_PATH", folder.path())
        .env("SIMULATED_CUDA_LEDGER", &ledger)
        .output()
        .expect("this program runs");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && !said.contains(" 0 passed"), "{said}");
    let left = std::fs::read_to_string(&ledger).expect("a ledger");
    let clean = |line: &str| line.starts_with("device 0 allocations 0 bytes, pinned 0");
    assert!(left.lines().count() > 2 && left.lines().all(clean), "{left}");
}

fn params(dim: usize, (n_heads, n_kv_heads): (usize, usize), n_layers: usize, seq_len: usize) -> Params {
    Params {
        dim,
        n_layers,
        n_heads,
        n_kv_heads,
        vocab_size: 100,
        multiple_of: 64,
        seq_len,
        ..Params::default()
    }
}

fn open() -> Box<dyn Device> {
    Box::new(Gpu::open(&Options::default()).unwrap_or_else(|error| panic!("{error}")))
}

fn inputs(params: &Params) -> Vec<f32> {
    v1::inputs(HASH, KEY, &NONCES, params.seq_len * params.dim)
}

fn both(params: &Params) -> (Output, Output) {
    let pool = Arc::new(Pool::new(HASH, params.pool_len() as usize));
    let layers: Vec<usize> = (0..params.n_layers).collect();
    let mut gpu = CudaForward::load(open(), params.clone(), &pool).unwrap_or_else(|error| panic!("{error}"));
    let found = gpu.run(&inputs(params), &layers).expect("a run");
    assert_eq!(
        gpu.run(&inputs(params), &layers).expect("another"),
        found,
        "it repeats to the bit"
    );
    (found, Forward::new(params.clone(), pool).run(&inputs(params), &layers))
}

fn length(pairs: impl Iterator<Item = (f32, f32)>) -> f64 {
    pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

/// Heads as wide as the main network's, which are no multiple of eight; groups; one layer; one token; more tokens than a block has threads.
#[rstest]
#[case::heads_of_28(params(112, (4, 4), 3, 9))]
#[case::groups(params(96, (6, 2), 3, 17))]
#[case::one_layer(params(64, (4, 2), 1, 12))]
#[case::one_token(params(64, (4, 4), 2, 1))]
#[case::a_long_sequence(params(32, (2, 2), 2, 300))]
#[ignore = "needs a driver"]
fn gpu_what_each_layer_adds_is_what_it_adds_on_a_cpu(#[case] params: Params) {
    let (found, reference) = both(&params);
    let (dim, len) = (params.dim, params.seq_len * params.dim);
    let inputs = inputs(&params);
    let mut before: Vec<f32> = inputs
        .chunks_exact(len)
        .flat_map(|input| input[len - dim..].iter().copied())
        .collect();
    assert_eq!(found.last_states.len(), params.n_layers);
    for (layer, (found, reference)) in found.last_states.iter().zip(&reference.last_states).enumerate() {
        let added = length(reference.iter().copied().zip(before));
        let apart = length(reference.iter().copied().zip(found.iter().copied()));
        assert!(
            added > 0.0 && apart <= 0.01 * added,
            "layer {layer}: {apart} of {added}"
        );
        before = reference.clone();
    }
    let size = length(reference.logits.iter().map(|x| (*x, 0.0)));
    let apart = length(reference.logits.iter().copied().zip(found.logits.iter().copied()));
    assert!(apart <= 5e-3 * size, "{apart} of {size}");
}

#[test]
#[ignore = "needs a driver"]
fn gpu_what_it_cannot_run_is_named() {
    let pool = Pool::new(HASH, 50_000);
    let odd = params(36, (2, 2), 1, 4);
    let error = CudaForward::load(open(), odd, &pool).expect_err("36 is no multiple of 8");
    assert!(matches!(error, Error::Shape(_)), "{error}");
    let fits = params(64, (4, 4), 1, 4);
    let pool = Pool::new(HASH, fits.pool_len() as usize);
    let mut gpu = CudaForward::load(open(), fits, &pool).expect("weights");
    assert!(matches!(gpu.run(&[0.0; 100], &[]), Err(Error::Shape(_))));
}
