//! What the operator is told, by values.

use super::*;
use crate::slot::serve::{
    fence::Identity,
    jobs::Jobs,
    journal::{
        Journal,
        record::{End, Record},
    },
    memory::{Assignment, EngineLives, Memory},
    round::{Round, tests::request},
    signal,
    state::Group,
};
use proto::v1::{ArtifactBatch, Frame, PrepareRequest, StageHeights};
use std::collections::VecDeque;

pub(crate) fn config() -> Config {
    Config {
        identity: Identity {
            pod_uid: "pod-a".into(),
            deployment_uid: "gmd".into(),
        },
        pod_name: "tiny-0".into(),
        run_dir: "/nowhere".into(),
        journal_dir: None,
        journal_min_free: 1_000,
        replicas: 2,
        engine_binary: None,
        prepare: PrepareRequest {
            model: "gonka-fleet/tiny".into(),
            scheme: "prefill_v2".into(),
            ..PrepareRequest::default()
        },
        weights_digest: "sha256:good".into(),
        callback_interval_ms: 5_000,
        start_stagger: std::time::Duration::ZERO,
        farewell_ms: 15_000,
        stage_ms: 186_000,
        log_format: crate::slot::telemetry::LogFormat::Json,
    }
}

/// A slot with everything in order.
pub(crate) fn ready(folder: &std::path::Path) -> State {
    let (journal, _) = Journal::open(folder.to_owned());
    let group = Group {
        phase: Phase::Ready,
        starts: 1,
        boot_id: 9,
        weights_digest: "sha256:good".into(),
        ..Group::default()
    };
    State {
        memory: Memory {
            assignment: Some(Assignment {
                deployment_uid: "gmd".into(),
                slot: 3,
                generation: 8,
                node_id: "abc-tiny-3".into(),
                node_num: 4,
                callback_base: String::new(),
            }),
            callback_proven: true,
            rehearsed: Rehearsed {
                time_ms: 5,
                lives: EngineLives { boot_id: 9, starts: 2 },
                ..Rehearsed::default()
            },
            ..Memory::default()
        },
        groups: vec![group.clone(), group],
        rounds: VecDeque::new(),
        jobs: Jobs::new(2),
        signal: None,
        journal,
        journal_free: 1_000,
        turned_away: None,
        start_times: Vec::new(),
        totals: [0; 3],
        closing: false,
        released_ms: 0,
    }
}

#[test]
fn a_slot_in_order_has_no_reason_not_to_be_ready() {
    let folder = tempfile::tempdir().unwrap();
    let report = render(&ready(folder.path()), &config(), 0);
    assert_eq!(report.not_ready_reasons, Vec::<String>::new());
    assert_eq!(report.chain_door(), Door::Open);
    assert_eq!(report.gateway_door(), Door::Closed);
    assert_eq!(report.key.map(|key| (key.slot, key.generation)), Some((3, 8)));
    assert_eq!((report.backends_ready, report.backends_expected), (2, 2));
    assert_eq!(report.weights_digest, "sha256:good");
    assert_eq!(report.round.map(|round| round.state()), Some(RoundState::Idle));
}

#[test]
fn each_reason_is_told_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let told = |break_it: fn(&mut State)| {
        let mut state = ready(folder.path());
        break_it(&mut state);
        render(&state, &config(), 0).not_ready_reasons
    };
    assert_eq!(told(|s| s.groups[1].phase = Phase::Down), ["BackendsMissing"]);
    assert_eq!(
        told(|s| s.groups[1].weights_digest = "sha256:bad".into()),
        ["WeightsMismatch"]
    );
    assert_eq!(
        told(|s| s.groups[1].starts = 2),
        ["NotRehearsed"],
        "a restart voids the rehearsal"
    );
    assert_eq!(
        told(|s| s.groups.iter_mut().for_each(|group| group.boot_id = 10)),
        ["NotRehearsed"],
        "so does a restart of the container, in which starts are counted anew"
    );
    assert_eq!(told(|s| s.memory.rehearsed = Rehearsed::default()), ["NotRehearsed"]);
    assert_eq!(
        told(|s| s.memory.rehearsed.error = "engine 1: gone".into()),
        ["RehearsalFailed"]
    );
    assert_eq!(told(|s| s.memory.callback_proven = false), ["CallbackUnproven"]);
    assert_eq!(told(|s| s.journal_free = 999), ["JournalFull"]);
}

#[test]
fn a_spare_reports_as_nobodys_slot() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ready(folder.path());
    state.memory.assignment = None;
    let report = render(&state, &config(), 0);
    assert_eq!(report.chain_door(), Door::Closed);
    assert_eq!(
        report.key,
        Some(SlotKey {
            deployment_uid: "gmd".into(),
            slot: -1,
            pod_uid: "pod-a".into(),
            generation: 0,
        })
    );
}

