//! A whole exam, as DAPI drives it, and the validation after it.

use super::{
    chain_door::{GENERATE, START, STATUS, STOP, start_body},
    dapi::Dapi,
    pod::{MODEL, Pod, key, promotion, wait},
    recorded::{call, file, shape},
};
use kernels::{
    artifact::to_base64,
    decoder::{Dtype, Model, Recipe},
    prefill_v2::PrefillV2,
    scheme::{Round, Scheme as _},
};
use proto::v1::PromoteRequest;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// The vector of a nonce, computed here.
pub fn reference(block_hash: &str, public_key: &str, nonce: i64) -> String {
    let model = Model::from_recipe(&Recipe::TinyQwen3Dense, "public-tiny-v1");
    let round = Round {
        block_hash: block_hash.into(),
        public_key: public_key.into(),
        seq_len: 16,
        k_dim: 12,
        stronger_rng: false,
    };
    let mut prepared = PrefillV2::new(Arc::new(model), Dtype::F32).prepare(&round).unwrap();
    to_base64(&prepared.generate(&[nonce]).unwrap().artifacts[0].vector)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_delivers_every_nonce_of_both_groups_until_it_is_stopped() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    let recorded = call("init_generate");
    let body = start_body(&dapi, 145);
    let answer = pod
        .call("management", &recorded.method, &recorded.path, Some(&body))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(shape(&answer.body), shape(&recorded.response));
    assert_eq!(
        (&answer.body["backends"], &answer.body["n_groups"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(pod.get(STATUS).await.body["status"], "GENERATING");

    let nonces = dapi.wait_for_nonces(40).await;
    let callback = dapi.wait_for("/generated").await;
    assert_eq!(
        callback.path,
        "/v2/poc-batches/gonka-fleet%252Ftiny_qwen3_dense/generated"
    );
    assert_eq!(shape(&callback.body), shape(&file("callback_generated")));
    for field in ["block_hash", "block_height", "public_key", "node_id"] {
        assert_eq!(callback.body[field], body[field], "{field}");
    }
    let first = &callback.body["artifacts"][0];
    let (hash, key) = (
        body["block_hash"].as_str().unwrap(),
        body["public_key"].as_str().unwrap(),
    );
    assert_eq!(
        first["vector_b64"],
        reference(hash, key, first["nonce"].as_i64().unwrap())
    );

    // Node 1 of 4, two groups: 1, 9, 17 … and 5, 13, 21 …: together 1, 5, 9, 13 …, none missing, none twice.
    let distinct: BTreeSet<i64> = nonces.iter().copied().collect();
    assert_eq!(distinct.len(), nonces.len());
    for group in 0..2 {
        let of_group: Vec<i64> = nonces
            .iter()
            .copied()
            .filter(|nonce| (nonce - 1) / 4 % 2 == group)
            .collect();
        let expected: Vec<i64> = (0..of_group.len() as i64)
            .map(|index| 1 + group * 4 + index * 8)
            .collect();
        assert_eq!(of_group, expected);
    }

    let stop = call("stop");
    let stopped = pod.call("management", "POST", STOP, Some(&stop.body)).await;
    assert_eq!((stopped.status, shape(&stopped.body)), (200, shape(&stop.response)));
    assert_eq!(pod.get(STATUS).await.body["status"], "IDLE");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let count = dapi.callbacks().len();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(dapi.callbacks().len(), count, "a stop cuts the callbacks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_start_is_answered_like_the_first_and_no_older_exam_disturbs_it() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    let body = start_body(&dapi, 145);
    let first = pod.post(START, &body).await;
    for _ in 0..3 {
        assert_eq!(pod.post(START, &body).await, first);
    }
    let mut other = body.clone();
    other["block_height"] = json!(144);
    assert_eq!(pod.post(START, &other).await.status, 409);
    // The case of the hash is part of every seed: the first word stands.
    let mut lower = body.clone();
    lower["block_hash"] = json!(body["block_hash"].as_str().unwrap().to_lowercase());
    assert_eq!(pod.post(START, &lower).await.status, 409);
    assert_eq!(pod.report().await.round.unwrap().height, 145);

    // After a stop the same exam may begin once more, where it was; then the other one from the bottom.
    dapi.wait_for_nonces(10).await;
    // A stop that overtakes an answer of DAPI has the artifacts computed again, rightly.
    wait("the answer", async || {
        pod.report().await.round.unwrap().accepted == dapi.taken_nonces().len() as u64
    })
    .await;
    pod.post(STOP, &json!({})).await;
    let before: BTreeSet<i64> = dapi.taken_nonces().into_iter().collect();
    assert_eq!(pod.post(START, &body).await.status, 200);
    dapi.wait_for_nonces(before.len() + 10).await;
    pod.post(STOP, &json!({})).await;
    let all = dapi.taken_nonces();
    assert_eq!(
        all.iter().collect::<BTreeSet<_>>().len(),
        all.len(),
        "nothing delivered is computed again"
    );
    assert_eq!(pod.post(START, &other).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_exam_goes_before_one_that_was_never_stopped() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    dapi.wait_for_nonces(10).await;
    let newer = start_body(&dapi, 180);
    let answer = pod.post(START, &newer).await;
    assert_eq!((answer.status, &answer.body["backends"]), (200, &json!(2)));
    wait("the newer exam's first nonces", async || {
        let callbacks = dapi.callbacks();
        callbacks
            .iter()
            .any(|callback| callback.body["block_height"] == 180 && callback.nonces().iter().any(|nonce| *nonce <= 5))
    })
    .await;
    let callbacks = dapi.callbacks();
    let first_newer = callbacks.iter().position(|c| c.body["block_height"] == 180).unwrap();
    assert!(
        callbacks[first_newer..].iter().all(|c| c.body["block_height"] == 180),
        "nothing of the older exam comes later"
    );
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 409);
    assert_eq!(pod.post(START, &newer).await, answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staggered_start_is_answered_at_once_and_computed_a_moment_later() {
    let (pod, dapi) = (Pod::start_with(&["--start-stagger=2s"]).await, Dapi::start().await);
    pod.wait_until_ready().await;
    let promote = PromoteRequest {
        key: Some(key(1, 1)),
        ..promotion(1)
    };
    pod.promote(promote).await.unwrap();
    let asked = Instant::now();
    let answer = pod.post(START, &start_body(&dapi, 145)).await;
    assert_eq!(answer.status, 200);
    let answered = asked.elapsed();
    assert!(
        answered < Duration::from_millis(900),
        "DAPI is not kept waiting: {answered:?}"
    );
    dapi.wait_for_nonces(8).await;
    let round = pod.report().await.round.unwrap();
    // Slot 1 waits half of the spread.
    let waited = round.first_nonce_ms - round.started_ms;
    assert!((1_000..2_000).contains(&waited), "{waited} ms");
    // A start that is stopped before it computes leaves an engine that takes the next one.
    pod.post(STOP, &json!({})).await;
    let taken = dapi.taken_nonces().len();
    assert_eq!(pod.post(START, &start_body(&dapi, 211)).await.status, 200);
    pod.post(STOP, &json!({})).await;
    assert_eq!(pod.post(START, &start_body(&dapi, 277)).await.status, 200);
    dapi.wait_for_nonces(taken + 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_wait_out_refusals_and_failures_and_nothing_is_given_up() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    dapi.answer(503);
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    wait("a second attempt", async || dapi.callbacks().len() >= 3).await;
    let attempts = dapi.callbacks();
    let pause = attempts[2].at - attempts[1].at;
    assert!(pause >= Duration::from_millis(950), "no storm: {pause:?}");
    assert_eq!(attempts[0].nonces()[0], attempts[2].nonces()[0], "nothing is given up");
    dapi.answer(200);
    dapi.wait_for_nonces(60).await;
    let report = pod.report().await.round.unwrap();
    assert_eq!(report.refused, 0);
    assert!(report.accepted >= 60 && report.first_callback_ms > report.first_nonce_ms);
    // A DAPI that lost its database knows neither node nor stage for a while.
    for status in [400, 404, 500] {
        dapi.answer(status);
        let (begun, before) = (Instant::now(), dapi.callbacks().len());
        wait("three refusals", async || dapi.callbacks().len() >= before + 3).await;
        assert!(begun.elapsed() >= Duration::from_millis(750), "no storm");
        assert_eq!(pod.report().await.round.unwrap().refused, 0, "{status}");
        dapi.answer(200);
        let taken = dapi.taken_nonces().len();
        dapi.wait_for_nonces(taken + 40).await;
    }
    let nonces = dapi.taken_nonces();
    assert_eq!(nonces.iter().collect::<BTreeSet<_>>().len(), nonces.len());
    let without_gap = |group: i64| {
        let of_group = nonces.iter().filter(|nonce| (**nonce - 1) / 4 % 2 == group);
        of_group
            .enumerate()
            .all(|(index, nonce)| *nonce == 1 + group * 4 + index as i64 * 8)
    };
    assert!(without_gap(0) && without_gap(1), "{nonces:?}");
    // What was never taken when the exam ends is told as refused.
    dapi.answer(400);
    let before = dapi.callbacks().len();
    wait("a refusal", async || dapi.callbacks().len() > before).await;
    pod.post(STOP, &json!({})).await;
    assert!(pod.report().await.round.unwrap().refused > 0);
    let metrics = pod.call("metrics", "GET", "/metrics", None).await.body;
    for metric in [
        "gonka_slot_nonces_total{result=\"accepted\"}",
        "gonka_slot_nonces_total{result=\"refused\"}",
        "gonka_slot_start_seconds_count{phase=\"request_to_engine\"} 1",
        "gonka_slot_start_seconds_count{phase=\"first_nonce\"} 1",
        "gonka_slot_start_seconds_count{phase=\"first_callback\"} 1",
        "gonka_slot_round_state 3",
        "gonka_slot_generation 1",
        "gonka_slot_door_open{door=\"chain\"} 1",
        "gonka_slot_journal_free_bytes",
    ] {
        assert!(metrics.as_str().unwrap().contains(metric), "{metric} in {metrics}");
    }
}

/// The recorded validation, for artifacts of ours.
fn validation_body(dapi: &Dapi, artifacts: &[Value]) -> Value {
    let mut body = call("generate_validation").body;
    body["params"] = json!({ "model": MODEL, "seq_len": 16 });
    body["url"] = json!(dapi.callback_url());
    body["nonces"] = artifacts.iter().map(|artifact| artifact["nonce"].clone()).collect();
    body["validation"] = json!({ "artifacts": artifacts });
    body
}

fn artifacts(body: &Value, nonces: &[i64]) -> Vec<Value> {
    let (hash, key) = (
        body["block_hash"].as_str().unwrap(),
        body["public_key"].as_str().unwrap(),
    );
    nonces
        .iter()
        .map(|nonce| json!({ "nonce": nonce, "vector_b64": reference(hash, key, *nonce) }))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn validation_is_queued_computed_and_called_back_as_recorded() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    let recorded = call("generate_validation");
    let mut sent = artifacts(&recorded.body, &[1, 2, 5, 6]);
    // What another nonce's vector says of nonce 6 is wrong.
    sent[3]["vector_b64"] = sent[0]["vector_b64"].clone();
    let body = validation_body(&dapi, &sent);
    let queued = pod.post(GENERATE, &body).await;
    assert_eq!((queued.status, shape(&queued.body)), (200, shape(&recorded.response)));
    let id = queued.body["request_id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("5001:") && id.len() == "5001:".len() + 36, "{id}");
    let callback = dapi.wait_for("/validated").await;
    let mut told = callback.body.clone();
    assert_eq!(told["mismatch_nonces"], json!([6]));
    told["mismatch_nonces"] = json!([]);
    assert_eq!(shape(&told), shape(&file("callback_validated")));
    assert_eq!((&told["n_total"], &told["n_mismatch"]), (&json!(4), &json!(1)));
    assert_eq!(told["fraud_detected"], false, "one of four is luck at p_mismatch 0.1");
    assert_eq!(told["request_id"], json!(id));
    let result = pod.get(&format!("{GENERATE}/{id}")).await;
    assert_eq!(
        (&result.body["status"], &result.body["n_mismatch"]),
        (&json!("completed"), &json!(1))
    );
    assert_eq!(pod.get(&format!("{GENERATE}/5001:nobody")).await.status, 404);

    let mut waiting = body.clone();
    waiting["wait"] = json!(true);
    waiting["url"] = Value::Null;
    let done = pod.post(GENERATE, &waiting).await;
    assert_eq!(
        (done.status, &done.body["status"], &done.body["n_total"]),
        (200, &json!("completed"), &json!(4))
    );
    waiting["validation"] = Value::Null;
    let computed = pod.post(GENERATE, &waiting).await;
    assert_eq!(computed.body["artifacts"][0], sent[0]);
    assert_eq!(
        computed.body["encoding"],
        json!({"dtype": "f16", "k_dim": 12, "endian": "le"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_validations_get_the_status_of_their_fault() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    let good = validation_body(&dapi, &artifacts(&call("generate_validation").body, &[1]));
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    let many: Vec<i64> = (0..100_001).collect();
    let cases = [
        (400, with("nonces", json!([1, 2]))),
        (422, with("nonces", json!([]))),
        (422, with("nonces", json!([5_000_000_000_i64]))),
        (422, with("validation", json!({"artifacts": [{"nonce": 1}]}))),
        (400, with("stat_test", json!({"dist_threshold": -1.0}))),
        (409, with("params", json!({"model": "org/other", "seq_len": 16}))),
    ];
    for (status, body) in cases {
        assert_eq!(pod.post(GENERATE, &body).await.status, status, "{body}");
    }
    let mut flood = with("nonces", json!(many));
    flood["validation"] = Value::Null;
    assert_eq!(pod.post(GENERATE, &flood).await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn validation_waits_while_a_round_runs_and_a_stop_cancels_it() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    let body = validation_body(&dapi, &artifacts(&call("generate_validation").body, &[1]));
    let queued = pod.post(GENERATE, &body).await;
    let path = format!("{GENERATE}/{}", queued.body["request_id"].as_str().unwrap());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(pod.get(&path).await.body["status"], "queued");
    pod.post(STOP, &json!({})).await;
    assert_eq!(pod.get(&path).await.body["status"], "cancelled");
    assert!(
        dapi.callbacks()
            .iter()
            .all(|callback| !callback.path.ends_with("/validated"))
    );
}
