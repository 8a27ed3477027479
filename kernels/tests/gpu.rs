//! The proof through the driver's own interface. The tests named `gpu_…` run on whatever driver is found: on a GPU by `make gpu-test`, and in every test run
//! on the simulated one (`kernels/cuda/host`), in a process of their own whose loader finds it.

#![expect(
    clippy::disallowed_methods,
    reason = "short-lived programs without async around them"
)]
#![expect(clippy::panic, reason = "helpers of tests")]

use kernels::{
    artifact,
    cuda::{
        CudaPrefillV2, Error, Shape,
        driver::{Gpu, Options, Wanted},
        plan::Part,
        weights::{Grown, Published},
    },
    decoder::{Config, Dtype, Model, Recipe},
    prefill_v2::PrefillV2,
    scheme::{self, Artifact, Prepared, Round, Scheme, StatTest},
    vectors::{Effort, Outcome, check_directory_on},
};
use rstest::rstest;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, OnceLock},
};

#[path = "gpu/experts.rs"]
mod experts;

// --- the simulated driver

/// Folder with the simulated libraries, built once a process.
fn libraries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("simulated-cuda-{}", std::process::id()));
        let built = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/cuda/host/build-host.sh"))
            .arg("--driver")
            .arg(&folder)
            .output()
            .expect("build-host.sh runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        folder
    })
}

