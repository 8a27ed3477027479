//! A Sprint as a watcher sees it, without any request.

use crds::gonka_host::Registration;
use crds::model_deployment::{ModelDeploymentStatus, SlotStatus};
use crds::references::{LocalReference, UidReference};
use crds::sprint_run::GateResult;
use crds::sprint_schedule::{ChainParameters, StageHeights};
use crds::{GonkaHostStatus, ModelDeploymentSpec};
use proto::v1::{RoundProgress, SlotReport};

use super::*;
use crate::facts::{Exam, Pace};
use crate::live::{Observation, TakeoverEvent};

/// No clock is held back.
static CALM: BTreeMap<String, Vec<String>> = BTreeMap::new();

fn host() -> GonkaHost {
    let mut host = GonkaHost::new("ours", crds::GonkaHostSpec::default());
    host.metadata.namespace = Some("gonka".to_owned());
    host.metadata.uid = Some("uid".to_owned());
    let registration = |slot: i32, node_num| Registration {
        node_id: format!("a1b2c3-qwen-{slot}"),
        slot,
        node_num,
        deployment: LocalReference {
            name: "qwen".to_owned(),
        },
        ..Registration::default()
    };
    let registrations = vec![
        registration(0, Some(1)),
        registration(1, Some(2)),
        registration(2, None),
    ];
    host.status = Some(GonkaHostStatus {
        registrations,
        ..GonkaHostStatus::default()
    });
    host
}

fn deployment() -> ModelDeployment {
    let mut deployment = ModelDeployment::new(
        "qwen",
        ModelDeploymentSpec {
            slots: 3,
            ..ModelDeploymentSpec::default()
        },
    );
    let slot = |index: i32| SlotStatus {
        index,
        pod_ref: Some(UidReference {
            name: format!("pod-{index}"),
            uid: format!("uid-{index}"),
        }),
        nonces_per_minute: Some(600),
        ..SlotStatus::default()
    };
    deployment.status = Some(ModelDeploymentStatus {
        slots: (0..3).map(slot).collect(),
        ..ModelDeploymentStatus::default()
    });
    deployment
}

fn facts(height: i64) -> Facts {
    let parameters = ChainParameters {
        epoch_length: 100,
        poc_stage_duration: 12,
        poc_validation_delay: 3,
        poc_validation_duration: 16,
        ..ChainParameters::default()
    };
    let stages = |poc_start_height, next_poc_start_height| StageHeights {
        poc_start_height,
        generation_end_height: poc_start_height + 12,
        next_poc_start_height,
        ..StageHeights::default()
    };
    let sprint = height >= 145;
    Facts {
        schedule: "net".to_owned(),
        height,
        block_time_ms: 1_000_000 + height * 1000,
        epoch: if sprint { 2 } else { 1 },
        heights: Some(if sprint { stages(145, 245) } else { stages(45, 145) }),
        exam: sprint.then(|| Exam {
            kind: ExamKind::Sprint,
            trigger_height: 145,
            generation_start_height: 145,
            generation_end_height: 157,
            validation_start_height: 160,
            seed: if height > 145 { "C0DE".to_owned() } else { String::new() },
            preserved_node_ids: Vec::new(),
        }),
        parameters: Some(parameters),
        pace: Pace {
            block_millis: 1000.0,
            spread_millis: 10.0,
        },
        ..Facts::default()
    }
}

fn report(board: &Board, pod: &str, node: &str, started_ms: i64, generated: u64) {
    let round = RoundProgress {
        height: 145,
        started_ms,
        first_nonce_ms: started_ms + 100,
        // Engines go on until they are told to stop.
        generated: generated + 7,
        generated_in_time: generated,
        ..RoundProgress::default()
    };
    let report = SlotReport {
        round: Some(round),
        backends_ready: 1,
        backends_expected: 2,
        ..SlotReport::default()
    };
    board.report(
        pod,
        Some(node),
        Observation {
            report,
            received_ms: 1,
            connected: true,
        },
    );
}

const NODE: &str = "a1b2c3-qwen-0";
const START_MS: i64 = 1_145_000;

/// A host with its deployment.
struct World {
    host: GonkaHost,
    deployment: ModelDeployment,
    margins: Margins,
}

impl Default for World {
    fn default() -> Self {
        Self {
            host: host(),
            deployment: deployment(),
            margins: Margins::default(),
        }
    }
}

impl World {
    fn seen(&self) -> Seen<'_> {
        Seen {
            host: &self.host,
            deployments: vec![&self.deployment],
            margins: &self.margins,
            install_id: "a1b2c3",
            held_back: &CALM,
        }
    }
}

