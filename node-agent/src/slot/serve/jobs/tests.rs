//! Jobs, told by values.

use super::*;
use crate::slot::serve::round::tests::request;

fn artifact(nonce: i64, vector: [u8; 4]) -> Artifact {
    Artifact {
        nonce,
        vector: vector.to_vec(),
    }
}

/// 1.0 and 0.5 as little-endian halves, and something far from it.
const VECTOR: [u8; 4] = [0x00, 0x3c, 0x00, 0x38];
const OTHER: [u8; 4] = [0x00, 0xbc, 0x00, 0x38];

fn job(id: &str, nonces: &[i64], received: Option<Vec<Artifact>>) -> Job {
    let mut request = request();
    request.batch_size = 2;
    Job {
        id: id.into(),
        request,
        nonces: nonces.to_vec(),
        received,
        test: StatTest::default(),
        done: 0,
        computed: Vec::new(),
    }
}

/// Works a group's queue off.
fn work(jobs: &mut Jobs, group: usize) -> Vec<Vec<i64>> {
    let mut chunks = Vec::new();
    while let Some((job, chunk)) = jobs.next_chunk(group) {
        let (id, chunk) = (job.id.clone(), chunk.to_vec());
        jobs.begin(&id, 0);
        let artifacts = chunk.iter().map(|nonce| artifact(*nonce, VECTOR)).collect();
        jobs.finish_chunk(group, &id, chunk.len(), artifacts, 0);
        chunks.push(chunk);
    }
    chunks
}

#[test]
fn a_validation_counts_what_differs_and_calls_back() {
    let mut jobs = Jobs::new(1);
    let received = vec![artifact(1, VECTOR), artifact(5, OTHER), artifact(9, VECTOR)];
    jobs.push(0, job("5001:a", &[1, 5, 9], Some(received)), 0);
    assert_eq!(jobs.outcome("5001:a"), Some(&Outcome::Queued));
    assert_eq!(jobs.queued_nonces(), 3);
    assert_eq!(work(&mut jobs, 0), [vec![1, 5], vec![9]]);
    let Some(Outcome::Completed(result)) = jobs.outcome("5001:a").cloned() else {
        panic!("the job must be complete");
    };
    assert_eq!(result["n_total"], 3);
    assert_eq!(result["mismatch_nonces"], json!([5]));
    assert_eq!(
        result["fraud_detected"],
        json!(true),
        "p_mismatch 0.001: one of three is too many"
    );
    let post = jobs.take_post().unwrap();
    assert_eq!(
        post.url,
        "http://10.0.0.1:9100/v2/poc-batches/gonka-fleet%252Ftiny/validated"
    );
    assert_eq!(post.body["request_id"], "5001:a");
    assert_eq!(post.body["n_mismatch"], 1);
    assert_eq!(jobs.take_post(), None);
}

#[test]
fn a_job_without_received_artifacts_returns_its_own() {
    let mut jobs = Jobs::new(1);
    jobs.push(0, job("5001:a", &[1], None), 0);
    work(&mut jobs, 0);
    let post = jobs.take_post().unwrap();
    assert!(post.url.ends_with("/generated"));
    assert_eq!(post.body["artifacts"], json!([{"nonce": 1, "vector_b64": "ADwAOA=="}]));
    assert_eq!(
        post.body["encoding"],
        json!({"dtype": "f16", "k_dim": 12, "endian": "le"})
    );
}

#[test]
fn jobs_of_a_group_keep_their_order_and_groups_take_turns() {
    let mut jobs = Jobs::new(2);
    let turns: Vec<_> = (0..4).map(|_| jobs.take_turn(|_| true)).collect();
    assert_eq!(turns, [Some(0), Some(1), Some(0), Some(1)]);
    assert_eq!(jobs.take_turn(|group| group == 1), Some(1));
    assert_eq!(jobs.take_turn(|_| false), None);
    jobs.push(0, job("first", &[1, 2, 3], None), 0);
    jobs.push(0, job("second", &[4], None), 0);
    jobs.push(1, job("third", &[5], None), 0);
    assert_eq!(work(&mut jobs, 0), [vec![1, 2], vec![3], vec![4]]);
    assert_eq!(work(&mut jobs, 1), [vec![5]]);
    assert!(!jobs.is_busy());
}

#[test]
fn a_stop_cancels_what_waits_and_a_late_chunk_changes_nothing() {
    let mut jobs = Jobs::new(1);
    jobs.push(0, job("a", &[1, 2, 3], None), 0);
    jobs.begin("a", 0);
    jobs.cancel_all(5);
    jobs.finish_chunk(0, "a", 2, vec![artifact(1, VECTOR), artifact(2, VECTOR)], 6);
    assert_eq!(jobs.outcome("a"), Some(&Outcome::Cancelled));
    assert!(!jobs.is_busy());
}

#[test]
fn results_are_forgotten_after_five_minutes() {
    let mut jobs = Jobs::new(1);
    jobs.push(0, job("a", &[1], None), 0);
    work(&mut jobs, 0);
    jobs.push(0, job("waiting", &[1], None), 0);
    jobs.expire(299_999);
    assert!(jobs.outcome("a").is_some());
    jobs.expire(300_000);
    assert!(jobs.outcome("a").is_none());
    assert_eq!(jobs.outcome("waiting"), Some(&Outcome::Queued));
}

#[test]
fn a_failed_job_says_why() {
    let mut jobs = Jobs::new(1);
    jobs.push(0, job("a", &[1], None), 0);
    jobs.fail(0, "a", "seq_len is 0", 1);
    assert_eq!(jobs.outcome("a"), Some(&Outcome::Failed("seq_len is 0".into())));
    assert!(!jobs.is_busy());
}
