//! What goes on by itself: after a death in the middle of a callback, without a model, while DAPI is away.

use super::{
    chain_door::{GENERATE, START, STATUS, STOP, start_body},
    dapi::Dapi,
    pod::{MODEL, Pod, wait},
};
use proto::v1::RoundState;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Nonces of node 1 of 4 and two groups, each group from its first on without a gap; answers how many came twice.
fn repeated(nonces: &[i64]) -> usize {
    let distinct: BTreeSet<i64> = nonces.iter().copied().collect();
    for group in 0..2 {
        let of_group = distinct.iter().filter(|nonce| (**nonce - 1) / 4 % 2 == group);
        for (index, nonce) in of_group.enumerate() {
            assert_eq!(*nonce, 1 + group * 4 + index as i64 * 8, "a gap in group {group}");
        }
    }
    nonces.len() - distinct.len()
}

/// Nonces of the longest callback so far.
fn longest(dapi: &Dapi) -> usize {
    let callbacks = dapi.callbacks();
    callbacks.iter().map(|callback| callback.nonces().len()).max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_under_way_when_serve_dies_is_sent_again_and_nothing_else() {
    let (mut pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    for _ in 0..3 {
        let taken = dapi.taken_nonces().len();
        dapi.wait_for_nonces(taken + 20).await;
        dapi.delay(Duration::from_secs(2));
        let before = dapi.callbacks().len();
        wait("a callback without an answer", async || dapi.callbacks().len() > before).await;
        pod.kill_serve().await;
        dapi.delay(Duration::ZERO);
        wait("generation", async || {
            pod.get(STATUS).await.body["status"] == "GENERATING"
        })
        .await;
    }
    let taken = dapi.taken_nonces().len();
    let nonces = dapi.wait_for_nonces(taken + 60).await;
    let longest = longest(&dapi);
    let again = repeated(&nonces);
    assert!(
        again <= 3 * longest,
        "{again} came twice, callbacks had up to {longest}"
    );
    pod.post(STOP, &json!({})).await;
    let round = pod.report().await.round.unwrap();
    assert_eq!(round.state(), RoundState::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exam_that_comes_before_the_model_is_loaded_begins_when_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("recipe.yaml");
    let pod = Pod::start_with(&["--weights", &weights.display().to_string()]).await;
    let dapi = Dapi::start().await;
    pod.promote(super::pod::promotion(1)).await.unwrap();
    let body = start_body(&dapi, 145);
    for _ in 0..3 {
        assert_eq!(pod.post(START, &body).await.status, 503);
    }
    assert_eq!(pod.get(STATUS).await.body["status"], "NO_BACKENDS");
    std::fs::write(&weights, "recipe: tiny_qwen3_dense\ntag: public-tiny-v1\n").unwrap();
    // Nobody asks for the model; DAPI asks for the exam with each block.
    wait("the start", async || pod.post(START, &body).await.status == 200).await;
    wait("both groups", async || {
        let nonces = dapi.taken_nonces();
        [0, 1]
            .iter()
            .all(|group| nonces.iter().any(|nonce| (nonce - 1) / 4 % 2 == *group))
    })
    .await;
    let nonces = dapi.wait_for_nonces(40).await;
    assert_eq!(repeated(&nonces), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_twice_leaves_neither_a_gap_nor_a_repetition() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    for engine in ["engine-0", "engine-1"] {
        let taken = dapi.taken_nonces().len();
        dapi.wait_for_nonces(taken + 20).await;
        pod.kill(engine).await;
        wait("its model", async || pod.report().await.backends_ready == 2).await;
    }
    let taken = dapi.taken_nonces().len();
    let nonces = dapi.wait_for_nonces(taken + 60).await;
    assert_eq!(repeated(&nonces), 0);
    // The groups are level again in what they deliver: none was left behind.
    let of_group = |group| nonces.iter().filter(|nonce| (**nonce - 1) / 4 % 2 == group).count();
    assert!(of_group(0) > 20 && of_group(1) > 20, "{} {}", of_group(0), of_group(1));
}

/// An artifact as another host sent it.
fn validation(dapi: &Dapi) -> Value {
    let mut body = super::recorded::call("generate_validation").body;
    body["params"] = json!({ "model": MODEL, "seq_len": 16 });
    body["url"] = json!(dapi.callback_url());
    body["nonces"] = json!([1]);
    body["validation"] = Value::Null;
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_go_on_by_themselves_when_dapi_was_away_in_any_phase() {
    let (pod, mut dapi) = (Pod::promoted().await, Dapi::start().await);
    let away = async |dapi: &mut Dapi| {
        dapi.die();
        tokio::time::sleep(Duration::from_secs(2)).await;
        dapi.live().await;
        Instant::now()
    };
    // Before the first callback, then in the middle.
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    for _ in 0..2 {
        let taken = dapi.taken_nonces().len();
        let back = away(&mut dapi).await;
        dapi.wait_for_nonces(taken + 100).await;
        assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    }
    assert_eq!(pod.report().await.round.unwrap().refused, 0);
    let taken = dapi.taken_nonces();
    let longest = longest(&dapi);
    let again = repeated(&taken);
    assert!(
        again <= 2 * longest,
        "{again}: only the callbacks whose answer was lost, of up to {longest}"
    );
    // While it validates.
    pod.post(STOP, &json!({})).await;
    let queued = pod.post(GENERATE, &validation(&dapi)).await;
    assert_eq!(queued.status, 200, "{queued:?}");
    away(&mut dapi).await;
    let mut body = validation(&dapi);
    body["nonces"] = json!([5]);
    dapi.die();
    assert_eq!(pod.post(GENERATE, &body).await.status, 200);
    tokio::time::sleep(Duration::from_millis(500)).await;
    dapi.live().await;
    wait("the result", async || {
        let callbacks = dapi.callbacks();
        callbacks.iter().any(|c| {
            c.path.ends_with("/generated") && c.body["artifacts"][0]["nonce"] == 5 && c.body["request_id"].is_string()
        })
    })
    .await;
}