fn follow_all(notes: &mut Notes, board: &Board, heights: impl IntoIterator<Item = i64>) {
    let world = World::default();
    let seen = world.seen();
    for height in heights {
        follow(notes, &seen, &facts(height), board, START_MS);
    }
}

fn only(notes: &Notes) -> &Note {
    assert_eq!(notes.open.len(), 1);
    notes.open.values().next().expect("one note")
}

#[test]
fn a_note_is_opened_at_the_start_with_every_registered_slot() {
    let mut notes = Notes::default();
    follow_all(&mut notes, &Board::default(), [144, 145, 146]);
    let note = only(&notes);
    assert_eq!(note.key(), ("gonka".to_owned(), "ours-s-145".to_owned()));
    assert_eq!(note.watched.slots.len(), 2, "the third is not registered");
    assert_eq!((note.watched.start_ms, note.exam.seed.as_str()), (START_MS, "C0DE"));
}

#[test]
fn a_late_watcher_estimates_the_start_from_the_pace() {
    let mut notes = Notes::default();
    follow_all(&mut notes, &Board::default(), [150]);
    assert_eq!(only(&notes).watched.start_ms, START_MS);
}

#[test]
fn rounds_are_kept_after_they_left_the_board() {
    let (mut notes, board) = (Notes::default(), Board::default());
    report(&board, "uid-0", NODE, START_MS + 20, 50);
    follow_all(&mut notes, &board, [145, 150]);
    report(&board, "spare", NODE, START_MS + 5000, 9);
    follow_all(&mut notes, &board, [155]);
    follow_all(&mut notes, &Board::default(), [156]);
    let generated: Vec<u64> = only(&notes).watched.rounds[NODE]
        .iter()
        .map(|round| round.generated)
        .collect();
    assert_eq!(generated, [50, 9]);
    assert!(only(&notes).watched.slots[0].engines_missing);
}

#[test]
fn a_takeover_belongs_to_the_exam_it_happens_in() {
    let (mut notes, board) = (Notes::default(), Board::default());
    let event = |generation, decided_ms, promoted_ms| TakeoverEvent {
        node_id: NODE.to_owned(),
        from_pod: "pod-0".to_owned(),
        to_pod: "spare".to_owned(),
        generation,
        decided_ms,
        promoted_ms,
        ..TakeoverEvent::default()
    };
    board.takeover(event(3, START_MS - 1, Some(START_MS)));
    board.takeover(event(4, START_MS + 3000, None));
    follow_all(&mut notes, &board, [145, 149]);
    board.takeover(event(4, START_MS + 3000, Some(START_MS + 4000)));
    follow_all(&mut notes, &board, [150]);
    let takeovers = &only(&notes).watched.takeovers;
    assert_eq!(takeovers.len(), 1);
    assert_eq!(
        (takeovers[0].generation, takeovers[0].promoted_ms),
        (4, Some(START_MS + 4000))
    );
}

#[test]
fn a_late_watcher_waits_for_slots_to_answer_before_it_holds_one_for_idle() {
    let world = World::default();
    let seen = world.seen();
    let (mut notes, board) = (Notes::default(), Board::default());
    follow_all(&mut notes, &board, [150]);
    assert!(only(&notes).watched.slots.is_empty());
    let answer = |pod: &str| {
        let answer = Observation {
            connected: true,
            ..Observation::default()
        };
        board.report(pod, None, answer);
    };
    answer("uid-1");
    let note = notes.open.values_mut().next().expect("one note");
    assert!(catch_up(note, &seen, &board, &facts(151)));
    assert_eq!(note.watched.slots.len(), 1);
    assert_eq!(
        note.watched.slots[0].slot, 1,
        "it answers and tells of no round: it did nothing"
    );
}

#[test]
fn slots_tell_a_new_leader_of_an_exam_that_nobody_followed() {
    let world = World::default();
    let seen = world.seen();
    let mut opened = Notes::default();
    follow_all(&mut opened, &Board::default(), [145]);
    let mut note = Note {
        exam: only(&opened).exam.clone(),
        unwatched: true,
        ..Note::default()
    };
    let board = Board::default();
    let after = Facts {
        exam: None,
        ..facts(190)
    };
    assert!(!catch_up(&mut note, &seen, &board, &after), "nobody told anything yet");
    report(&board, "uid-0", NODE, START_MS + 20, 50);
    assert!(catch_up(&mut note, &seen, &board, &after));
    assert!(!catch_up(&mut note, &seen, &board, &after), "the same again is no news");
    watch_slots(&mut note, &board, &after);
    let ids: Vec<&str> = note.watched.slots.iter().map(|slot| slot.node_id.as_str()).collect();
    assert_eq!(ids, [NODE], "a silent slot is not held for one that did nothing");
    assert_eq!(note.watched.slots[0].nonces_per_minute, Some(600));
    assert_eq!(note.watched.rounds[NODE][0].generated, 50);
    note.watched.slots[0].nonces_per_minute = None;
    assert!(catch_up(&mut note, &seen, &board, &after), "a rate that was not known");
    note.unwatched = false;
    note.watched.slots.clear();
    assert!(!catch_up(&mut note, &seen, &board, &after), "who watched knows better");
}

