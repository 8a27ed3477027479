//! Golden cases, and what must hold for any record.

use proptest::prelude::*;

use super::answers::Commit;
use super::decide::decide;
use super::examined::{Examined, Phase};
use super::observed::{Evidence, Expectation, HostView, Observed, Round, Watched};
use crate::golden;
use crate::gonka_host::observed::Reading;

#[test]
fn every_golden_case_is_decided_as_written() {
    assert!(golden::check("sprint_run", |observed: &Observed| decide(observed)) >= 8);
}

#[test]
fn a_reward_known_to_be_nothing_closes_once_claims_are_open() {
    let mut observed = sprint(&[(120, 120, 118, 110)]);
    observed.phase = Phase::Settled;
    observed.evidence.ballot = Reading::known(super::answers::Ballot::default());
    observed.evidence.weight = Reading::known(Some(0));
    observed.evidence.reward = Reading::known(None);
    assert!(decide(&observed).row.is_none(), "it may be settled in the next block");
    observed.claims_open = true;
    let status = decide(&observed).status.expect("a status");
    assert_eq!(status.reward_ngonka.as_deref(), Some("0"));
    assert!(status.sealed_time.is_some());
}

#[test]
fn a_second_pass_over_the_same_evidence_writes_nothing() {
    let mut observed = sprint(&[(120, 120, 118, 110), (120, 60, 60, 55)]);
    observed.phase = Phase::Voted;
    observed.evidence.ballot = Reading::known(super::answers::Ballot { valid: 2, invalid: 0 });
    let desired = decide(&observed);
    let mut run = crds::SprintRun::new("ours-s-145", desired.create.expect("a record"));
    run.metadata.generation = Some(1);
    run.status = desired.status;
    observed.run = Some(run);
    observed.now_ms += 60_000;
    let again = decide(&observed);
    assert_eq!((again.create, again.status), (None, None));
}

#[test]
fn a_large_host_shows_its_worst_slots_and_counts_all() {
    let numbers: Vec<(i64, u64, u64, i64)> = (0..200).map(|slot| (120, 120, 120, 120 - slot % 100)).collect();
    let mut observed = sprint(&numbers);
    observed.phase = Phase::Committed;
    let status = decide(&observed).status.expect("a status");
    assert_eq!(status.slots.len(), 64);
    assert_eq!(status.slots[0].committed, Some(21));
    assert_eq!(status.ratio_histogram.iter().sum::<i32>(), 200);
    assert_eq!(status.totals.as_ref().map(|totals| totals.slots), Some(200));
    let bytes = serde_json::to_vec(&status).expect("serialises").len();
    assert!(bytes <= 32 * 1024, "{bytes} bytes");
}

#[test]
fn a_canary_is_in_the_record_of_a_large_host_though_it_lost_nothing() {
    let mut slots = vec![(100, 90, 90, 90); 199];
    slots.push((100, 100, 100, 100));
    let mut observed = sprint(&slots);
    observed.phase = Phase::Committed;
    let names = |observed: &Observed| {
        let status = decide(observed).status.expect("a status");
        assert_eq!(status.slots.len(), 64);
        status.slots.into_iter().map(|slot| slot.node_id).collect::<Vec<_>>()
    };
    assert!(!names(&observed).contains(&"a1b2c3-qwen-199".to_owned()));
    observed.watched.slots[199].canary = true;
    assert_eq!(
        names(&observed).last().map(String::as_str),
        Some("a1b2c3-qwen-199"),
        "the worst come first"
    );
}

