//! The chain door against the recordings: paths, prefixes, statuses, shapes.

use super::{
    dapi::Dapi,
    pod::{MODEL, Pod, wait},
    recorded::{call, shape},
};
use serde_json::{Value, json};

/// `init/generate` of the recording, for this model and this DAPI.
pub fn start_body(dapi: &Dapi, height: i64) -> Value {
    let mut body = call("init_generate").body;
    body["block_height"] = json!(height);
    body["params"] = json!({ "model": MODEL, "seq_len": 16 });
    body["url"] = json!(dapi.callback_url());
    body
}

pub const START: &str = "/v3.0.8/api/v1/inference/pow/init/generate";
pub const STATUS: &str = "/v3.0.8/api/v1/inference/pow/status";
pub const STOP: &str = "/v3.0.8/api/v1/inference/pow/stop";
pub const GENERATE: &str = "/v3.0.8/api/v1/inference/pow/generate";

#[tokio::test(flavor = "multi_thread")]
async fn idle_calls_are_answered_in_the_recorded_shapes() {
    let pod = Pod::promoted().await;
    for (name, door) in [
        ("state", "management"),
        ("pow_status_idle", "management"),
        ("stop", "management"),
        ("models", "inference"),
        ("health_inference", "inference"),
    ] {
        let call = call(name);
        let body = (!call.body.is_null()).then_some(&call.body);
        let answer = pod.call(door, &call.method, &call.path, body).await;
        assert_eq!(answer.status, call.status, "{name}");
        assert_eq!(shape(&answer.body), shape(&call.response), "{name}");
    }
    let state = pod.get("/v3.0.8/api/v1/state").await.body;
    assert_eq!(state["state"], "INFERENCE");
    assert_eq!(
        (&state["poc_status"], &state["loaded_model"]),
        (&json!("IDLE"), &json!(MODEL))
    );
    let status = pod.get(STATUS).await.body;
    assert_eq!(
        status,
        json!({"status": "IDLE", "backends": [{"port": 5001, "status": "IDLE"}, {"port": 5002, "status": "IDLE"}]})
    );
    let metrics = pod.get("/api/v1/metrics").await;
    let recorded = call("metrics").response;
    assert!(metrics.body.as_str().unwrap().starts_with(recorded.as_str().unwrap()));
    assert_eq!(
        pod.get("/health").await.status,
        200,
        "an engine that needs no GPU is healthy without one"
    );
    assert_eq!(pod.get("/v3.0.8/api/v1/gpu/devices").await.status, 503, "no NVML here");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_version_prefix_or_none_reaches_the_same_call() {
    let pod = Pod::promoted().await;
    for prefix in ["", "/v3.0.8", "/v0.2.17-post1", "/v9"] {
        assert_eq!(pod.get(&format!("{prefix}/api/v1/state")).await.status, 200, "{prefix}");
        let models = pod.call("inference", "GET", &format!("{prefix}/v1/models"), None).await;
        assert_eq!(
            (models.status, &models.body["data"][0]["id"]),
            (200, &json!(MODEL)),
            "{prefix}"
        );
    }
    assert_eq!(pod.get("/v3.0.8/api/v1/nothing").await.status, 404);
    assert_eq!(pod.get(START).await.status, 405);
    assert_eq!(
        pod.call("management", "DELETE", "/api/v1/state", None).await.status,
        405
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_starts_get_the_status_of_their_fault() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    let good = start_body(&dapi, 145);
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    let cases = [
        (
            422,
            with("params", json!({"model": MODEL, "seq_len": 16, "decode": true})),
        ),
        (422, with("params", json!({"model": MODEL}))),
        (422, with("block_height", json!("tall"))),
        (422, with("block_hash", Value::Null)),
        (422, with("url", json!("gopher://x"))),
        (422, json!([1, 2])),
        (400, with("node_count", json!(0))),
        (409, with("params", json!({"model": "org/other", "seq_len": 16}))),
    ];
    for (status, body) in cases {
        let answer = pod.post(START, &body).await;
        assert_eq!(answer.status, status, "{body}");
        assert!(!answer.body["detail"].is_null(), "{body}");
    }
    let mismatch = pod
        .post(START, &with("params", json!({"model": "org/other", "seq_len": 16})))
        .await;
    assert_eq!(mismatch.body["detail"]["error"], "params mismatch");
    let long = with("block_hash", json!("A".repeat(300_000)));
    assert_eq!(pod.post(START, &long).await.status, 413);
    assert_eq!(
        pod.get(STATUS).await.body["status"],
        "IDLE",
        "none of them began a round"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_slot_keeps_its_chain_door_closed() {
    let (pod, dapi) = (Pod::start().await, Dapi::start().await);
    pod.wait_until_ready().await;
    for path in ["/api/v1/state", STATUS, "/health"] {
        assert_eq!(pod.get(path).await.status, 503, "{path}");
    }
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 503);
    assert_eq!(pod.call("inference", "GET", "/v1/models", None).await.status, 503);
    assert_eq!(pod.get("/livez").await.status, 200);
    assert_eq!(pod.get("/readyz").await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_is_honestly_absent_and_busy_during_generation() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    let chat = json!({"model": MODEL, "messages": []});
    let idle = pod
        .call("inference", "POST", "/v3.0.8/v1/chat/completions", Some(&chat))
        .await;
    assert_eq!(idle.status, 501);
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    let busy = pod
        .call("inference", "POST", "/v3.0.8/v1/chat/completions", Some(&chat))
        .await;
    assert_eq!((busy.status, busy.retry_after.as_deref()), (503, Some("1")));
    assert_eq!(busy.body["error"]["type"], "poc_generation_active");
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_and_up_are_the_operators_model_closed_and_opened() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    let stopped = pod.post("/v3.0.8/api/v1/stop", &json!({})).await;
    assert_eq!((stopped.status, stopped.body), (200, json!({"status": "OK"})));
    let state = pod.get("/v3.0.8/api/v1/state").await.body;
    assert_eq!(
        (&state["state"], &state["loaded_model"]),
        (&json!("STOPPED"), &Value::Null)
    );
    assert_eq!(pod.call("inference", "GET", "/health", None).await.status, 503);
    let other = pod.post("/api/v1/inference/up", &json!({"model": "org/other"})).await;
    assert_eq!(other.status, 409);
    let body = json!({"model": MODEL, "dtype": "auto", "additional_args": ["--x"]});
    let up = pod.post("/v3.0.8/api/v1/inference/up", &body).await;
    assert_eq!((up.status, up.body), (200, json!({"status": "OK"})));
    assert_eq!(pod.get("/api/v1/inference/up/status").await.body["status"], "completed");
    assert_eq!(pod.get("/v3.0.8/api/v1/state").await.body["state"], "INFERENCE");
    // An exam that comes while stopped is not refused: nobody would call the model up before its end.
    pod.post("/v3.0.8/api/v1/stop", &json!({})).await;
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    wait("generation", async || {
        pod.get("/api/v1/state").await.body["poc_status"] == "GENERATING"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_and_versions_tell_what_this_slot_has() {
    let pod = Pod::promoted().await;
    let status = pod.post("/api/v1/models/status", &json!({"hf_repo": MODEL})).await;
    assert_eq!((status.status, &status.body["status"]), (200, &json!("DOWNLOADED")));
    let other = pod
        .post("/api/v1/models/status", &json!({"hf_repo": "org/other"}))
        .await;
    assert_eq!(other.body["status"], "NOT_FOUND");
    let download = pod
        .post("/api/v1/models/download", &json!({"hf_repo": "org/other"}))
        .await;
    assert_eq!((download.status, &download.body["status"]), (202, &json!("IGNORED")));
    assert_eq!(pod.post("/api/v1/models/status", &json!({})).await.status, 422);
    assert_eq!(
        pod.get("/api/v1/models/list").await.body["models"][0]["model"]["hf_repo"],
        MODEL
    );
    assert!(pod.get("/api/v1/models/space").await.body["available_gb"].is_number());
    assert_eq!(pod.get("/api/v1/versions").await.body["poc_validation_inference"], true);
}