#[test]
fn a_round_is_told_with_what_its_successor_needs() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ready(folder.path());
    state.begin_round(request(), vec![0, 0], 1_000);
    for (group, next) in [(0, 4), (1, 2)] {
        state.note(&Record::Batch {
            at: 1_500,
            group,
            next,
            count: 1,
            artifacts: vec![(1, "AAAA".into())],
        });
    }
    state.note(&Record::Sent {
        at: 2_000,
        accepted: 1,
        refused: 0,
    });
    let round = render(&state, &config(), 2_500).round.unwrap();
    assert_eq!(round.state(), RoundState::Generating);
    assert_eq!((round.generated, round.accepted, round.refused), (2, 1, 0));
    assert_eq!(
        (round.started_ms, round.first_nonce_ms, round.first_callback_ms),
        (1_000, 1_500, 2_000)
    );
    let next: Vec<_> = round
        .next
        .iter()
        .map(|resume| (resume.group, resume.next_index))
        .collect();
    assert_eq!(next, [(0, 4), (1, 0)], "group 1's artifact is not delivered yet");
    assert_eq!(round.request.map(|request| request.seed), Some("052955F4".into()));
    state.end_round(End::StoppedBySelf, 0, 3_000);
    let round = render(&state, &config(), 3_000).round.unwrap();
    assert_eq!(round.state(), RoundState::StoppedBySelf);
    assert_eq!(round.refused, 1, "what never left is lost");
    assert_eq!(state.totals, [2, 1, 1]);
}

#[test]
fn a_round_nobody_stopped_ends_with_the_stage() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ready(folder.path());
    state.begin_round(request(), vec![0, 0], 1_000);
    assert!(!state.tick(10_000, 20_999));
    assert!(state.tick(10_000, 21_000));
    assert_eq!(state.newest().and_then(|round| round.end), Some(End::StoppedBySelf));
    assert!(!state.tick(10_000, 21_200), "once");
}

/// A frame of the exam's chain, taken in.
pub(crate) fn hear(state: &mut State, height: i64, now_ms: i64) {
    let frame = Frame {
        height,
        block_hash: height.to_string(),
        heights: Some(StageHeights {
            poc_start: 145,
            generation_end: 157,
            validation_start: 160,
            ..StageHeights::default()
        }),
        ..Frame::default()
    };
    let view = signal::accept(state.signal.as_ref(), frame, "", now_ms).unwrap();
    state.take_view(view);
}

/// Two artifacts more of group 0.
pub(crate) fn compute(state: &mut State, now_ms: i64) {
    let round = state.active().unwrap();
    let (id, next) = (round.id, round.next[0]);
    let batch = ArtifactBatch {
        artifacts: vec![Artifact::default(), Artifact::default()],
        next_index: next + 2,
        ..ArtifactBatch::default()
    };
    state.take_batch(id, 0, batch, now_ms);
}

fn counts(state: &State) -> (u64, u64) {
    let round = progress(state.newest().unwrap(), 0);
    (round.generated, round.generated_in_time)
}

#[test]
fn what_is_computed_after_generation_ended_is_told_apart_from_what_was_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ready(folder.path());
    state.begin_round(request(), vec![0, 0], 145_000);
    compute(&mut state, 145_500);
    assert_eq!(counts(&state), (2, 2), "nobody tells of the chain");
    for height in 150..=156 {
        hear(&mut state, height, height * 1_000);
    }
    compute(&mut state, 156_900);
    assert_eq!(counts(&state), (4, 4), "the last block that counts");
    hear(&mut state, 157, 157_000);
    compute(&mut state, 157_010);
    compute(&mut state, 158_000);
    assert_eq!(counts(&state), (8, 4));
    let replayed = Journal::open(folder.path().to_owned()).1.remove(0);
    let replayed = Round::replay(&replayed).unwrap();
    assert_eq!(replayed.generated_in_time(), 4, "also after a restart of serve");
}

#[test]
fn a_stage_that_should_be_over_by_its_pace_is_not_once_a_block_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ready(folder.path());
    state.begin_round(request(), vec![0, 0], 145_000);
    for height in 145..=152 {
        hear(&mut state, height, height * 1_000);
    }
    compute(&mut state, 156_500);
    assert_eq!(counts(&state), (2, 2), "frames stopped coming, the chain did not");
    compute(&mut state, 157_500);
    assert_eq!(counts(&state), (4, 2));
    hear(&mut state, 153, 158_000);
    assert_eq!(counts(&state), (4, 4), "it was the chain that stood still");
    compute(&mut state, 158_100);
    assert_eq!(counts(&state), (6, 6));
}
