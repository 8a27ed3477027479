use std::sync::Arc;

use network_simulator::virtual_time::{BEGINNING_MS, Driver};
use proto::v1::SlotKey;

use super::*;
use crate::plan::Plan;

const T: i64 = 1_800_000_000_000;

fn net() -> Network {
    let scenario = Plan::devnet(1, 1).scenario().expect("a scenario");
    Driver::new(Arc::new(scenario), BEGINNING_MS).net().clone()
}

/// Ten nonces a second, a callback every five seconds, a stage of forty.
fn slot() -> Slot {
    let mut slot = Slot::new(Make {
        pod_uid: "pod".to_owned(),
        deployment_uid: "gmd".to_owned(),
        model: crate::MODEL.to_owned(),
        chain_id: String::new(),
        rate_milli: 10_000,
        callback_ms: 5_000,
        stage_ms: 40_000,
    });
    assert!(slot.loaded(1));
    slot
}

fn promote(generation: i64) -> PromoteRequest {
    PromoteRequest {
        key: Some(SlotKey {
            deployment_uid: "gmd".to_owned(),
            slot: 0,
            pod_uid: "pod".to_owned(),
            generation,
        }),
        node_id: "abc123-tiny-0".to_owned(),
        node_num: 2,
        ..PromoteRequest::default()
    }
}

fn start(node_num: u32) -> Start {
    Start {
        stage_height: 30,
        node_num,
        node_count: 4,
        model: crate::MODEL.to_owned(),
    }
}

#[test]
fn a_pod_that_saw_a_higher_generation_says_which() {
    let mut slot = slot();
    assert_eq!(slot.promote(promote(7), T), Ok(()));
    assert_eq!(slot.promote(promote(6), T), Err(7));
    assert_eq!(slot.held(), Some((0, 7)));
}

#[test]
fn only_the_holder_starts_and_a_repeated_start_is_no_conflict() {
    let (mut slot, net) = (slot(), net());
    assert_eq!(slot.start(&start(2), &net, T), 503, "it holds no slot");
    slot.promote(promote(1), T).expect("taken");
    assert_eq!(slot.start(&start(3), &net, T), 503, "another node is meant");
    assert_eq!(slot.start(&start(2), &net, T), 200);
    assert_eq!(slot.start(&start(2), &net, T + 1_000), 200);
    assert!(slot.is_active());
}

#[test]
fn nonces_follow_from_rate_and_time_and_none_is_delivered_twice() {
    let (mut slot, net) = (slot(), net());
    slot.promote(promote(1), T).expect("taken");
    slot.start(&start(2), &net, T);
    slot.tick(T + 5_000);
    let (height, batch) = slot.delivery(T + 5_000).expect("due");
    assert_eq!((height, batch.places.clone(), batch.node_num), (30, 0..50, 2));
    slot.delivered(&batch, Taken::NotNow, T + 5_000);
    assert!(slot.delivery(T + 5_100).is_none(), "not at once");
    slot.tick(T + 7_000);
    let (_, batch) = slot.delivery(T + 7_000).expect("due again");
    assert_eq!(batch.places, 0..70);
    slot.delivered(&batch, Taken::Accepted, T + 7_000);
    slot.tick(T + 12_000);
    let (_, batch) = slot.delivery(T + 12_000).expect("due");
    assert_eq!(batch.places, 70..120);
}

#[test]
fn an_engine_that_dies_computes_nothing_until_its_model_is_loaded_again() {
    let (mut slot, net) = (slot(), net());
    slot.promote(promote(1), T).expect("taken");
    slot.start(&start(2), &net, T);
    slot.engine_dies(T + 2_000);
    assert!(!slot.loaded(1), "the load of the engine that is gone");
    slot.tick(T + 10_000);
    let starts = slot.starts();
    assert!(slot.loaded(starts));
    slot.follow_round(T + 10_000);
    slot.tick(T + 11_000);
    let (_, batch) = slot.delivery(T + 11_000).expect("due");
    assert_eq!(batch.places, 0..30, "two seconds before and one after");
}

#[test]
fn a_report_says_where_another_pod_would_have_to_go_on() {
    let (mut slot, net) = (slot(), net());
    slot.promote(promote(1), T).expect("taken");
    slot.start(&start(2), &net, T);
    slot.tick(T + 4_000);
    let (_, batch) = slot.delivery(T + 4_000).expect("due");
    slot.delivered(&batch, Taken::Accepted, T + 4_000);
    let report = slot.report(T + 6_000);
    let round = report.round.expect("a round");
    assert_eq!((round.generated, round.accepted), (60, 40));
    assert_eq!(
        round.next[0].next_index, 40,
        "what DAPI does not have is computed again"
    );
}
