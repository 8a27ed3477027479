//! The smallest ML node that passes an exam: one process, both ports in one, artifacts computed by `kernels`.

use axum::{
    Json, Router,
    body::{Bytes, to_bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use kernels::{
    artifact, decoder,
    nonces::Enumeration,
    prefill_v2::PrefillV2,
    scheme::{Artifact, Prepared, Round, Scheme},
    statistics::StatTest,
};
use network_simulator::{
    driver::node_client::NodeClient,
    event::{self, Call, Origin},
};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinSet};

const BATCH: u64 = 4;
const INTERVAL: Duration = Duration::from_millis(120);

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    /// Names, sorted, joined by commas.
    pub headers: String,
}

struct Node {
    model: String,
    scheme: PrefillV2,
    /// Grows with every start and stop; a generation ends when it is not the newest.
    round: AtomicU64,
    generating: Mutex<bool>,
    seen: Mutex<Vec<Seen>>,
    tasks: Mutex<JoinSet<()>>,
}

/// A running node.
pub struct MlNode {
    pub port: u16,
    node: Arc<Node>,
    _server: JoinSet<()>,
}

impl MlNode {
    pub async fn start(model: &str) -> Self {
        let recipe = decoder::Recipe::from_model_id(model).expect("a recipe");
        let weights = Arc::new(decoder::Model::from_recipe(&recipe, "public-tiny-v1"));
        let node = Arc::new(Node {
            model: model.to_owned(),
            scheme: PrefillV2::new(weights, decoder::Dtype::Bf16),
            round: AtomicU64::new(0),
            generating: Mutex::new(false),
            seen: Mutex::new(Vec::new()),
            tasks: Mutex::new(JoinSet::new()),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let app = Router::new().fallback(answer).with_state(Arc::clone(&node));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.expect("serves") });
        Self {
            port,
            node,
            _server: server,
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.node.seen.lock().expect("lock").clone()
    }
}

async fn answer(State(node): State<Arc<Node>>, request: Request) -> Response {
    let mut headers: Vec<&str> = request.headers().keys().map(axum::http::HeaderName::as_str).collect();
    headers.sort_unstable();
    let seen = Seen {
        path: request.uri().path().to_owned(),
        headers: headers.join(","),
    };
    let path = seen.path.clone();
    node.seen.lock().expect("lock").push(seen);
    let body: Bytes = to_bytes(request.into_body(), 1 << 20).await.expect("a body");
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let generating = *node.generating.lock().expect("lock");
    match path.strip_prefix("/v3.0.8").unwrap_or(&path) {
        "/api/v1/state" => Json(json!({
            "state": "INFERENCE", "version": "3.0.16", "poc_status": "IDLE", "inference_healthy": true,
            "loaded_model": node.model, "poc_validation_inference": true,
        }))
        .into_response(),
        "/v1/models" => Json(json!({"object": "list", "data": [{"id": node.model}]})).into_response(),
        "/api/v1/inference/pow/status" => {
            Json(json!({"status": if generating { "GENERATING" } else { "IDLE" }, "backends": []})).into_response()
        }
        "/api/v1/inference/pow/init/generate" => {
            *node.generating.lock().expect("lock") = true;
            let round = node.round.fetch_add(1, Ordering::SeqCst) + 1;
            let worker = Arc::clone(&node);
            node.tasks.lock().expect("lock").spawn(generate(worker, body, round));
            Json(json!({"status": "OK", "backends": 1, "n_groups": 1, "results": [], "errors": null})).into_response()
        }
        "/api/v1/inference/pow/stop" => {
            *node.generating.lock().expect("lock") = false;
            node.round.fetch_add(1, Ordering::SeqCst);
            Json(json!({"status": "OK", "results": [], "errors": null})).into_response()
        }
        "/api/v1/inference/pow/generate" => {
            let worker = Arc::clone(&node);
            node.tasks.lock().expect("lock").spawn(validate(worker, body));
            Json(json!({"status": "queued", "request_id": "5001:1"})).into_response()
        }
        _ => ().into_response(),
    }
}

fn prepare(node: &Node, body: &Value) -> Box<dyn Prepared> {
    let text = |name: &str| body[name].as_str().expect("a text").to_owned();
    let round = Round {
        block_hash: text("block_hash"),
        public_key: text("public_key"),
        seq_len: body["params"]["seq_len"].as_u64().expect("a number") as usize,
        k_dim: 12,
        stronger_rng: body["poc_stronger_rng"] == true,
    };
    node.scheme.prepare(&round).expect("a round")
}

async fn post(url: &str, kind: &str, body: Value) {
    let rest = url.strip_prefix("http://").expect("http");
    let (address, path) = rest.split_once('/').expect("a path");
    let (host, port) = address.rsplit_once(':').expect("a port");
    let call = Call {
        request: event::Request::Other,
        origin: Origin::Job {
            node_id: String::new(),
            job: 0,
        },
        host: host.to_owned(),
        port: port.parse().expect("a port"),
        method: "POST",
        path: format!("/{path}/{kind}"),
        body: Some(body.to_string()),
        timeout_ms: 2000,
    };
    // Outside its window the DAPI answers 503, and that is fine.
    let _ = NodeClient::default().send(&call).await;
}

async fn generate(node: Arc<Node>, body: Value, round: u64) {
    let mut prepared = prepare(&node, &body);
    let number = |name: &str| body[name].as_i64().expect("a number");
    let enumeration = Enumeration::new(number("node_id"), number("node_count"), 0, 1).expect("an enumeration");
    let mut next = 0;
    while node.round.load(Ordering::SeqCst) == round {
        let nonces: Vec<i64> = (next..next + BATCH)
            .filter_map(|index| enumeration.nonce(index))
            .collect();
        next += BATCH;
        let batch = prepared.generate(&nonces).expect("artifacts");
        let artifacts: Vec<Value> = batch
            .artifacts
            .iter()
            .map(|item| json!({"nonce": item.nonce, "vector_b64": artifact::to_base64(&item.vector)}))
            .collect();
        let callback = json!({
            "block_hash": body["block_hash"], "block_height": body["block_height"], "public_key": body["public_key"],
            "node_id": body["node_id"], "artifacts": artifacts, "encoding": {"dtype": "f16", "k_dim": 12, "endian": "le"},
        });
        post(body["url"].as_str().expect("a url"), "generated", callback).await;
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn validate(node: Arc<Node>, body: Value) {
    let received: Vec<Artifact> = body["validation"]["artifacts"]
        .as_array()
        .expect("artifacts")
        .iter()
        .map(|item| Artifact {
            nonce: item["nonce"].as_i64().expect("a nonce"),
            vector: artifact::from_base64(item["vector_b64"].as_str().expect("a vector")).expect("base64"),
        })
        .collect();
    let test = StatTest {
        dist_threshold: body["stat_test"]["dist_threshold"].as_f64().expect("a number"),
        p_mismatch: body["stat_test"]["p_mismatch"].as_f64().expect("a number"),
        fraud_threshold: 0.01,
    };
    let verdict = prepare(&node, &body).validate(&received, &test).expect("a verdict");
    let callback = json!({
        "request_id": "5001:1", "block_hash": body["block_hash"], "block_height": body["block_height"],
        "public_key": body["public_key"], "node_id": body["node_id"], "n_total": verdict.total,
        "n_mismatch": verdict.mismatch_nonces.len(), "mismatch_nonces": verdict.mismatch_nonces,
        "p_value": verdict.p_value, "fraud_detected": verdict.fraud,
    });
    post(body["url"].as_str().expect("a url"), "validated", callback).await;
}