#[test]
fn verdicts_taken_before_the_sprint_come_into_its_note() {
    let (host, margins) = (
        host(),
        Margins {
            cold_load_seconds: 30,
            ready_by_seconds: 20,
            drain_seconds: 5,
            first_nonce_seconds: 2,
        },
    );
    let seen = [Seen {
        host: &host,
        deployments: Vec::new(),
        margins: &margins,
        install_id: "a1b2c3",
        held_back: &CALM,
    }];
    let (mut notes, mut clock) = (Notes::default(), gates::Clock::new());
    for height in [118, 120, 130, 142] {
        let facts = facts(height);
        take_verdicts(&mut notes, &mut clock, &seen, &facts, facts.block_time_ms);
    }
    follow(&mut notes, &seen[0], &facts(145), &Board::default(), START_MS);
    let gates: Vec<(Gate, GateResult)> = only(&notes)
        .watched
        .gates
        .iter()
        .map(|verdict| (verdict.gate, verdict.verdict))
        .collect();
    assert_eq!(
        gates,
        [(Gate::ReadyBy, GateResult::Red), (Gate::Drain, GateResult::Red)],
        "whoever came at T-27 s saw no cold load"
    );
    assert!(notes.verdicts.is_empty());
}

#[test]
fn an_exam_that_began_before_the_host_was_made_is_not_its_own() {
    let (mut host, deployment, margins) = (host(), deployment(), Margins::default());
    let board = Board::default();
    let mut notes_of = |created_ms: i64, height: i64| {
        let created = k8s_openapi::jiff::Timestamp::from_millisecond(created_ms).expect("in range");
        host.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(created));
        let seen = Seen {
            host: &host,
            deployments: vec![&deployment],
            margins: &margins,
            install_id: "a1b2c3",
            held_back: &CALM,
        };
        let mut notes = Notes::default();
        follow(&mut notes, &seen, &facts(height), &board, START_MS);
        notes.open.len()
    };
    assert_eq!(
        notes_of(START_MS + 2000, 150),
        0,
        "a record of this name is another host's"
    );
    assert_eq!(notes_of(START_MS - 2000, 150), 1);
    assert_eq!(notes_of(START_MS + 2000, 145), 1, "it has not begun");
}

#[test]
fn what_held_clocks_back_while_an_exam_ran_is_remembered_after_it() {
    let (host, mut deployment, margins) = (host(), deployment(), Margins::default());
    for slot in deployment.status.iter_mut().flat_map(|status| &mut status.slots) {
        slot.node_name = Some(format!("n{}", slot.index));
    }
    let (mut notes, board) = (Notes::default(), Board::default());
    let mut look = |height: i64, held_back: &BTreeMap<String, Vec<String>>| {
        let seen = Seen {
            host: &host,
            deployments: vec![&deployment],
            margins: &margins,
            install_id: "a1b2c3",
            held_back,
        };
        follow(&mut notes, &seen, &facts(height), &board, START_MS);
        let slots = &only(&notes).watched.slots;
        slots
            .iter()
            .map(|slot| slot.held_back.iter().cloned().collect::<Vec<_>>().join(", "))
            .collect::<Vec<_>>()
    };
    let found =
        |texts: &[&str]| BTreeMap::from([("n1".to_owned(), texts.iter().map(|&text| text.to_owned()).collect())]);
    assert_eq!(look(145, &CALM), ["", ""]);
    assert_eq!(look(150, &found(&["GPU 3 HwPowerBrake"])), ["", "GPU 3 HwPowerBrake"]);
    assert_eq!(
        look(155, &found(&["GPU 3 HwPowerBrake", "GPU 0 SyncBoost"])),
        ["", "GPU 0 SyncBoost, GPU 3 HwPowerBrake"]
    );
    assert_eq!(
        look(165, &found(&["GPU 7 HwSlowdown"])),
        ["", "GPU 0 SyncBoost, GPU 3 HwPowerBrake"],
        "generation is over"
    );
}
