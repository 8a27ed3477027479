//! What dies, and what goes on.

use super::{
    chain_door::{START, STATUS, STOP, start_body},
    dapi::Dapi,
    pod::{Pod, wait},
};
use proto::v1::{Proc, Restart, RoundState};
use serde_json::json;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_serve_reopens_by_itself_and_the_round_goes_on() {
    let (mut pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    let body = start_body(&dapi, 145);
    let first = pod.post(START, &body).await;
    dapi.wait_for_nonces(20).await;
    let engines = [pod.process("engine-0").await, pod.process("engine-1").await];
    pod.kill_serve().await;
    wait("generation", async || {
        pod.get(STATUS).await.body["status"] == "GENERATING"
    })
    .await;
    let before = dapi.taken_nonces().len();
    dapi.wait_for_nonces(before + 30).await;
    assert_eq!(
        [pod.process("engine-0").await, pod.process("engine-1").await],
        engines,
        "engines outlive serve"
    );
    let again = pod.post(START, &body).await;
    assert_eq!(again, first, "the first answer is remembered");
    let report = pod.report().await;
    assert_eq!(report.key.unwrap().generation, 1);
    let round = report.round.unwrap();
    assert_eq!((round.height, round.state()), (145, RoundState::Generating));
    pod.post(STOP, &json!({})).await;
    let nonces = dapi.taken_nonces();
    let distinct: BTreeSet<_> = nonces.iter().collect();
    // A callback that was under way when serve died may have been taken and sent again.
    assert!(
        nonces.len() - distinct.len() <= 20,
        "{} of {}",
        distinct.len(),
        nonces.len()
    );
    // At most what was computed between the last journal entry and the death is missing: a batch per group.
    let highest = **distinct.iter().max().unwrap();
    let possible = (highest - 1) / 4 + 1;
    assert!(
        possible - distinct.len() as i64 <= 80,
        "{possible} possible, {} came",
        distinct.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_reloads_by_itself_and_continues_its_group() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    dapi.wait_for_nonces(20).await;
    let (serve, sibling) = (pod.process("serve").await, pod.process("engine-0").await);
    let successor = pod.kill("engine-1").await;
    assert_eq!(successor.starts, 2);
    wait("both engines", async || pod.report().await.backends_ready == 2).await;
    let of_group_1 = |nonces: &[i64]| nonces.iter().filter(|nonce| (**nonce - 1) / 4 % 2 == 1).count();
    let before = of_group_1(&dapi.taken_nonces());
    wait("the group's nonces", async || {
        of_group_1(&dapi.taken_nonces()) >= before + 20
    })
    .await;
    assert_eq!(
        (pod.process("serve").await, pod.process("engine-0").await),
        (serve, sibling)
    );
    pod.post(STOP, &json!({})).await;
    let nonces = dapi.taken_nonces();
    let distinct: BTreeSet<_> = nonces.iter().collect();
    assert_eq!(distinct.len(), nonces.len());
    let group_1: Vec<i64> = nonces
        .iter()
        .copied()
        .filter(|nonce| (nonce - 1) / 4 % 2 == 1)
        .collect();
    let expected: Vec<i64> = (0..group_1.len() as i64).map(|index| 5 + index * 8).collect();
    assert_eq!(group_1, expected, "nothing of the group is missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_engine_a_start_is_asked_to_come_again() {
    let (pod, dapi) = (
        Pod::promoted_with(&["--weights", "recipe:tiny_qwen3_dense:public-tiny-v1"]).await,
        Dapi::start().await,
    );
    let mut hold = pod.hold().await;
    for name in ["engine-0", "engine-1"] {
        let stop = proto::v1::StopProc { name: name.into() };
        hold.stop(stop).await.unwrap();
    }
    // Stopped engines come back: serve asks hold for them again. Until then the door is honest.
    let answer = pod.post(START, &start_body(&dapi, 145)).await;
    assert!([200, 502, 503].contains(&answer.status), "{answer:?}");
    wait("the engines", async || pod.report().await.backends_ready == 2).await;
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_nobody_stops_ends_by_itself() {
    let pod = Pod::promoted_with(&["--stage-time", "1s"]).await;
    let dapi = Dapi::start().await;
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    let begun = Instant::now();
    wait("the end", async || pod.get(STATUS).await.body["status"] == "IDLE").await;
    let lasted = begun.elapsed();
    assert!(
        (Duration::from_millis(1_700)..Duration::from_secs(6)).contains(&lasted),
        "{lasted:?}"
    );
    assert_eq!(pod.report().await.round.unwrap().state(), RoundState::StoppedBySelf);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_is_a_red_light_before_and_never_a_refused_exam() {
    let most = u64::MAX.to_string();
    let pod = Pod::promoted_with(&["--journal-min-free-bytes", &most]).await;
    wait("the red light", async || {
        pod.report().await.not_ready_reasons.contains(&"JournalFull".to_owned())
    })
    .await;
    // Not only little room, but none at all: the folder is gone and its place is taken.
    let journal = pod.run_dir().join("journal");
    std::fs::remove_dir_all(&journal).unwrap();
    std::fs::write(&journal, "in the way").unwrap();
    let dapi = Dapi::start().await;
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    dapi.wait_for_nonces(30).await;
    assert!(pod.report().await.not_ready_reasons.contains(&"JournalFull".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_reaches_the_disk_behind_the_rounds_back() {
    let (pod, dapi) = (Pod::promoted().await, Dapi::start().await);
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    dapi.wait_for_nonces(10).await;
    pod.post(STOP, &json!({})).await;
    wait("the copy", async || {
        let read = |folder: std::path::PathBuf| -> Vec<Vec<u8>> {
            std::fs::read_dir(folder)
                .into_iter()
                .flatten()
                .filter_map(|entry| std::fs::read(entry.ok()?.path()).ok())
                .collect()
        };
        let (memory, disk) = (read(pod.run_dir().join("journal")), read(pod.disk()));
        memory.len() == 1 && memory == disk
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hold_reaps_orphans_and_keeps_what_it_was_asked_to() {
    let pod = Pod::start().await;
    let mut hold = pod.hold().await;
    let orphaning = Proc {
        name: "parent".into(),
        argv: ["sh", "-c", "sleep 0.2 & exit 3"].map(str::to_owned).to_vec(),
        restart: Restart::Never.into(),
        ..Proc::default()
    };
    hold.start(orphaning.clone()).await.unwrap();
    wait("the parent's end", async || pod.process("parent").await.ended_ms != 0).await;
    assert_eq!(pod.process("parent").await.exit_code, 3);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(zombies_of(pod.hold_pid()), 0);
    let nameless = Proc {
        name: String::new(),
        ..orphaning.clone()
    };
    assert_eq!(
        hold.start(nameless).await.unwrap_err().code(),
        tonic::Code::InvalidArgument
    );
    let missing = Proc {
        name: "missing".into(),
        argv: vec!["/nowhere/at/all".into()],
        ..orphaning
    };
    assert_eq!(hold.start(missing).await.unwrap().into_inner().exit_code, 127);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_pod_ends_every_process_in_time() {
    let mut pod = Pod::promoted().await;
    let mut pids = vec![pod.process("serve").await.pid];
    pids.extend([pod.process("engine-0").await.pid, pod.process("engine-1").await.pid]);
    let begun = Instant::now();
    assert!(pod.end().await.success());
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_computed_leaves_before_the_pod_does() {
    let mut pod = Pod::promoted_with(&["--callback-interval", "60s"]).await;
    let dapi = Dapi::start().await;
    assert_eq!(pod.post(START, &start_body(&dapi, 145)).await.status, 200);
    wait("the first callback", async || dapi.callbacks().len() == 1).await;
    wait("more to deliver", async || {
        let round = pod.report().await.round.unwrap();
        round.generated >= round.accepted + 30
    })
    .await;
    let before = dapi.taken_nonces().len();
    assert!(pod.end().await.success());
    assert!(dapi.taken_nonces().len() >= before + 30);
}

/// Children that ended and were not reaped.
fn zombies_of(pid: i32) -> usize {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children
        .split_whitespace()
        .filter_map(|child| std::fs::read_to_string(format!("/proc/{child}/stat")).ok())
        .filter(|stat| stat.contains(") Z "))
        .count()
}