/// Runs tests of this file in a process that finds the simulated driver.
fn simulated(test: &str, settings: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--ignored", "--test-threads=1", test])
        .env("LD_LIBRARY_PATH", libraries())
        .envs(settings.iter().copied())
        .output()
        .expect("this program runs")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn what_a_gpu_must_do_the_simulated_driver_shows() {
    let ledger = tempfile::NamedTempFile::new().expect("a file");
    let run = simulated(
        "gpu_",
        &[("SIMULATED_CUDA_LEDGER", ledger.path().to_str().expect("a path"))],
    );
    assert!(run.status.success(), "{}", text(&run));
    assert!(!text(&run).contains(" 0 passed"), "{}", text(&run));
    let left = std::fs::read_to_string(ledger.path()).expect("a ledger");
    assert!(left.lines().count() > 3, "{left}");
    // A line each time the last context goes.
    assert!(
        left.lines()
            .all(|line| line.starts_with("device 0 allocations 0 bytes, pinned 0, handles 0,")),
        "{left}"
    );
}

#[rstest]
#[case::devices(&[("SIMULATED_CUDA_DEVICES", "0")], "the NVIDIA driver shows no GPU")]
#[case::old(&[("SIMULATED_CUDA_VERSION", "12080")], "runs CUDA up to 12.8: at least 13.0 is needed")]
#[case::memory(&[("SIMULATED_CUDA_MEMORY", "65536")], "bytes of GPU memory are needed and 65536 are free")]
#[case::cut(&[("SIMULATED_CUDA_NAME", "NVIDIA H100 80GB HBM3 MIG 1g.10gb")], "cut by MIG")]
#[case::served(&[("SIMULATED_CUDA_MPS", "1")], "stop the MPS control daemon")]
#[case::capability(&[("SIMULATED_CUDA_CAPABILITY", "75")], "capability 7.5: 8.0 or newer")]
#[case::call(&[("SIMULATED_CUDA_FAIL", "cuGraphInstantiate")], "cuGraphInstantiate failed")]
#[case::lost(&[("SIMULATED_CUDA_FAIL", "cuGraphLaunch")], "cuGraphLaunch failed")]
#[case::nan(&[("SIMULATED_CUDA_NAN", "0")], "3 batches in a row were not finite")]
fn each_failure_says_what_it_is(#[case] settings: &[(&str, &str)], #[case] said: &str) {
    let run = simulated("child_first_artifacts", settings);
    assert!(!run.status.success() && text(&run).contains(said), "{}", text(&run));
}

/// A batch that is not finite in the middle of a round costs that batch.
#[test]
fn a_few_batches_that_are_not_finite_are_rejected_and_counted() {
    let run = simulated("child_counts_what_is_not_finite", &[("SIMULATED_CUDA_NAN", "2")]);
    assert!(run.status.success(), "{}", text(&run));
}

#[test]
fn without_a_driver_one_sentence_says_so() {
    let run = Command::new(env!("CARGO_BIN_EXE_poc-vectors"))
        .args(["--engine", "cuda", concat!(env!("CARGO_MANIFEST_DIR"), "/vectors")])
        .env("LD_LIBRARY_PATH", "")
        .output()
        .expect("poc-vectors runs");
    if !Path::new("/dev/nvidiactl").exists() {
        assert_eq!(text(&run).lines().count(), 1, "{}", text(&run));
        assert!(
            text(&run).contains("no NVIDIA driver") && !run.status.success(),
            "{}",
            text(&run)
        );
    }
}

#[test]
fn poc_vectors_has_an_engine_for_gpus() {
    let run = Command::new(env!("CARGO_BIN_EXE_poc-vectors"))
        .args(["--engine", "cuda", concat!(env!("CARGO_MANIFEST_DIR"), "/vectors")])
        .env("LD_LIBRARY_PATH", libraries())
        .output()
        .expect("poc-vectors runs");
    assert!(
        run.status.success() && text(&run).contains("passed   v2_tiny_models.json"),
        "{}",
        text(&run)
    );
    // The main network's width is a matter of minutes here: --large.
    assert!(text(&run).contains("passed   v1_model_small.json"), "{}", text(&run));
    assert!(
        text(&run).contains("distances of C_mainnet_width_1layer"),
        "{}",
        text(&run)
    );
}

// --- what needs a driver

const TAG: &str = "public-tiny-v1";

fn round(seq_len: usize, k_dim: usize, stronger_rng: bool) -> Round {
    Round {
        block_hash: "C0DEC0DE00112233445566778899AABBCCDDEEFF0123456789ABCDEF01234567".into(),
        public_key: "02feedface00112233445566778899aabbccddeeff00112233445566778899aabb".into(),
        seq_len,
        k_dim,
        stronger_rng,
    }
}

/// Wider heads, groups and odd sizes that no recipe has.
fn config(hidden: usize, (heads, kv_heads, head_dim): (usize, usize, usize), inner: usize, layers: usize) -> Config {
    Config {
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim,
        intermediate: inner,
        qk_norm: true,
        ..Recipe::TinyQwen3Dense.config()
    }
}

fn on_gpu(name: &str, config: &Config, nonces: usize, seq_len: usize) -> CudaPrefillV2 {
    let shape = Shape::try_from(config).expect("a shape");
    let source = Grown {
        tag: TAG.into(),
        model: name.into(),
    };
    let gpu = Gpu::open(&Options::default()).unwrap_or_else(|error| panic!("{error}"));
    CudaPrefillV2::load(Box::new(gpu), shape, &source, nonces, seq_len).unwrap_or_else(|error| panic!("{error}"))
}

fn on_cpu(name: &str, config: &Config) -> PrefillV2 {
    let model = Model::from_config(name, config.clone(), TAG).expect("a model");
    PrefillV2::new(Arc::new(model), Dtype::Bf16)
}

fn generate(scheme: &dyn Scheme, round: &Round, nonces: &[i64]) -> Vec<Artifact> {
    let mut prepared = prepare(scheme, round);
    prepared
        .generate(nonces)
        .unwrap_or_else(|error| panic!("{}", chain(&error)))
        .artifacts
}

fn prepare(scheme: &dyn Scheme, round: &Round) -> Box<dyn Prepared> {
    scheme
        .prepare(round)
        .unwrap_or_else(|error| panic!("{}", chain(&error)))
}

fn chain(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn worst(found: &[Artifact], wanted: &[Artifact]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let decode = |artifact: &Artifact| artifact::decode(&artifact.vector).expect("halves");
    found
        .iter()
        .zip(wanted)
        .map(|(found, wanted)| {
            assert_eq!(found.nonce, wanted.nonce);
            kernels::statistics::distance(&decode(found), &decode(wanted))
        })
        .fold(0.0, f64::max)
}

#[test]
#[ignore = "needs a driver"]
fn gpu_every_dense_vector_comes_out_within_tolerance() {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors"));
    let open = || Gpu::open(&Options::default()).map(|gpu| Box::new(gpu) as _);
    let report = check_directory_on(directory, Effort::Standard, &open, &mut |_| ()).expect("a directory");
    assert!(report.is_success() && report.count(Outcome::Passed) == 2, "{report}");
}

#[rstest]
#[case::one_head(config(64, (1, 1, 16), 64, 1), 5, 12)]
#[case::wide_heads(config(256, (2, 1, 128), 328, 3), 70, 12)]
#[case::groups_of_eight(config(512, (8, 1, 64), 264, 2), 65, 32)]
#[case::odd(config(104, (3, 3, 32), 72, 2), 129, 7)]
#[case::a_row_and_a_bit(config(520, (2, 2, 16), 64, 2), 9, 12)]
#[case::one_token(config(64, (4, 2, 16), 64, 2), 1, 1)]
#[ignore = "needs a driver"]
fn gpu_artifacts_are_those_of_the_reference(#[case] config: Config, #[case] seq_len: usize, #[case] k_dim: usize) {
    let (gpu, cpu) = (on_gpu("any", &config, 3, seq_len), on_cpu("any", &config));
    for stronger_rng in [false, true] {
        let (round, nonces) = (round(seq_len, k_dim, stronger_rng), [0, 7, 1_000_000, 3]);
        let apart = worst(&generate(&gpu, &round, &nonces), &generate(&cpu, &round, &nonces));
        assert!(apart <= 0.02, "{apart}");
    }
}

#[test]
#[ignore = "needs a driver"]
fn gpu_results_repeat_to_the_bit() {
    let config = config(256, (4, 2, 64), 320, 3);
    let gpu = on_gpu("any", &config, 4, 48);
    let nonces: Vec<i64> = (0..10).collect();
    let first = generate(&gpu, &round(48, 12, false), &nonces);
    generate(&gpu, &round(16, 12, true), &nonces);
    assert_eq!(generate(&gpu, &round(48, 12, false), &nonces), first);
    assert_eq!(
        generate(&on_gpu("any", &config, 4, 48), &round(48, 12, false), &nonces),
        first
    );
}

#[test]
#[ignore = "needs a driver"]
fn gpu_rounds_do_not_take_memory() {
    let config = config(64, (4, 2, 16), 64, 2);
    let gpu = on_gpu("any", &config, 4, 64);
    let mut prepared = prepare(&gpu, &round(64, 12, false));
    prepared.generate(&[1, 2, 3]).expect("a batch");
    let free = gpu.free_bytes().expect("a number");
    for turn in 0..30 {
        generate(&gpu, &round(8 + turn % 5, 12, turn % 2 == 0), &[turn as i64]);
    }
    assert_eq!(gpu.free_bytes().expect("a number"), free);
}

#[test]
#[ignore = "needs a driver"]
fn gpu_every_batch_is_timed_from_its_first_copy_to_its_last() {
    let gpu = on_gpu("any", &config(64, (4, 2, 16), 64, 2), 2, 8);
    let round = round(8, 12, false);
    generate(&gpu, &round, &[0, 1]);
    assert!(gpu.spans().is_empty(), "nobody watched");
    gpu.watch(true);
    generate(&gpu, &round, &[0, 1, 2, 3, 4, 5, 6]);
    let spans = gpu.spans();
    assert_eq!(spans.len(), 4);
    assert!(spans.iter().all(|span| span.ran > 0.0), "{spans:?}");
    assert!(spans[0].idle.is_none() && spans[1..].iter().all(|span| span.idle.is_some_and(|idle| idle >= 0.0)));
    assert!(gpu.spans().is_empty(), "told once");
    // What the host does between two batches the device waits for.
    generate(&gpu, &round, &[0]);
    let since = std::time::Instant::now();
    on_cpu("any", &config(256, (4, 2, 64), 512, 4));
    let waited = since.elapsed().as_secs_f32() * 1e3;
    generate(&gpu, &round, &[0]);
    let spans = gpu.spans();
    assert!(
        spans[1].idle.is_some_and(|idle| idle > 0.9 * waited),
        "{waited} ms: {spans:?}"
    );
    gpu.watch(false);
    generate(&gpu, &round, &[0, 1]);
    assert!(gpu.spans().is_empty());
}

#[test]
#[ignore = "needs a driver"]
fn gpu_a_part_of_a_round_runs_and_leaves_the_round_as_it_was() {
    let gpu = on_gpu("any", &config(64, (4, 2, 16), 64, 2), 2, 8);
    let round = round(8, 12, false);
    let artifacts = generate(&gpu, &round, &[0, 1, 2]);
    for part in [Part::Products, Part::Prefill, Part::Whole] {
        gpu.watch(true);
        gpu.run_part(&round, part, 5).expect("it runs");
        assert_eq!(gpu.spans().len(), 5, "{part:?}");
        assert_eq!(generate(&gpu, &round, &[0, 1, 2]), artifacts, "{part:?}");
    }
}

#[test]
#[ignore = "needs a driver"]
fn gpu_memory_that_does_not_suffice_is_named_and_nothing_stays() {
    let gpu = on_gpu("any", &config(64, (4, 2, 16), 64, 2), 1, 8);
    let before = gpu.free_bytes().expect("a number");
    let shape = Shape::try_from(&config(4096, (32, 8, 128), 12_288, 2_000)).expect("a shape");
    let source = Grown {
        tag: TAG.into(),
        model: "any".into(),
    };
    let device = Box::new(Gpu::open(&Options::default()).expect("a device"));
    let error = CudaPrefillV2::load(device, shape, &source, 4, 1024).expect_err("no GPU is so large");
    assert!(
        matches!(error, Error::Memory { needed, free } if needed > free),
        "{error}"
    );
    assert_eq!(gpu.free_bytes().expect("a number"), before);
}

#[test]
#[ignore = "needs a driver"]
fn gpu_a_validator_on_a_gpu_agrees_with_a_prover_on_a_cpu() {
    let config = Recipe::TinyQwen3Dense.config();
    let (gpu, cpu) = (
        on_gpu("tiny_qwen3_dense", &config, 4, 16),
        on_cpu("tiny_qwen3_dense", &config),
    );
    let mut received = generate(&cpu, &round(16, 12, false), &[0, 1, 2, 3, 4, 5]);
    let test = StatTest {
        dist_threshold: 0.02,
        ..StatTest::default()
    };
    let mut prepared = prepare(&gpu, &round(16, 12, false));
    assert_eq!(
        prepared.validate(&received, &test).expect("a verdict").mismatch_nonces,
        Vec::<i64>::new()
    );
    received[4].vector[3] ^= 0x40;
    assert_eq!(
        prepared.validate(&received, &test).expect("a verdict").mismatch_nonces,
        [4]
    );
}

#[test]
#[ignore = "needs a driver"]
fn gpu_a_gpu_that_is_not_there_is_named() {
    let options = Options {
        gpu: Wanted::Uuid("GPU-ffffffff-ffff-ffff-ffff-ffffffffffff".into()),
        ..Options::default()
    };
    let error = Gpu::open(&options).expect_err("no such GPU");
    assert!(error.to_string().contains("GPU-ffffffff"), "{error}");
}

#[test]
#[ignore = "needs a driver"]
fn gpu_choices_of_algorithms_are_remembered() {
    let directory = tempfile::tempdir().expect("a folder");
    let file = directory.path().join("algorithms.json");
    let options = Options {
        algorithms: Some(file.clone()),
        ..Options::default()
    };
    let config = config(64, (4, 2, 16), 64, 2);
    let made = || {
        let gpu = Box::new(Gpu::open(&options).expect("a device"));
        let source = Grown {
            tag: TAG.into(),
            model: "any".into(),
        };
        let scheme =
            CudaPrefillV2::load(gpu, Shape::try_from(&config).expect("a shape"), &source, 2, 8).expect("a model");
        generate(&scheme, &round(8, 12, false), &[1, 2, 3])
    };
    let first = made();
    let remembered = std::fs::read(&file).expect("a file");
    assert_eq!(made(), first);
    assert_eq!(std::fs::read(&file).expect("a file"), remembered);
}

#[test]
#[ignore = "needs a driver"]
fn gpu_weights_come_from_a_published_model_too() {
    let directory = tempfile::tempdir().expect("a folder");
    let config = Recipe::TinyQwen3Dense.config();
    let shape = Shape::try_from(&config).expect("a shape");
    kernels::cuda::weights::publish(
        directory.path(),
        &shape,
        &Grown {
            tag: TAG.into(),
            model: "tiny_qwen3_dense".into(),
        },
    )
    .expect("files");
    let json = std::fs::read(directory.path().join("config.json")).expect("a configuration");
    let shape = Shape::from_published(&json).expect("a shape");
    let source = Published::open(directory.path()).expect("weights");
    let gpu = Box::new(Gpu::open(&Options::default()).expect("a device"));
    let published = CudaPrefillV2::load(gpu, shape, &source, 2, 16).expect("a model");
    let grown = on_gpu("tiny_qwen3_dense", &config, 2, 16);
    let round = round(16, 12, false);
    assert_eq!(
        generate(&published, &round, &[5, 6, 7]),
        generate(&grown, &round, &[5, 6, 7])
    );
}

// --- children with settings of their own

#[test]
#[ignore = "run by each_failure_says_what_it_is"]
fn child_first_artifacts() {
    let gpu = on_gpu("any", &config(64, (4, 2, 16), 64, 2), 2, 8);
    generate(&gpu, &round(8, 12, false), &(0..8).collect::<Vec<_>>());
}

#[test]
#[ignore = "run by a_few_batches_that_are_not_finite_are_rejected_and_counted"]
fn child_counts_what_is_not_finite() {
    let gpu = on_gpu("any", &config(64, (4, 2, 16), 64, 2), 2, 8);
    let mut prepared = prepare(&gpu, &round(8, 12, false));
    let batch = prepared
        .generate(&(0..8).collect::<Vec<_>>())
        .expect("two bad batches are not three");
    assert_eq!((batch.artifacts.len(), batch.rejected_non_finite), (4, 4));
    let error = prepared.generate(&[8]).expect_err("the third");
    assert!(matches!(&error, scheme::Error::Device(Error::NotFinite(3))), "{error}");
}
