//! Stacks of experts in eight bits through the driver's interface.

use super::{TAG, chain, generate, prepare, round, simulated, text, worst};
use kernels::{
    cuda::{
        Error,
        driver::{Gpu, Options},
        moe::CudaMoePrefillV2,
    },
    moe::{Grown, Model, MoePrefillV2, QkNorm, Repeated, Scoring, Shape, Source},
};
use rstest::rstest;
use std::sync::Arc;

/// Two stacks in the same arithmetic; where a choice was close one row may have gone to another expert.
const ARTIFACT: f64 = 0.1;

fn shape() -> Shape {
    Shape {
        hidden: 256,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        rotary: 32,
        experts: 10,
        top_k: 3,
        inner: 128,
        ..Shape::minimax_m2(3)
    }
}

fn grown() -> Grown {
    Grown {
        tag: TAG.into(),
        model: "experts".into(),
    }
}

fn try_on_gpu(shape: &Shape, source: &dyn Source, nonces: usize, seq_len: usize) -> Result<CudaMoePrefillV2, Error> {
    let gpu = Gpu::open(&Options::default())?;
    CudaMoePrefillV2::load(Box::new(gpu), shape, source, nonces, seq_len)
}

#[rstest]
#[case::whole_norm(shape(), 20)]
#[case::one_token(shape(), 1)]
#[case::two_layers_of_wide_heads(Shape { layers: 2, kv_heads: 1, head_dim: 128, rotary: 64, inner: 256, ..shape() }, 33)]
#[case::softmax(Shape { qk_norm: QkNorm::Heads, rotary: 64, scoring: Scoring::Softmax, experts: 40, ..shape() }, 12)]
#[ignore = "needs a driver"]
fn gpu_artifacts_of_experts_are_those_of_the_reference(#[case] shape: Shape, #[case] seq_len: usize) {
    let gpu = try_on_gpu(&shape, &grown(), 2, seq_len).expect("a model");
    let cpu = MoePrefillV2::new(Arc::new(Model::new(&shape, &grown())));
    let (round, nonces) = (round(seq_len, 12, true), [0, 7, 1_000_000]);
    let apart = worst(&generate(&gpu, &round, &nonces), &generate(&cpu, &round, &nonces));
    assert!(apart <= ARTIFACT, "{apart}");
}

#[test]
#[ignore = "needs a driver"]
fn gpu_experts_repeat_to_the_bit_and_leave_no_memory() {
    let gpu = try_on_gpu(&shape(), &grown(), 3, 16).expect("a model");
    let nonces: Vec<i64> = (0..5).collect();
    let first = generate(&gpu, &round(16, 12, false), &nonces);
    let free = gpu.free_bytes().expect("a number");
    generate(&gpu, &round(9, 12, true), &nonces);
    assert_eq!(generate(&gpu, &round(16, 12, false), &nonces), first);
    assert_eq!(gpu.free_bytes().expect("a number"), free);
}

#[test]
#[ignore = "needs a driver"]
fn gpu_a_few_experts_stand_for_all() {
    let few = Repeated::new(grown(), &shape(), 2);
    let gpu = try_on_gpu(&shape(), &few, 1, 8).expect("a model");
    let all = try_on_gpu(&shape(), &grown(), 1, 8).expect("a model");
    assert_ne!(gpu.weights_digest(), all.weights_digest());
    let cpu = MoePrefillV2::new(Arc::new(Model::new(&shape(), &few)));
    let apart = worst(
        &generate(&gpu, &round(8, 12, false), &[3]),
        &generate(&cpu, &round(8, 12, false), &[3]),
    );
    assert!(apart <= ARTIFACT, "{apart}");
}

#[test]
#[ignore = "needs a driver"]
fn gpu_shapes_the_kernels_do_not_run_are_refused() {
    let error = try_on_gpu(&Shape { inner: 100, ..shape() }, &grown(), 1, 8).expect_err("no whole groups");
    assert!(error.to_string().contains("inner width is 100"), "{error}");
}

#[test]
fn a_gpu_without_numbers_of_eight_bits_says_so() {
    let run = simulated("child_experts", &[("SIMULATED_CUDA_CAPABILITY", "86")]);
    assert!(
        !run.status.success() && text(&run).contains("needs a GPU of compute capability 8.9"),
        "{}",
        text(&run)
    );
    let run = simulated("child_experts", &[("SIMULATED_CUDA_CAPABILITY", "89")]);
    assert!(run.status.success(), "{}", text(&run));
}

#[test]
fn a_batch_of_experts_that_is_not_finite_is_rejected() {
    let run = simulated("child_experts", &[("SIMULATED_CUDA_NAN", "0")]);
    assert!(text(&run).contains("rejected 1"), "{}", text(&run));
}

#[test]
#[ignore = "run by others with settings of their own"]
fn child_experts() {
    let gpu = try_on_gpu(&shape(), &grown(), 1, 4).unwrap_or_else(|error| panic!("{error}"));
    let mut prepared = prepare(&gpu, &round(4, 12, false));
    let batch = prepared
        .generate(&[1])
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(!batch.artifacts.is_empty(), "rejected {}", batch.rejected_non_finite);
}
