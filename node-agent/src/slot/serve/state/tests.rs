//! A slot in an exam, as a value: clocks that step, chains that stumble, starts that come late or not at all.

use super::*;
use crate::slot::{
    clock::steady::Steady,
    serve::{
        outbox::{Outcome, Step},
        report::{
            self,
            tests::{compute, config, hear, ready},
        },
        round::tests::request,
        signal,
    },
};
use proto::v1::{ExamNotice, Frame, RoundState, StageHeights};

const STAGE_MS: i64 = 12_000;

/// What can be told of a round that was driven for 40 seconds.
#[derive(Debug, PartialEq)]
struct Story {
    ids: Vec<i64>,
    sent_at: Vec<i64>,
    hurried: i64,
    rates: Vec<u64>,
    ended_at: i64,
    flushed_until: i64,
}

/// Two rounds, the first with DAPI away for a while and ended by the clock, the second taken away with a flush. The node's
/// clock is set by `steps` (when, by how much) meanwhile; the story is told in the time that really went by.
fn drive(steps: &[(i64, i64)]) -> Story {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ready(folder.path());
    let wall = |time: i64| {
        1_700_000_000_000
            + time
            + steps
                .iter()
                .filter(|(at, _)| *at <= time)
                .map(|(_, by)| by)
                .sum::<i64>()
    };
    let mut clock = Steady::new(wall(0), 0);
    let mut story = Story {
        ids: Vec::new(),
        sent_at: Vec::new(),
        hurried: 0,
        rates: Vec::new(),
        ended_at: 0,
        flushed_until: 0,
    };
    for time in (0..40_000).step_by(100) {
        if state.is_quiet(clock.now_ms(time)) {
            clock.follow(wall(time), time);
        }
        let now = clock.now_ms(time);
        if [0, 30_000].contains(&time) {
            story.ids.push(state.begin_round(request(), vec![0, 0], now));
        }
        if time == 35_000 {
            state.end_round(End::Stopped, 2_000, now);
        }
        let is_over = state.tick(STAGE_MS, now);
        if is_over {
            story.ended_at = time;
        }
        if state.active().is_some() && time % 500 == 0 {
            compute(&mut state, now);
            story.rates.push(state.newest().unwrap().meter.per_second_milli(now));
        }
        story.hurried += i64::from(state.must_hurry(STAGE_MS, now));
        let round = state.rounds.back_mut().unwrap();
        if round.may_send(now) {
            story.flushed_until = time;
            if let Step::Send(count) = round.outbox.decide(now, 1_000) {
                story.sent_at.push(time);
                let is_away = (6_000..10_000).contains(&time) || time >= 34_000;
                let outcome = if is_away { Outcome::Transient } else { Outcome::Accepted };
                assert!(round.outbox.begin(count, now).count() > 0);
                let left = round.outbox.finish(outcome, now);
                round.outbox.pop(left);
            }
        }
    }
    story
}

#[test]
fn a_round_that_begins_is_held_back_for_a_moment_and_one_that_goes_on_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ready(folder.path());
    let id = state.begin_round(request(), vec![0, 0], 10_000);
    state.hold_back(750);
    assert_eq!(state.held_back_ms(id, 10_000), 750);
    assert_eq!(state.held_back_ms(id, 10_750), 0);
    assert_eq!(state.held_back_ms(id + 1, 10_000), 0, "another round");
    let id = state.begin_round(request(), vec![0, 7], 20_000);
    state.hold_back(750);
    assert_eq!(state.held_back_ms(id, 20_000), 0);
}

#[test]
fn a_node_whose_clock_is_set_in_the_middle_of_a_round_does_all_as_if_it_were_not() {
    let calm = drive(&[]);
    assert_eq!((calm.ended_at, calm.flushed_until), (24_000, 36_900), "{calm:?}");
    assert_eq!(calm.rates[30], 4_200);
    for steps in [
        &[(3_000, 5_000)][..],
        &[(3_000, -5_000)],
        &[(3_000, -5_000), (7_000, 5_000), (9_000, 5_000), (12_000, -10_000)],
        &[(23_000, 5_000), (31_000, -5_000), (35_500, -5_000), (36_000, 10_000)],
    ] {
        let stepped = drive(steps);
        assert!(stepped.ids[1] > stepped.ids[0]);
        let ids = calm.ids.clone();
        assert_eq!(Story { ids, ..stepped }, calm, "{steps:?}");
    }
}

#[test]
fn a_round_that_begins_after_the_clock_was_set_back_still_follows_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ready(folder.path());
    let first = state.begin_round(request(), vec![0, 0], 10_000);
    let second = state.begin_round(request(), vec![0, 0], 5_000);
    assert_eq!((first, second), (10_000, 10_001));
    assert_eq!(state.rounds[0].end, Some(End::Stopped), "one round at a time");
}

