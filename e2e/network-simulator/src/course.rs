//! Whole runs of the state machine in virtual time, without sockets: what DAPI sends when, what the chain makes of it.

use crate::{
    dapi::{PocStatus, Status, nodes},
    event::Command,
    network::Network,
    scenario::verb::Verb,
    testing::{self, World},
    verbs,
};
use serde_json::json;

/// A world whose DAPI has these nodes.
fn world_of(scenario: &str, ids: &[&str]) -> World {
    let mut world = World::new(testing::network_of(scenario));
    for id in ids {
        let effects = testing::register(world.net(), id);
        world.effects(effects);
    }
    world
}

fn world(ids: &[&str]) -> World {
    world_of(testing::SCENARIO, ids)
}

/// Requests of the blocks in a range as `height method path`.
fn calls(world: &World, heights: std::ops::RangeInclusive<i64>) -> Vec<String> {
    world
        .calls
        .iter()
        .filter(|(height, ..)| heights.contains(height))
        .map(|(height, call, _)| format!("{height} {}", call.replace("/v3.0.8", "").replace("/api/v1", "")))
        .collect()
}

fn count(calls: &[String], call: &str) -> usize {
    calls.iter().filter(|line| *line == call).count()
}

fn trigger(net: &mut Network) {
    let command = Command {
        verb: Verb::TriggerConfirmation,
        arguments: crate::scenario::verb::Arguments::default(),
    };
    verbs::apply(net, &command).expect("a confirmation fits");
}

