//! The operator door: tokens, the fence, takeover, rehearsal.

use super::{
    chain_door::{START, STATUS, start_body},
    dapi::Dapi,
    exams::reference,
    pod::{MODEL, POD_UID, Pod, key, promotion, signed, wait},
};
use kernels::artifact::to_base64;
use proto::v1::{
    DemoteRequest, Door, PromoteRequest, RehearseRequest, Resume, RoundState, RoundsRequest, SlotKey, SlotWatchRequest,
    StartRequest,
};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Request};

#[tokio::test(flavor = "multi_thread")]
async fn nobody_passes_without_the_operators_token() {
    let pod = Pod::start().await;
    let mut slot = pod.slot().await;
    let plain = slot.promote(Request::new(promotion(1))).await.unwrap_err();
    assert_eq!(plain.code(), Code::Unauthenticated);
    let mut forged = Request::new(promotion(1));
    forged
        .metadata_mut()
        .insert("authorization", "Bearer a.b.c".parse().unwrap());
    assert_eq!(slot.promote(forged).await.unwrap_err().code(), Code::Unauthenticated);
    let watch = SlotWatchRequest { key: Some(key(0, 0)) };
    assert_eq!(
        slot.watch(Request::new(watch)).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert_eq!(pod.report().await.chain_door(), Door::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_generation_is_refused_with_the_one_seen_also_after_a_restart() {
    let mut pod = Pod::promoted().await;
    pod.promote(promotion(5)).await.unwrap();
    let stale = pod.promote(promotion(4)).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition);
    assert!(stale.message().contains("generation seen is 5"), "{}", stale.message());
    pod.kill_serve().await;
    let stale = pod.promote(promotion(4)).await.unwrap_err();
    assert!(stale.message().contains("generation seen is 5"), "{}", stale.message());
    assert_eq!(
        pod.report().await.chain_door(),
        Door::Open,
        "the door reopened by itself"
    );
    assert_eq!(pod.get(STATUS).await.status, 200);
    for wrong in [
        SlotKey {
            pod_uid: "pod-b".into(),
            ..key(0, 9)
        },
        SlotKey {
            deployment_uid: "gmd-2".into(),
            ..key(0, 9)
        },
        key(1, 9),
    ] {
        let request = PromoteRequest {
            key: Some(wrong.clone()),
            ..promotion(9)
        };
        assert_eq!(
            pod.promote(request).await.unwrap_err().code(),
            Code::FailedPrecondition,
            "{wrong:?}"
        );
    }
    assert_eq!(
        pod.report().await.key.map(|key| (key.slot, key.generation)),
        Some((0, 5))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demotion_resets_connections_and_closes_the_door() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    dapi.wait_for_nonces(10).await;
    let mut kept = tokio::net::TcpStream::connect(pod.address("management")).await.unwrap();
    kept.write_all(b"GET /api/v1/state HTTP/1.1\r\nHost: slot\r\n\r\n")
        .await
        .unwrap();
    let mut answer = vec![0; 4_096];
    let read = kept.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    let demotion = DemoteRequest {
        key: Some(key(0, 2)),
        drain_millis: 500,
        superseded: false,
    };
    let report = pod.slot().await.demote(signed(demotion)).await.unwrap().into_inner();
    assert_eq!(report.chain_door(), Door::Closed);
    assert_eq!(report.round.unwrap().state(), RoundState::Stopped);
    let reset = kept.read(&mut answer).await.unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(pod.get(STATUS).await.status, 503);
    assert_eq!(
        pod.promote(promotion(1)).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    // What was computed has still been delivered.
    wait("the last flush", async || {
        let round = pod.report().await.round.unwrap();
        round.generated == round.accepted && round.refused == 0
    })
    .await;
}

/// The running round, as the operator hands it over.
pub fn running(dapi: &Dapi) -> StartRequest {
    StartRequest {
        height: 145,
        seed: "C0DE".into(),
        public_key: "02feed".into(),
        node_num: 1,
        node_count: 4,
        model: MODEL.into(),
        seq_len: 16,
        k_dim: 12,
        batch_size: 32,
        stronger_rng: false,
        callback_url: dapi.callback_url(),
        scheme: "prefill_v2".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_spare_goes_on_with_the_round_by_itself() {
    let (pod, dapi) = (Pod::start().await, Dapi::start().await);
    pod.wait_until_ready().await;
    let request = PromoteRequest {
        running: Some(running(&dapi)),
        resume: vec![
            Resume {
                group: 0,
                next_index: 10,
            },
            Resume {
                group: 1,
                next_index: 20,
            },
        ],
        ..promotion(3)
    };
    let asked = Instant::now();
    let report = pod.promote(request.clone()).await.unwrap();
    assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
    assert_eq!(report.round.unwrap().state(), RoundState::Generating);
    assert_eq!(pod.get(STATUS).await.body["status"], "GENERATING");
    let nonces: BTreeSet<i64> = dapi.wait_for_nonces(40).await.into_iter().collect();
    let first_of = |group: i64| nonces.iter().copied().find(|nonce| (nonce - 1) / 4 % 2 == group);
    assert_eq!((first_of(0), first_of(1)), (Some(1 + 10 * 8), Some(5 + 20 * 8)));
    let mut foreign = request.clone();
    foreign.running.as_mut().unwrap().model = "org/other".into();
    assert_eq!(pod.promote(foreign).await.unwrap_err().code(), Code::FailedPrecondition);
    // Told once more, it goes on; DAPI's own request meets the same round.
    let again = pod.promote(request).await.unwrap().round.unwrap();
    assert!(again.generated > 0);
    let mut body = start_body(&dapi, 145);
    body["block_hash"] = "C0DE".into();
    body["public_key"] = "02feed".into();
    let answer = pod.post(START, &body).await;
    assert_eq!((answer.status, answer.body["status"].as_str()), (200, Some("OK")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_base_replaces_the_host_of_every_callback() {
    let (pod, dapi) = (Pod::start().await, Dapi::start().await);
    pod.wait_until_ready().await;
    let request = PromoteRequest {
        callback_base: dapi.address(),
        ..promotion(1)
    };
    pod.promote(request).await.unwrap();
    let mut body = start_body(&dapi, 145);
    body["url"] = "http://dapi.invalid:9100/v2/poc-batches/gonka-fleet%252Ftiny_qwen3_dense".into();
    assert_eq!(pod.post(START, &body).await.status, 200);
    let callback = dapi.wait_for("/generated").await;
    assert_eq!(
        callback.path,
        "/v2/poc-batches/gonka-fleet%252Ftiny_qwen3_dense/generated"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_proves_engines_and_way_back_until_an_engine_restarts() {
    let (mut pod, dapi) = (Pod::start().await, Dapi::start().await);
    pod.wait_until_ready().await;
    let reasons = pod.report().await.not_ready_reasons;
    assert_eq!(reasons, ["NotRehearsed", "CallbackUnproven"]);
    dapi.answer(503);
    let request = || RehearseRequest {
        key: Some(SlotKey { slot: -1, ..key(0, 0) }),
        round: Some(running(&dapi)),
        nonces: vec![1, 5, 9],
    };
    let rehearsal = pod.slot().await.rehearse(signed(request())).await.unwrap().into_inner();
    assert_eq!(rehearsal.error, "");
    assert!(rehearsal.nonces_per_second_milli > 0);
    let told: Vec<_> = rehearsal
        .artifacts
        .iter()
        .map(|a| (a.nonce, to_base64(&a.vector)))
        .collect();
    let expected: Vec<_> = [1, 5, 9]
        .map(|nonce| (nonce as i32, reference("C0DE", "02feed", nonce)))
        .to_vec();
    assert_eq!(told, expected);
    assert!(dapi.callbacks()[0].nonces().is_empty(), "an empty batch proves the way");
    assert_eq!(pod.report().await.not_ready_reasons, Vec::<String>::new());
    pod.kill_serve().await;
    pod.wait_until_ready().await;
    assert_eq!(
        pod.report().await.not_ready_reasons,
        Vec::<String>::new(),
        "the engines are the same"
    );
    assert_eq!(pod.report().await.rehearsal.unwrap().artifacts, rehearsal.artifacts);
    pod.kill("engine-0").await;
    pod.wait_until_ready().await;
    assert_eq!(pod.report().await.not_ready_reasons, ["NotRehearsed"]);
    dapi.answer(404);
    let rehearsal = pod.slot().await.rehearse(signed(request())).await.unwrap().into_inner();
    assert!(rehearsal.error.contains("404"), "{}", rehearsal.error);
    assert_eq!(
        pod.report().await.not_ready_reasons,
        ["RehearsalFailed", "CallbackUnproven"]
    );
    let none = RehearseRequest {
        nonces: Vec::new(),
        ..request()
    };
    assert_eq!(
        pod.slot().await.rehearse(signed(none)).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_changes_within_two_seconds_and_rounds_tell_the_past() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    let watch = SlotWatchRequest { key: Some(key(0, 1)) };
    let mut reports = pod.slot().await.watch(signed(watch)).await.unwrap().into_inner();
    let first = reports.message().await.unwrap().unwrap();
    assert_eq!(first.key.unwrap().pod_uid, POD_UID);
    assert_eq!(first.loaded_model, MODEL);
    assert!(first.weights_digest.starts_with("sha256:"));
    for height in [145, 245] {
        assert_eq!(pod.post(START, &start_body(&dapi, height)).await.status, 200);
        let begun = Instant::now();
        loop {
            let round = reports.message().await.unwrap().unwrap().round.unwrap();
            assert!(begun.elapsed() < Duration::from_secs(5));
            if round.height == height && round.generated > 0 {
                break;
            }
        }
        pod.post(super::chain_door::STOP, &serde_json::json!({})).await;
    }
    let request = RoundsRequest {
        key: Some(key(0, 1)),
        limit: 0,
    };
    let rounds = pod
        .slot()
        .await
        .rounds(signed(request))
        .await
        .unwrap()
        .into_inner()
        .rounds;
    let told: Vec<_> = rounds.iter().map(|round| (round.height, round.state())).collect();
    assert_eq!(told, [(245, RoundState::Stopped), (145, RoundState::Stopped)]);
}
