//! A round's story, told by records.

use super::*;
use proptest::prelude::*;

pub fn request() -> RoundRequest {
    RoundRequest {
        height: 145,
        seed: "052955F4".into(),
        public_key: "03c8".into(),
        node_num: 1,
        node_count: 4,
        model: "gonka-fleet/tiny".into(),
        seq_len: 16,
        k_dim: 12,
        batch_size: 32,
        stronger_rng: false,
        callback_url: "http://10.0.0.1:9100/v2/poc-batches/gonka-fleet%252Ftiny".into(),
        scheme: "prefill_v2".into(),
    }
}

fn started() -> Record {
    Record::Started {
        request: request(),
        at: 1_000,
        groups: 2,
        resume: vec![0, 0],
    }
}

fn batch(at: i64, group: u32, next: u64, nonces: &[i32]) -> Record {
    Record::Batch {
        at,
        group,
        next,
        count: nonces.len() as u32,
        artifacts: nonces.iter().map(|nonce| (*nonce, "AAAA".to_owned())).collect(),
    }
}

fn story() -> Vec<Record> {
    vec![
        started(),
        Record::Answered {
            body: serde_json::json!({"status": "OK"}),
        },
        batch(1_200, 0, 2, &[1, 9]),
        batch(1_300, 1, 1, &[5]),
        Record::Sent {
            at: 2_000,
            accepted: 3,
            refused: 0,
        },
        batch(2_100, 0, 4, &[17, 25]),
        batch(2_200, 1, 3, &[13, 21]),
    ]
}

#[test]
fn a_restarted_serve_goes_on_where_the_journal_ends() {
    let round = Round::replay(&story()).unwrap();
    assert!(round.is_active());
    assert_eq!(round.next, [4, 3]);
    assert_eq!((round.generated, round.accepted, round.refused), (7, 3, 0));
    assert_eq!((round.first_nonce_ms, round.first_callback_ms), (1_200, 2_000));
    assert_eq!(round.outbox.len(), 4);
    assert_eq!(round.answer, Some(serde_json::json!({"status": "OK"})));
}

#[test]
fn every_prefix_of_a_story_is_a_round_that_computed_no_less_than_it_tells() {
    let story = story();
    let mut before = 0;
    for length in 1..=story.len() {
        let round = Round::replay(&story[..length]).unwrap();
        assert!(round.generated >= before);
        assert_eq!(
            round.generated,
            round.accepted + round.refused + round.outbox.len() as u64
        );
        before = round.generated;
    }
    assert_eq!(
        Round::replay(&story[1..]),
        None,
        "a journal without its start tells nothing"
    );
}

#[test]
fn a_successor_starts_at_the_first_undelivered_index_of_each_group() {
    let mut round = Round::replay(&story()).unwrap();
    assert_eq!((round.resume_from(0), round.resume_from(1)), (2, 1));
    round.apply(&Record::Sent {
        at: 3_000,
        accepted: 2,
        refused: 0,
    });
    assert_eq!((round.resume_from(0), round.resume_from(1)), (4, 1));
    round.apply(&Record::Sent {
        at: 3_100,
        accepted: 1,
        refused: 1,
    });
    assert_eq!((round.resume_from(0), round.resume_from(1)), (4, 3));
    assert_eq!((round.accepted, round.refused), (6, 1));
}

#[test]
fn batches_that_lost_their_artifacts_for_want_of_room_still_move_the_position() {
    let mut round = Round::replay(&[started()]).unwrap();
    round.apply(&Record::Batch {
        at: 1_100,
        group: 1,
        next: 32,
        count: 32,
        artifacts: Vec::new(),
    });
    assert_eq!((round.next[1], round.generated), (32, 32));
    round.apply(&batch(1_200, 9, 1, &[1]));
    assert_eq!(round.generated, 32, "a group that does not exist computes nothing");
}

#[test]
fn what_waits_at_the_end_counts_as_refused() {
    let mut round = Round::replay(&story()).unwrap();
    round.apply(&Record::Ended {
        at: 9_000,
        end: End::Stopped,
    });
    assert!(!round.is_active() && !round.may_send(9_000));
    round.flush_until_ms = 9_500;
    assert!(round.may_send(9_499) && !round.may_send(9_500));
    round.drop_outbox();
    assert_eq!((round.generated, round.accepted, round.refused), (7, 3, 4));
    assert_eq!(round.next, [2, 1], "and is computed again should the exam go on");
}

#[test]
fn a_group_without_nonces_left_has_no_work() {
    let mut round = Round::replay(&[started()]).unwrap();
    assert!(round.has_work(0) && round.has_work(1) && !round.has_work(2));
    round.next[0] = enumeration(&round.request, 0, 2).unwrap().len();
    assert!(!round.has_work(0));
}

/// What may happen in a round: a batch of a group, or some of what waits leaves.
#[derive(Debug, Clone)]
enum Step {
    Batch { group: u32, count: u8, lost: bool },
    Sent { accepted: u8, refused: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..2_u32, 0..6_u8, prop::bool::weighted(0.1)).prop_map(|(group, count, lost)| Step::Batch {
            group,
            count,
            lost
        }),
        (0..8_u8, 0..3_u8).prop_map(|(accepted, refused)| Step::Sent { accepted, refused }),
    ]
}

proptest! {
    #[test]
    fn a_successor_that_starts_where_the_report_says_leaves_nothing_undelivered_behind(
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let mut round = Round::replay(&[started()]).unwrap();
        // Indices that wait, oldest first, as a plain list.
        let mut waiting: Vec<(u32, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Batch { group, count, lost } => {
                    let from = round.next[group as usize];
                    let next = from + u64::from(count);
                    // The engine found one of them not finite: it has no artifact.
                    let indices = from + u64::from(lost && count > 0)..next;
                    waiting.extend(indices.clone().map(|index| (group, index)));
                    let nonces: Vec<i32> = indices.map(|index| index as i32).collect();
                    round.apply(&batch(1_000, group, next, &nonces));
                }
                Step::Sent { accepted, refused } => {
                    let accepted = u64::from(accepted).min(waiting.len() as u64);
                    let refused = u64::from(refused).min(waiting.len() as u64 - accepted);
                    waiting.drain(..(accepted + refused) as usize);
                    round.apply(&Record::Sent { at: 2_000, accepted, refused });
                }
            }
            for group in 0..2 {
                let resume = round.resume_from(group);
                prop_assert!(resume <= round.next[group as usize]);
                prop_assert!(waiting.iter().all(|(g, index)| *g != group || *index >= resume));
            }
            prop_assert_eq!(round.outbox.len(), waiting.len());
        }
    }
}
