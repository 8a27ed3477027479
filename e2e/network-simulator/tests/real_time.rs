//! The whole network in real time over sockets: an ML node of the smallest kind is registered, examined in two Sprints
//! and a confirmation, paid and claimed; the independent verifier judges what is left behind, and the same scenario in
//! virtual time gives the same ledger as far as no clock is in it.

#![expect(clippy::panic, reason = "a helper of tests ends the test with what it saw")]

#[path = "support/agreement.rs"]
mod agreement;
#[path = "support/ml_node.rs"]
mod ml_node;

use ml_node::MlNode;
use network_simulator::{
    driver::{
        node_client::NodeClient,
        ports::Choice,
        run::{self, Options},
    },
    event::{Answer, Call, Origin, Request},
    ledger::Ledger,
    scenario,
};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::process::Command;

const MODEL: &str = "gonka-fleet/tiny_qwen3_dense";

/// Epochs of 52 blocks: Sprints at 8 and 60, a confirmation at 83, over at about 108.
const SCENARIO: &str = "
version: 1
network:
  seed: 3
  blockMillis: 150
  epochs: 2
  parameters: {epoch_length: 52, epoch_shift: 44, poc_stage_duration: 10, poc_validation_delay: 2, poc_validation_duration: 8,
    set_new_validators_delay: 2, inference_validation_cutoff: 2, confirmation_poc_safety_window: 2, validation_sample_size: 6}
  forceBlockHash: {8: C0DEC0DE00112233445566778899AABBCCDDEEFF0123456789ABCDEF01234567}
models: [{id: gonka-fleet/tiny_qwen3_dense, recipe: tiny_qwen3_dense}]
hosts:
  - {name: ours, driver: external, publicKey: 02feedface00112233445566778899aabbccddeeff00112233445566778899aabb}
  - {name: rival, count: 2, driver: simulated, nodes: 1, noncesPerSecond: 10}
exams: {preserve: false}
steps: [{at: epoch 2 +0 blocks, do: triggerConfirmation}, {at: height 20, do: stop, target: rpc/2, for: 4 blocks}]
expect: [{exam: last, host: ours, verdict: Accepted}]
";

async fn request(port: u16, method: &'static str, path: &str, body: Option<Value>) -> Result<Answer, String> {
    let call = Call {
        request: Request::Other,
        origin: Origin::Job {
            node_id: String::new(),
            job: 0,
        },
        host: "127.0.0.1".to_owned(),
        port,
        method,
        path: path.to_owned(),
        body: body.map(|body| body.to_string()),
        timeout_ms: 2000,
    };
    NodeClient::default().send(&call).await
}

async fn get(port: u16, path: &str) -> Value {
    request(port, "GET", path, None)
        .await
        .expect("an answer")
        .json()
        .into_owned()
}

async fn run_network(directory: &Path) -> (Ledger, MlNode) {
    let scenario = scenario::parse(SCENARIO).expect("valid");
    let options = Options {
        listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ports: Choice::Ephemeral,
        ledger: directory.to_owned(),
        keep_running: false,
    };
    let running = run::start(scenario, options).await.expect("starts");
    let ports = running.numbers().clone();
    let node = MlNode::start(MODEL).await;
    let watcher = async {
        let spec = json!({
            "id": "ours-0", "host": "127.0.0.1", "inference_port": node.port, "poc_port": node.port,
            "max_concurrent": 10, "models": {MODEL: {"args": []}}, "hardware": [{"type": "NVIDIA H200 | 140GB", "count": 8}],
        });
        let answer = request(ports.dapi.admin, "POST", "/admin/v1/nodes", Some(spec))
            .await
            .expect("an answer");
        assert_eq!(answer.status, 200);
        let refused = request(ports.control, "POST", "/v1/fault", Some(json!({"verb": "fly"})))
            .await
            .expect("an answer");
        assert_eq!(refused.status, 400);
        wait_for(ports.control, "the stopped endpoint", |state| {
            state["height"].as_i64() >= Some(21)
        })
        .await;
        assert!(
            request(ports.rpc[1], "GET", "/status", None).await.is_err(),
            "rpc/2 refuses connections"
        );
        // Past set_new_validators of epoch 1, at 30, where the index flips.
        wait_for(ports.control, "its return", |state| {
            state["height"].as_i64() >= Some(31)
        })
        .await;
        assert_eq!(
            get(ports.rpc[1], "/status").await["result"]["sync_info"]["catching_up"],
            false
        );
        let lie = json!({"verb": "lie", "target": "rest/3", "field": "epoch", "value": "77"});
        request(ports.control, "POST", "/v1/fault", Some(lie))
            .await
            .expect("an answer");
        let current = "/productscience/inference/inference/get_current_epoch";
        assert_eq!(get(ports.rest[2], current).await["epoch"], "77");
        assert_eq!(get(ports.rest[0], current).await["epoch"], "1");
        std::future::pending::<()>().await;
    };
    let over = std::future::pending::<()>();
    tokio::select! {
        ledger = running.run(over) => (ledger.expect("runs"), node),
        () = watcher => unreachable!("the watcher never ends"),
        () = tokio::time::sleep(Duration::from_secs(50)) => panic!("the scenario did not end in time"),
    }
}

