//! Slots whose engines drive GPUs: `node-agent engine` over the simulated driver (`kernels/cuda/host`), everything else as deployed.

use super::{
    chain_door::{GENERATE, START, STOP, start_body},
    dapi::Dapi,
    pod::{Pod, promotion, wait},
};
use kernels::{
    artifact::{decode, from_base64},
    decoder::{Dtype, Model, Recipe},
    prefill_v2::PrefillV2,
    scheme::{Round, Scheme as _},
    statistics::distance,
};
use proto::v1::{Empty, EngineStart, EngineState, PrepareRequest, StartRequest, engine_client::EngineClient};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use tokio::process::{Child, Command};
use tonic::{Code, transport::Endpoint};

/// Folder with the simulated libraries, built once a process.
fn libraries() -> &'static str {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let folder =
                PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("simulated-cuda-{}", std::process::id()));
            let built = std::process::Command::new(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../kernels/cuda/host/build-host.sh"
            ))
            .arg("--driver")
            .arg(&folder)
            .output()
            .unwrap();
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            folder
        })
        .to_str()
        .unwrap()
}

const AGENT: &str = env!("CARGO_BIN_EXE_node-agent");
const FLAGS: [&str; 8] = [
    "--engine-binary",
    AGENT,
    "--device",
    "CUDA",
    "--dtype",
    "BF16",
    "--max-nonces-per-second",
    "0",
];

async fn pod(settings: &[(&str, &str)]) -> Pod {
    let environment = [&[("LD_LIBRARY_PATH", libraries())], settings].concat();
    let pod = Pod::start_in(&environment, &FLAGS).await;
    pod.wait_until_ready().await;
    pod.promote(promotion(1)).await.unwrap();
    pod
}

/// Distance of two right implementations in bf16 (`kernels/vectors/README.md`).
const BF16_ARTIFACT: f64 = 0.03;