/// A Sprint of slots as (expected, generated, accepted, committed).
fn sprint(slots: &[(i64, u64, u64, i64)]) -> Observed {
    let id = |slot: usize| format!("a1b2c3-qwen-{slot}");
    let expectation = |(slot, (expected, ..)): (usize, &(i64, u64, u64, i64))| Expectation {
        node_id: id(slot),
        slot: slot as i32,
        nonces_per_minute: Some(expected * 5),
        ..Expectation::default()
    };
    let round = |(slot, (_, generated, accepted, _)): (usize, &(i64, u64, u64, i64))| {
        let round = Round {
            started_ms: 1_000_010,
            first_nonce_ms: if *generated > 0 { 1_000_100 } else { 0 },
            first_callback_ms: if *accepted > 0 { 1_000_900 } else { 0 },
            generated: *generated,
            accepted: *accepted,
            failed: false,
        };
        (id(slot), vec![round])
    };
    let total = slots.iter().map(|(.., committed)| *committed).sum();
    Observed {
        now_ms: 2_000_000,
        host: HostView {
            namespace: "gonka".into(),
            name: "ours".into(),
            uid: "uid".into(),
            address: "us".into(),
        },
        exam: Examined {
            kind: crds::references::ExamKind::Sprint,
            epoch: 2,
            trigger_height: 145,
            start_height: 145,
            blocks: 12,
            seed: "C0DE".into(),
            ..Examined::default()
        },
        watched: Watched {
            slots: slots.iter().enumerate().map(expectation).collect(),
            rounds: slots.iter().enumerate().map(round).collect(),
            start_ms: 1_000_000,
            block_millis: 1000.0,
            first_nonce_millis: 2000,
            ..Watched::default()
        },
        evidence: Evidence {
            commits: Reading::known(vec![Commit {
                address: "us".into(),
                model: "m".into(),
                count: total,
            }]),
            distribution: Reading::known(
                slots
                    .iter()
                    .enumerate()
                    .map(|(slot, (.., committed))| (id(slot), *committed))
                    .collect(),
            ),
            accepted: Reading::known(None),
            ..Evidence::default()
        },
        ..Observed::default()
    }
}

#[test]
fn a_block_whose_time_is_an_estimate_is_not_later_than_what_follows_from_it() {
    let mut observed = sprint(&[(100, 100, 100, 100)]);
    observed.phase = Phase::Committed;
    observed.watched.start_ms = 1_000_114;
    let status = decide(&observed).status.expect("a status");
    assert_eq!(status.slots[0].first_nonce_millis, Some(0));
    assert_eq!(status.slots[0].first_callback_millis, Some(786));
}

proptest! {
    #[test]
    fn sums_hold_and_nothing_negative_is_written(
        slots in proptest::collection::vec((0..500_i64, 0..500_u64, 0..500_u64, 0..500_i64), 0..100),
        reward in 0..1_000_000_000_000_000_u64,
        phase in prop_oneof![Just(Phase::Committed), Just(Phase::Voted), Just(Phase::Weighed), Just(Phase::Settled), Just(Phase::Expired)],
    ) {
        let mut observed = sprint(&slots);
        observed.phase = phase;
        observed.evidence.ballot = Reading::known(super::answers::Ballot { valid: 1, invalid: 0 });
        observed.evidence.weight = Reading::known(Some(1));
        observed.evidence.reward = Reading::known(Some(reward));
        let desired = decide(&observed);
        let status = desired.status.expect("a status");
        let totals = status.totals.expect("totals");
        prop_assert_eq!(totals.committed, slots.iter().map(|(.., committed)| *committed).sum::<i64>());
        prop_assert!(status.slots.len() <= 64 && status.slots.len() <= slots.len());
        prop_assert!(status.ratio_basis_points.is_none_or(|ratio| (0..=10_000).contains(&ratio)));
        prop_assert!(status.lost_ngonka.is_none_or(|lost| lost.parse::<u64>().is_ok()));
        prop_assert_eq!(status.sealed_time.is_some(), phase >= Phase::Settled);
        prop_assert_eq!(desired.row.is_some(), phase >= Phase::Settled);
        if let Some(row) = desired.row {
            prop_assert_eq!(row.len(), slots.len());
        }
    }
}
