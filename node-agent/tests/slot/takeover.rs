//! A slot changes hands, seen from the pod that loses it: what is in flight, what is late, what is stale, what is misdirected.

use super::{
    chain_door::{START, STATUS, STOP, start_body},
    dapi::Dapi,
    operator_door::running,
    pod::{Pod, key, promotion, signed, wait},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proto::v1::{DemoteRequest, Door, RoundState, RoundsRequest, StartRequest};
use serde_json::json;
use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::Code;

fn says(slot: i32, generation: i64) -> [String; 2] {
    [slot.to_string(), generation.to_string()]
}

fn demotion(generation: i64) -> DemoteRequest {
    DemoteRequest {
        key: Some(key(0, generation)),
        drain_millis: 5_000,
        superseded: false,
    }
}

/// A connection as a pool keeps it.
async fn connect(pod: &Pod) -> TcpStream {
    TcpStream::connect(pod.address("management")).await.unwrap()
}

fn raw(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nHost: slot\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A connection with a request in flight of which the last bytes are still to come; they are told too.
async fn begin(pod: &Pod, path: &str, body: &str) -> (TcpStream, String) {
    let mut stream = connect(pod).await;
    let (first, rest) = body.split_at(body.len() / 2);
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: slot\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // The door asks for the body when it has taken the request up.
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(first.as_bytes()).await.unwrap();
    (stream, rest.to_owned())
}

/// Everything that still comes, and how it ended.
async fn read_to_end(stream: &mut TcpStream) -> (String, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await;
    let error = ended.unwrap().err().map(|error| error.kind());
    (String::from_utf8(bytes).unwrap(), error)
}

/// One whole answer that says the connection ends with it, and nothing behind it.
fn is_one_farewell(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    head.contains("\r\nconnection: close")
        && !body.contains("HTTP/1.1")
        && length.and_then(|length| length.parse().ok()) == Some(body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_the_chain_door_says_which_assignment_gave_it() {
    let mut pod = Pod::start().await;
    pod.wait_until_ready().await;
    assert_eq!(pod.get(STATUS).await.assignment, says(-1, 0), "none is held");
    pod.promote(promotion(3)).await.unwrap();
    let huge = json!({ "text": "A".repeat(300_000) });
    for (status, answer) in [
        (200, pod.get(STATUS).await),
        (200, pod.get("/livez").await),
        (404, pod.get("/v3.0.8/api/v1/nothing").await),
        (405, pod.get(START).await),
        (413, pod.post(START, &huge).await),
        (422, pod.post(START, &json!({})).await),
        (200, pod.call("inference", "GET", "/v1/models", None).await),
    ] {
        assert_eq!((answer.status, answer.assignment), (status, says(0, 3)));
    }
    pod.promote(promotion(5)).await.unwrap();
    assert_eq!(pod.get(STATUS).await.assignment, says(0, 5));
    pod.kill_serve().await;
    let again = pod.get(STATUS).await;
    assert_eq!(
        (again.status, again.assignment),
        (200, says(0, 5)),
        "as before its restart"
    );
    pod.slot().await.demote(signed(demotion(6))).await.unwrap();
    // A client whose pooled connection was reset may notice it only with its next request.
    wait("the closed door", async || {
        let answer = pod.try_call("management", "GET", STATUS, None).await;
        answer.is_ok_and(|closed| (closed.status, closed.assignment) == (503, says(-1, 0)))
    })
    .await;
    pod.kill_serve().await;
    let closed = pod.get(STATUS).await;
    assert_eq!((closed.status, closed.assignment), (503, says(-1, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demotion_answers_what_is_in_flight_and_resets_what_is_idle_at_once() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    let mut pooled = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&pod).await;
        stream.write_all(raw("GET", STATUS, "").as_bytes()).await.unwrap();
        let mut answer = vec![0; 4_096];
        let read = stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
        pooled.push(stream);
    }
    // A start waits for the word of both engines: one of them is frozen. Behind it a client that does not wait sends more.
    let frozen = Pid::from_raw(pod.process("engine-1").await.pid);
    kill(frozen, Signal::SIGSTOP).unwrap();
    let mut in_flight = connect(&pod).await;
    let start = start_body(&dapi, 145).to_string();
    let piped = [
        raw("POST", START, &start),
        raw("GET", STATUS, ""),
        raw("POST", STOP, "{}"),
    ]
    .concat();
    in_flight.write_all(piped.as_bytes()).await.unwrap();
    wait("the round", async || {
        pod.report().await.round.unwrap().state() == RoundState::Generating
    })
    .await;
    // One more has sent half of its body.
    let (mut half, rest) = begin(&pod, START, &start_body(&dapi, 190).to_string()).await;

    let mut slot = pod.slot().await;
    let demoting = tokio::task::JoinSet::from_iter([async move { slot.demote(signed(demotion(2))).await.unwrap() }]);
    let asked = Instant::now();
    for stream in &mut pooled {
        let (text, error) = read_to_end(stream).await;
        assert_eq!((text.as_str(), error), ("", Some(ErrorKind::ConnectionReset)));
    }
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "long before the drain is over: {:?}",
        asked.elapsed()
    );
    let (text, _) = read_to_end(&mut in_flight).await;
    assert!(is_one_farewell(&text), "{text}");
    assert!(text.contains("x-gonka-slot-generation: 1\r\n"), "{text}");
    half.write_all(rest.as_bytes()).await.unwrap();
    let (text, _) = read_to_end(&mut half).await;
    assert!(text.starts_with("HTTP/1.1 503") && is_one_farewell(&text), "{text}");
    let report = demoting.join_all().await.remove(0).into_inner();
    assert_eq!(report.chain_door(), Door::Closed);
    assert!(asked.elapsed() < Duration::from_secs(5), "nothing was left to wait for");
    kill(frozen, Signal::SIGCONT).unwrap();
    // Neither the late start nor the one behind it began anything.
    let request = RoundsRequest {
        key: Some(key(0, 2)),
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
    assert_eq!(told, [(145, RoundState::Stopped)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_within_the_drain_is_reset_too() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    let (mut half, _) = begin(&pod, START, &start_body(&dapi, 145).to_string()).await;
    let demotion = DemoteRequest {
        drain_millis: 300,
        ..demotion(2)
    };
    let asked = Instant::now();
    pod.slot().await.demote(signed(demotion)).await.unwrap();
    assert!(
        (300..3_000).contains(&asked.elapsed().as_millis()),
        "{:?}",
        asked.elapsed()
    );
    let (text, error) = read_to_end(&mut half).await;
    assert_eq!((text.as_str(), error), ("", Some(ErrorKind::ConnectionReset)));
    // Taken back at once: what was begun before the demotion is still late, and the round is DAPI's to start.
    pod.promote(promotion(3)).await.unwrap();
    assert_eq!(pod.get(STATUS).await.body["status"], "IDLE");
}

/// A pod with artifacts that wait for a DAPI which is not in its window.
async fn generating() -> (Pod, Dapi) {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    dapi.answer(503);
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    wait("something to deliver", async || {
        !dapi.callbacks().is_empty() && pod.report().await.round.unwrap().generated >= 20
    })
    .await;
    (pod, dapi)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_away_while_its_slot_moved_stops_at_once_and_delivers_nothing_more() {
    for (generation, restarted) in [(2, false), (3, false), (3, true)] {
        let (mut pod, dapi) = generating().await;
        if restarted {
            pod.kill_serve().await;
            wait("the round to go on", async || {
                pod.get(STATUS).await.body["status"] == "GENERATING"
            })
            .await;
        }
        let demotion = DemoteRequest {
            superseded: true,
            ..demotion(generation)
        };
        let report = pod.slot().await.demote(signed(demotion)).await.unwrap().into_inner();
        assert_eq!(report.chain_door(), Door::Closed);
        let round = report.round.unwrap();
        assert_eq!((round.state(), round.accepted), (RoundState::Stopped, 0));
        assert_eq!(round.generated, round.refused, "what waited is given up, and told");
        dapi.answer(200);
        let before = dapi.callbacks().len();
        // Longer than what was computed may leave after an ordinary demotion.
        tokio::time::sleep(Duration::from_millis(2_200)).await;
        assert_eq!(dapi.callbacks().len(), before, "{generation} {restarted}");
        assert_eq!(pod.report().await.round.unwrap().generated, round.generated);
        assert_eq!(
            pod.promote(promotion(generation - 1)).await.unwrap_err().code(),
            Code::FailedPrecondition
        );
        pod.kill_serve().await;
        assert_eq!(pod.get(STATUS).await.status, 503, "nor does a restart open it");
    }
}

/// Generations count the assignments of all slots: the next one of this slot may be many above.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_computed_leaves_after_a_demotion_whatever_its_generation() {
    let (pod, dapi) = generating().await;
    let report = pod.slot().await.demote(signed(demotion(9))).await.unwrap().into_inner();
    let round = report.round.as_ref().unwrap();
    assert_eq!(
        (report.chain_door(), round.state()),
        (Door::Closed, RoundState::Stopped)
    );
    dapi.answer(200);
    wait("all that was computed", async || {
        let round = pod.report().await.round.unwrap();
        round.accepted == round.generated
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demotion_of_another_slot_takes_nothing_away() {
    let pod = Pod::promoted().await;
    let mut slot = pod.slot().await;
    for wrong in [
        key(1, 9),
        proto::v1::SlotKey {
            pod_uid: "pod-b".into(),
            ..key(0, 9)
        },
    ] {
        let demotion = DemoteRequest {
            key: Some(wrong),
            ..demotion(9)
        };
        let refused = slot.demote(signed(demotion)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }
    let answer = pod.get(STATUS).await;
    assert_eq!((answer.status, answer.assignment), (200, says(0, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_meant_for_another_node_takes_no_slot_from_its_own_exam() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    let mut foreign = start_body(&dapi, 145);
    foreign["node_id"] = json!(2);
    let refused = pod.post(START, &foreign).await;
    assert_eq!(
        refused.status, 503,
        "DAPI asks again with the next block, by then at the right pod"
    );
    assert!(
        refused.body["detail"].as_str().unwrap().contains("node 1"),
        "{refused:?}"
    );
    assert_eq!(pod.get(STATUS).await.body["status"], "IDLE");
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    assert_eq!(pod.post(START, &foreign).await.status, 503);
    let callback = dapi.wait_for("/generated").await;
    assert_eq!(callback.body["node_id"], 1);
    pod.post(STOP, &json!({})).await;
    // Whoever insists means us: DAPI counts its nodes anew when it has lost its database.
    foreign["block_height"] = json!(245);
    let begun = Instant::now();
    wait("the start", async || pod.post(START, &foreign).await.status == 200).await;
    assert!(begun.elapsed() >= Duration::from_millis(2_900), "{:?}", begun.elapsed());
    wait("its callback", async || {
        dapi.callbacks().iter().any(|callback| callback.body["node_id"] == 2)
    })
    .await;
    // Our own number goes before it at any time.
    assert_eq!(pod.post(START, &start_body(&dapi, 245)).await.status, 200);
    assert_eq!(pod.report().await.round.unwrap().request.unwrap().node_num, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn dapis_own_word_on_an_exam_goes_before_what_the_operator_handed_over() {
    let (pod, dapi) = (Pod::start().await, Dapi::start().await);
    pod.wait_until_ready().await;
    let handed = |seed: &str, height| StartRequest {
        seed: seed.into(),
        height,
        ..running(&dapi)
    };
    let promote = async |generation, running| {
        let request = proto::v1::PromoteRequest {
            running: Some(running),
            ..promotion(generation)
        };
        pod.promote(request).await.unwrap().round.unwrap()
    };
    let round = promote(1, handed("c0de", 145)).await;
    assert_eq!((round.seed.as_str(), round.state()), ("c0de", RoundState::Generating));
    let mut body = start_body(&dapi, 145);
    body["block_hash"] = "C0DE".into();
    body["public_key"] = "02feed".into();
    assert_eq!(
        pod.post(START, &body).await.status,
        200,
        "the case is part of every seed"
    );
    assert_eq!(pod.report().await.round.unwrap().seed, "C0DE");
    for (seed, height) in [("c0de", 145), ("FADE", 100)] {
        let round = promote(2, handed(seed, height)).await;
        assert_eq!((round.seed.as_str(), round.height), ("C0DE", 145), "it goes on");
    }
    dapi.wait_for_nonces(20).await;
    let of_case = |case: &str| dapi.callbacks().iter().filter(|c| c.body["block_hash"] == case).count();
    assert!(of_case("C0DE") > 0);
    assert_eq!(promote(3, handed("FADE", 200)).await.height, 200, "a newer exam");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_is_late_by_a_demotion_disturbs_no_later_assignment() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    let (mut late, rest) = begin(&pod, STOP, "{}").await;
    let mut slot = pod.slot().await;
    let demoting = tokio::task::JoinSet::from_iter([async move { slot.demote(signed(demotion(2))).await.unwrap() }]);
    wait("the door", async || pod.report().await.chain_door() == Door::Closed).await;
    pod.promote(promotion(3)).await.unwrap();
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    late.write_all(rest.as_bytes()).await.unwrap();
    let (text, _) = read_to_end(&mut late).await;
    assert!(text.starts_with("HTTP/1.1 503") && is_one_farewell(&text), "{text}");
    drop(demoting.join_all().await);
    assert_eq!(pod.get(STATUS).await.body["status"], "GENERATING");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_told_to_end_keeps_its_slot_until_it_is_taken_and_refuses_for_a_moment_after() {
    let mut pod = Pod::promoted_with(&["--farewell", "20s"]).await;
    let dapi = Dapi::start().await;
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    wait("the first callback", async || !dapi.callbacks().is_empty()).await;
    pod.terminate();
    let before = dapi.taken_nonces().len();
    wait("the round to go on", async || dapi.taken_nonces().len() >= before + 40).await;
    assert_eq!(pod.get(STATUS).await.status, 200);

    pod.slot().await.demote(signed(demotion(2))).await.unwrap();
    let demoted = Instant::now();
    wait("a refusal", async || {
        let answer = pod.try_call("management", "GET", STATUS, None).await;
        answer.is_ok_and(|answer| answer.status == 503)
    })
    .await;
    assert!(demoted.elapsed() < Duration::from_secs(1), "{:?}", demoted.elapsed());
    assert!(pod.end().await.success());
    let stayed = demoted.elapsed();
    assert!((2_500..8_000).contains(&stayed.as_millis()), "{stayed:?}");
}