async fn wait_for(control: u16, what: &str, holds: impl Fn(&Value) -> bool) {
    for _ in 0..400 {
        if holds(&get(control, "/v1/state").await) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain for {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sprints_a_confirmation_and_a_claim_leave_a_ledger_that_verifies() {
    let directory = tempfile::tempdir().expect("a directory");
    let (ledger, node) = run_network(directory.path()).await;
    let kinds: Vec<&str> = ledger.exams.iter().map(|exam| exam.kind).collect();
    assert_eq!(kinds, ["Sprint", "Sprint", "Confirmation"]);
    for exam in &ledger.exams {
        let host = &exam.hosts[0];
        assert!(
            host.weight > 0,
            "{} of epoch {} gave no weight: {host:#?}",
            exam.kind,
            exam.epoch
        );
        assert_eq!(
            host.votes.len(),
            3,
            "{} of epoch {}: our own vote is among them",
            exam.kind,
            exam.epoch
        );
        assert!(host.nodes[0].requests.iter().any(|request| request.status == 200));
    }
    assert_eq!(ledger.epochs.len(), 1);
    assert!(
        ledger.epochs[0]
            .rewards
            .iter()
            .all(|reward| reward.claimed_height > ledger.epochs[0].settled_height)
    );
    assert!(
        ledger
            .external_requests
            .iter()
            .any(|request| request.path.ends_with("/generated"))
    );
    assert_recorded_order(&node);
    let counted = agreement::in_virtual_time(SCENARIO);
    assert_eq!(agreement::course(&ledger), agreement::course(&counted));
    agreement::assert_close_counts(&ledger, &counted);
    verify(directory.path()).await;
}

/// What the ML node saw, against what real ones saw: prefix, order, headers.
fn assert_recorded_order(node: &MlNode) {
    let seen = node.seen();
    assert!(seen.iter().all(
        |request| request.headers == "accept-encoding,content-length,host,user-agent"
            || request.headers == "accept-encoding,host,user-agent"
    ));
    let paths: Vec<&str> = seen.iter().map(|request| request.path.as_str()).collect();
    assert!(paths.iter().all(|path| path.starts_with("/v3.0.8/")));
    let init = paths
        .iter()
        .position(|path| path.ends_with("/init/generate"))
        .expect("a start");
    assert!(
        paths[init - 1].ends_with("/pow/status"),
        "status is asked before a start: {paths:?}"
    );
    let stop = paths
        .iter()
        .position(|path| path.ends_with("/pow/stop"))
        .expect("a stop");
    assert!(
        paths[stop + 1].ends_with("/pow/generate"),
        "validation follows the stop: {paths:?}"
    );
    let back: Vec<&str> = paths[stop..]
        .iter()
        .filter(|path| !path.ends_with("/pow/generate"))
        .copied()
        .take(5)
        .collect();
    assert!(
        back[1].ends_with("/api/v1/state") && back[2].ends_with("/health") && back[3].ends_with("/v1/models"),
        "after validation the node is looked at: {back:?}"
    );
}

/// `verify.py` on the ledger, where Python has numpy.
async fn verify(directory: &Path) {
    let python = "/usr/bin/python3";
    let numpy = Command::new(python).args(["-c", "import numpy"]).output().await;
    if !numpy.is_ok_and(|output| output.status.success()) {
        eprintln!("not verified: {python} has no numpy");
        return;
    }
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../verify.py");
    let output = Command::new(python)
        .arg(script)
        .arg(directory)
        .output()
        .await
        .expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