/// Largest distance of artifacts in a callback to what the reference computes in bf16.
fn worst(body: &Value, exam: &Value) -> f64 {
    let model = Model::from_recipe(&Recipe::TinyQwen3Dense, "public-tiny-v1");
    let round = Round {
        block_hash: exam["block_hash"].as_str().unwrap().into(),
        public_key: exam["public_key"].as_str().unwrap().into(),
        seq_len: 16,
        k_dim: 12,
        stronger_rng: false,
    };
    let mut reference = PrefillV2::new(Arc::new(model), Dtype::Bf16).prepare(&round).unwrap();
    let artifacts = body["artifacts"].as_array().unwrap().iter().take(6);
    artifacts
        .map(|artifact| {
            let nonce = artifact["nonce"].as_i64().unwrap();
            let found = from_base64(artifact["vector_b64"].as_str().unwrap()).unwrap();
            let wanted = reference.generate(&[nonce]).unwrap().artifacts.remove(0).vector;
            distance(&decode(&found).unwrap(), &decode(&wanted).unwrap())
        })
        .fold(0.0, f64::max)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gpus_sit_an_exam_and_a_killed_engine_costs_its_group_alone() {
    let (pod, dapi) = (pod(&[("SIMULATED_CUDA_DEVICES", "2")]).await, Dapi::start().await);
    let exam = start_body(&dapi, 145);
    assert_eq!(pod.post(START, &exam).await.status, 200);
    let callback = dapi.wait_for("/generated").await;
    let apart = worst(&callback.body, &exam);
    assert!(apart <= BF16_ARTIFACT, "{apart}");

    let (serve, sibling) = (pod.process("serve").await, pod.process("engine-0").await);
    assert_eq!(pod.kill("engine-1").await.starts, 2);
    wait("both engines", async || pod.report().await.backends_ready == 2).await;
    let of_group_1 = || {
        dapi.taken_nonces()
            .iter()
            .filter(|nonce| (**nonce - 1) / 4 % 2 == 1)
            .count()
    };
    let before = of_group_1();
    wait("the group's nonces", async || of_group_1() > before).await;
    assert_eq!(
        (pod.process("serve").await, pod.process("engine-0").await),
        (serve, sibling)
    );

    pod.post(STOP, &json!({})).await;
    let asked = json!({
        "block_hash": exam["block_hash"], "block_height": 145, "public_key": exam["public_key"], "node_id": 1, "node_count": 4,
        "nonces": [1, 2, 3], "params": exam["params"], "wait": true,
    });
    let answer = pod.post(GENERATE, &asked).await;
    assert_eq!(answer.body["artifacts"].as_array().map(Vec::len), Some(3), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_whose_states_are_not_finite_is_replaced_and_its_pod_stays() {
    let settings = [("SIMULATED_CUDA_DEVICES", "2"), ("SIMULATED_CUDA_NAN", "0")];
    let (pod, dapi) = (pod(&settings).await, Dapi::start().await);
    let (serve, engine) = (pod.process("serve").await, pod.process("engine-0").await);
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    wait("another engine", async || {
        pod.process("engine-0").await.starts > engine.starts
    })
    .await;
    assert_eq!(pod.process("serve").await, serve);
    assert!(
        dapi.taken_nonces().is_empty(),
        "nothing of a batch that is not finite leaves"
    );
}

/// An engine by itself.
async fn engine(folder: &Path, name: &str) -> (Child, EngineClient<tonic::transport::Channel>) {
    let socket = folder.join(name);
    let child = Command::new(AGENT)
        .args(["--log-format", "text", "engine", "--socket"])
        .arg(&socket)
        .env("LD_LIBRARY_PATH", libraries())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait("the socket", async || socket.exists()).await;
    let address = format!("unix:{}", socket.display());
    (
        child,
        EngineClient::new(Endpoint::from_shared(address).unwrap().connect_lazy()),
    )
}

fn model() -> PrepareRequest {
    PrepareRequest {
        scheme: "prefill_v2".into(),
        model: "gonka-fleet/tiny_qwen3_dense".into(),
        weights_path: "recipe:tiny_qwen3_dense:public-tiny-v1".into(),
        dtype: "BF16".into(),
        device: "CUDA".into(),
        max_nonces_per_second: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_starts_ends_the_one_that_computes() {
    let folder = tempfile::tempdir().unwrap();
    let (_engine, mut client) = engine(folder.path(), "a.sock").await;
    client.prepare(model()).await.unwrap();
    let start = |seed: &str| EngineStart {
        request: Some(StartRequest {
            seed: seed.into(),
            public_key: "02".into(),
            node_count: 1,
            seq_len: 16,
            k_dim: 12,
            ..StartRequest::default()
        }),
        groups: 1,
        ..EngineStart::default()
    };
    let mut first = client.start(start("AB")).await.unwrap().into_inner();
    assert!(!first.message().await.unwrap().unwrap().artifacts.is_empty());
    let mut second = client.start(start("CD")).await.unwrap().into_inner();
    assert_eq!(second.message().await.unwrap().unwrap().artifacts[0].nonce, 0);
    // What was computed before still arrives; then the first is over.
    while first.message().await.unwrap().is_some() {}
    let stopped = client.stop(Empty {}).await.unwrap().into_inner();
    assert_eq!(stopped.state(), EngineState::Idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_has_one_engine_and_the_second_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, mut client) = engine(folder.path(), "a.sock").await;
    let (_second, mut other) = engine(folder.path(), "b.sock").await;
    let single = PrepareRequest {
        dtype: "F32".into(),
        ..model()
    };
    assert_eq!(client.prepare(single).await.unwrap_err().code(), Code::InvalidArgument);
    let loaded = client.prepare(model()).await.unwrap().into_inner();
    assert_eq!(loaded.hidden_size, 96);
    let refused = other.prepare(model()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("taken by another engine"), "{refused}");
    // The GPU is free as soon as its engine is gone, however it went.
    first.kill().await.unwrap();
    assert_eq!(other.prepare(model()).await.unwrap().into_inner(), loaded);
}