#[test]
fn blocks_that_stop_coming_end_no_round_and_those_that_come_back_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ready(folder.path());
    state.begin_round(request(), vec![0, 0], 145_000);
    for height in 145..=150 {
        hear(&mut state, height, height * 1_000);
    }
    let mut hurried_ms = 0;
    for now in (150_000..230_000).step_by(200) {
        if now % 5_000 == 0 {
            hear(&mut state, 150, now);
        }
        assert!(!state.tick(STAGE_MS, now), "{now}");
        hurried_ms += 200 * i64::from(state.must_hurry(STAGE_MS, now));
    }
    assert!(hurried_ms <= 35_000, "{hurried_ms}");
    // Two blocks at once, and then some.
    for height in 151..=161 {
        hear(&mut state, height, 230_000 + (height - 151) / 2 * 300);
    }
    assert!(!state.tick(STAGE_MS, 232_000));
    hear(&mut state, 162, 232_100);
    assert!(state.tick(STAGE_MS, 232_200), "two blocks after validation start");
}

#[test]
fn a_source_that_tells_of_the_past_is_not_believed_and_moves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ready(folder.path());
    state.begin_round(request(), vec![0, 0], 145_000);
    for height in 145..=156 {
        hear(&mut state, height, height * 1_000);
    }
    let before = state.signal.clone();
    for height in [155, 146, 1] {
        let frame = Frame {
            height,
            block_hash: "past".into(),
            ..Frame::default()
        };
        assert_eq!(signal::accept(state.signal.as_ref(), frame, "", 156_500), None);
    }
    assert_eq!(state.signal, before);
    compute(&mut state, 156_900);
    hear(&mut state, 157, 157_000);
    compute(&mut state, 157_100);
    assert_eq!(state.newest().map(Round::generated_in_time), Some(2));
}

/// A frame of a confirmation triggered at 300, with this node preserved or not.
fn confirmation(state: &mut State, height: i64, now_ms: i64, preserved: &[&str]) {
    let frame = Frame {
        height,
        block_hash: height.to_string(),
        heights: Some(StageHeights {
            poc_start: 145,
            generation_end: 157,
            validation_start: 160,
            ..StageHeights::default()
        }),
        exam: Some(ExamNotice {
            trigger_height: 300,
            generation_start_height: 302,
            generation_end_height: 314,
            validation_start_height: 317,
            seed: "AB12".into(),
            preserved_node_ids: preserved.iter().map(ToString::to_string).collect(),
            ..ExamNotice::default()
        }),
        ..Frame::default()
    };
    let view = signal::accept(state.signal.as_ref(), frame, "", now_ms).unwrap();
    state.take_view(view);
}

#[test]
fn a_host_that_is_not_active_starts_five_blocks_late_and_ends_with_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ready(folder.path());
    for height in 300..=306 {
        confirmation(&mut state, height, height * 1_000, &[]);
    }
    let late = RoundRequest {
        height: 300,
        seed: "ab12".into(),
        node_num: 4,
        ..request()
    };
    let admission = state.admit(&late, &config(), 306_500);
    assert_eq!(admission, Admission::Start(vec![0, 0]));
    state.begin_round(late, vec![0, 0], 306_500);
    assert_eq!(
        state
            .newest()
            .and_then(|round| round.ends)
            .map(|ends| ends.generation_end),
        Some(314)
    );
    for height in 307..=318 {
        confirmation(&mut state, height, height * 1_000, &[]);
        assert!(!state.tick(STAGE_MS, height * 1_000), "{height}");
    }
    confirmation(&mut state, 319, 319_000, &[]);
    assert!(
        state.tick(STAGE_MS, 319_000),
        "by the chain's height, not by twelve seconds after its own start"
    );
}

#[test]
fn a_preserved_slot_that_is_not_started_has_nothing_to_complain_of() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ready(folder.path());
    for height in 300..=320 {
        confirmation(&mut state, height, height * 1_000, &["abc-tiny-3"]);
        assert!(!state.tick(STAGE_MS, height * 1_000));
        let report = report::render(&state, &config(), height * 1_000);
        assert_eq!(report.not_ready_reasons, Vec::<String>::new());
        assert_eq!(
            report.round.map(|round| (round.state(), round.generated)),
            Some((RoundState::Idle, 0))
        );
    }
}

#[test]
fn a_round_that_nobody_stopped_gives_way_to_an_exam_that_only_the_chain_announced() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ready(folder.path());
    // Told nothing of its own stage, a round lasts twice its length.
    let unknown = RoundRequest {
        height: 200,
        ..request()
    };
    state.begin_round(unknown, vec![0, 0], 290_000);
    for height in 290..=301 {
        confirmation(&mut state, height, height * 1_000, &[]);
        assert!(!state.tick(100_000, height * 1_000), "{height}");
    }
    confirmation(&mut state, 302, 302_000, &[]);
    assert!(
        state.tick(100_000, 302_000),
        "DAPI starts no node that says it generates"
    );
}

#[test]
fn a_start_for_another_node_is_taken_after_it_was_insisted_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = ready(folder.path());
    let at = |height| RoundRequest {
        height,
        node_num: 9,
        ..request()
    };
    for now in [0, 1_000, 2_999] {
        assert_eq!(state.admit(&at(145), &config(), now), Admission::OtherNode(4));
    }
    assert_eq!(
        state.admit(&at(146), &config(), 3_000),
        Admission::OtherNode(4),
        "another exam"
    );
    assert_eq!(
        state.admit(&at(145), &config(), 3_100),
        Admission::OtherNode(4),
        "asked for anew"
    );
    assert_eq!(state.admit(&at(145), &config(), 6_100), Admission::Start(vec![0, 0]));
    state.memory.assignment = None;
    assert_eq!(state.admit(&at(145), &config(), 6_100), Admission::NoSlot);
}