#[test]
fn a_registered_node_is_looked_at_and_loaded_only_when_it_must_be() {
    let mut world = world(&["a"]);
    world.run_to(2);
    let expected = [
        "0 GET /state",
        "0 GET /health",
        "0 GET /v1/models",
        "0 GET /inference/pow/status",
    ];
    assert_eq!(calls(&world, 0..=2), expected);
    assert_eq!(world.net().dapi.nodes[0].current, (Status::Inference, PocStatus::Idle));
    let mut world = self::world(&[]);
    world.model = "another/model".to_owned();
    let effects = testing::register(world.net(), "a");
    world.effects(effects);
    world.run_to(2);
    let seen = calls(&world, 0..=2);
    assert_eq!(
        seen[3..],
        ["0 POST /stop", "0 POST /inference/up", "0 GET /inference/pow/status"]
    );
    let up = world.calls[4].2.clone().expect("a body");
    assert!(up.contains(r#""additional_args":["--dtype","bfloat16"]"#), "{up}");
}

#[test]
fn a_sprint_is_driven_in_the_recorded_order() {
    let mut world = world(&["a", "b"]);
    world.run_to(93);
    let start = calls(&world, 61..=61);
    assert_eq!(count(&start, "61 GET /inference/pow/status"), 2);
    assert_eq!(count(&start, "61 POST /inference/pow/init/generate"), 2);
    let polls =
        |line: &String| line.ends_with("GET /state") || line.contains("GET /health") || line.contains("GET /v1/models");
    let quiet: Vec<String> = calls(&world, 62..=75).into_iter().filter(|line| !polls(line)).collect();
    assert!(
        quiet.iter().all(|line| line.ends_with("GET /inference/pow/status")),
        "{quiet:?}"
    );
    let validation = calls(&world, 76..=76);
    assert_eq!(
        count(&validation, "76 POST /inference/pow/stop"),
        2,
        "late: at validation start"
    );
    assert_eq!(
        count(&validation, "76 POST /inference/pow/generate"),
        4,
        "one request per host"
    );
    let back = calls(&world, 92..=92);
    for path in ["/state", "/health", "/v1/models", "/inference/pow/status"] {
        assert_eq!(count(&back, &format!("92 GET {path}")), 2, "{back:?}");
    }
    assert!(
        !back.iter().any(|line| line.contains("POST")),
        "nothing is loaded when all is well"
    );
}

#[test]
fn a_start_request_carries_what_was_recorded_and_nothing_else() {
    let mut world = world(&["a", "b"]);
    nodes::delete(world.net(), "a");
    world.run_to(61);
    let (_, _, body) = world
        .calls
        .iter()
        .find(|(_, call, _)| call.ends_with("init/generate"))
        .expect("a start")
        .clone();
    let body: serde_json::Value = serde_json::from_str(&body.expect("a body")).expect("JSON");
    let (key, hash) = {
        let net = world.net();
        (
            net.hosts[net.ours].public_key.clone(),
            net.block(61).expect("block 61").hash.clone(),
        )
    };
    let expected = json!({
        "block_hash": hash, "block_height": 61, "public_key": key, "node_id": 2, "node_count": 3,
        "params": {"model": testing::MODEL, "seq_len": 16},
        "url": "http://127.0.0.1:9100/v2/poc-batches/gonka-fleet%252Ftiny_qwen3_dense",
    });
    assert_eq!(body, expected);
}

#[test]
fn a_failing_node_is_asked_every_block_until_wind_down_and_then_left_alone() {
    let mut world = world(&["a", "b"]);
    world.init_status.insert("a".to_owned(), 500);
    world.run_to(66);
    assert_eq!(world.net().dapi.nodes[0].current.0, Status::Failed);
    for height in 62..=66 {
        assert_eq!(
            count(
                &calls(&world, height..=height),
                &format!("{height} POST /inference/pow/init/generate")
            ),
            1
        );
    }
    world.run_to(75);
    assert_eq!(
        count(&calls(&world, 69..=69), "69 POST /inference/pow/init/generate"),
        1
    );
    assert!(
        !calls(&world, 70..=75).iter().any(|line| line.contains("init/generate")),
        "wind-down is at 70"
    );
    assert!(
        world.net().dapi.nodes[0]
            .failure_reason
            .contains("cannot transition to POC/Validating")
    );
    world.init_status.clear();
    world.run_to(100);
    assert_eq!(
        world.net().dapi.nodes[0].current.0,
        Status::Inference,
        "looked at again after validation"
    );
}

#[test]
fn a_confirmation_shows_its_nodes_validating_a_block_late_and_uses_its_own_hash() {
    let mut world = world(&["a", "b"]);
    world.run_to(179);
    trigger(world.net());
    world.run_to(182);
    let (_, _, body) = world
        .calls
        .iter()
        .rfind(|(_, call, _)| call.ends_with("init/generate"))
        .expect("a start")
        .clone();
    let body: serde_json::Value = serde_json::from_str(&body.expect("a body")).expect("JSON");
    let before = world.net().block(181).expect("a block").hash.to_lowercase();
    assert_eq!(
        (&body["block_height"], &body["block_hash"]),
        (&json!(180), &json!(before))
    );
    world.run_to(196);
    assert_eq!(world.net().dapi.nodes[0].current, (Status::Poc, PocStatus::Generating));
    world.run_to(197);
    assert_eq!(world.net().dapi.nodes[0].current, (Status::Poc, PocStatus::Validating));
    world.run_to(212);
    let exam = world.net().record.exams.last().expect("sealed").clone();
    assert_eq!(
        (exam.kind, exam.start_height, exam.trigger_height),
        ("Confirmation", 182, 180)
    );
    assert!(
        exam.hosts
            .iter()
            .all(|host| host.expected_weight.is_some_and(|weight| weight > 0))
    );
}

#[test]
fn a_preserved_node_is_not_asked_and_keeps_its_weight() {
    let scenario = testing::SCENARIO.replace("preserve: false", "preserve: [b]");
    let mut world = world_of(&scenario, &["a", "b"]);
    world.run_to(176);
    let sprint = world.net().record.exams[1].hosts[0].clone();
    assert_eq!(sprint.preserved, ["b"]);
    let node = sprint.nodes.iter().find(|node| node.node_id == "b").expect("listed");
    assert!(node.requests.is_empty() && node.accepted == 0 && node.carried_weight > 0);
    let before = &world.net().record.exams[0].hosts[0];
    let carried = before
        .nodes
        .iter()
        .find(|node| node.node_id == "b")
        .expect("listed")
        .committed;
    assert_eq!(node.carried_weight, carried);
    assert_eq!(
        sprint.weight,
        sprint.nodes.iter().map(|node| node.committed).sum::<u64>() + carried
    );
    assert_eq!(
        world.net().record.exams[0].hosts[0].preserved,
        Vec::<String>::new(),
        "not in the first epoch"
    );
}

#[test]
fn an_epoch_is_settled_by_the_next_sprint_and_claimed_in_the_next_epoch() {
    let mut world = world(&["a", "b"]);
    world.run_to(190);
    let net = world.net();
    let settlement = net
        .epoch(1)
        .and_then(|epoch| epoch.settlement.clone())
        .expect("settled");
    assert_eq!((settlement.height, settlement.total_ngonka), (176, 285_000_000_000_000));
    let sum: u64 = settlement.rewards.values().map(|reward| reward.ngonka).sum();
    assert!(
        sum <= settlement.total_ngonka && sum + 4 > settlement.total_ngonka,
        "{sum}"
    );
    assert!(
        settlement
            .rewards
            .values()
            .all(|reward| (183..=184).contains(&reward.claimed_height))
    );
    assert!(net.dapi.seeds[&1].claimed && !net.dapi.seeds[&2].claimed);
}

#[test]
fn without_a_fee_grant_all_looks_well_and_nothing_counts() {
    let scenario = format!("{}dapi: {{feegrant: false}}\n", testing::SCENARIO);
    let mut world = world_of(&scenario, &["a"]);
    world.run_to(92);
    let ours = world.net().record.exams[0].hosts[0].clone();
    assert!(ours.nodes[0].accepted > 0 && ours.commits.is_empty());
    assert_eq!(ours.weight, 0);
}

#[test]
fn votes_against_a_host_cost_it_its_weight() {
    let mut world = world(&["a"]);
    let arguments = serde_json::from_value(json!({"target": "ours", "share": 1.0})).expect("arguments");
    verbs::apply(
        world.net(),
        &Command {
            verb: Verb::VoteInvalid,
            arguments,
        },
    )
    .expect("applies");
    world.run_to(92);
    let exam = world.net().record.exams[0].clone();
    assert_eq!(exam.hosts[0].weight, 0);
    assert!(exam.hosts[1].weight > 0);
    assert_eq!(exam.hosts[0].votes.iter().filter(|vote| vote.value < 0).count(), 3);
}

#[test]
fn a_host_that_is_late_twice_is_warned_and_then_voted_down() {
    let scenario = testing::SCENARIO.replace(
        "  - {name: rival, count: 3, driver: simulated, nodes: 2, noncesPerSecond: 5}",
        "  - {name: rival, count: 3, driver: simulated, nodes: 2, noncesPerSecond: 5}\n  - {name: late, driver: simulated, lateBlocks: 5}",
    );
    let mut world = world_of(&scenario, &["a"]);
    world.run_to(176);
    let late = |world: &mut World, exam: usize| world.net().record.exams[exam].hosts[4].clone();
    assert!(late(&mut world, 0).weight > 0, "the first time is a warning");
    assert_eq!(late(&mut world, 1).weight, 0, "{:#?}", late(&mut world, 1));
}

#[test]
fn a_disabled_node_works_until_the_epoch_is_over_and_misses_the_next_sprint() {
    let mut world = world(&["a", "b"]);
    world.run_to(100);
    nodes::set_enabled(world.net(), "b", false);
    world.run_to(110);
    assert_eq!(world.net().dapi.nodes[1].current.0, Status::Inference);
    world.run_to(176);
    let sprint = world.net().record.exams[1].hosts[0].clone();
    assert!(
        sprint
            .nodes
            .iter()
            .find(|node| node.node_id == "b")
            .expect("listed")
            .requests
            .is_empty()
    );
}

#[test]
fn dapi_down_from_start_to_end_of_a_sprint_loses_it_all() {
    let mut world = world(&["a"]);
    world.run_to(60);
    let arguments = serde_json::from_value(json!({"target": "dapi", "for": "40 blocks"})).expect("arguments");
    let effects = verbs::apply(
        world.net(),
        &Command {
            verb: Verb::Stop,
            arguments,
        },
    )
    .expect("applies");
    world.effects(effects);
    world.run_to(101);
    assert_eq!(world.net().record.exams[0].hosts[0].weight, 0);
    assert!(world.net().dapi.up);
    assert!(!world.net().dapi.seeds.contains_key(&1), "no seed, no claim later");
}

#[test]
fn confirmations_come_by_chance_where_the_chain_allows_them() {
    let scenario = testing::SCENARIO.replace("preserve: false", "preserve: false, confirmationPerEpoch: 100");
    let mut world = world_of(&scenario, &["a"]);
    world.run_to(190);
    let net = world.net();
    assert!(
        net.epoch(1).is_some_and(|epoch| epoch.confirmations.is_empty()),
        "never in the first epoch"
    );
    let events = net
        .epoch(2)
        .map(|epoch| epoch.confirmations.clone())
        .unwrap_or_default();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].window.stage_height, 180);
}

#[test]
fn the_same_events_give_the_same_run() {
    let run = || {
        let mut world = world(&["a", "b"]);
        world.run_to(100);
        serde_json::to_string(&world.net().record.exams).expect("JSON")
    };
    assert_eq!(run(), run());
}
