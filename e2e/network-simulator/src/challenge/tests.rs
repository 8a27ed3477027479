//! Challenges in running networks: what DAPI does with our nodes, what the chain makes of it.

use super::Outcome;
use crate::{
    event::Command,
    network::Network,
    scenario::{self, verb::Verb},
    testing::{self, SCENARIO, World},
    verbs,
    virtual_time::{BEGINNING_MS, counting::CountingNodes},
};
use serde_json::{Value, json};
use std::sync::Arc;

const RULE: &str = "challenge: {sliceBlocks: 10, shortestBlocks: 5}\n";

fn tell(net: &mut Network, verb: Verb, arguments: Value) -> Result<(), String> {
    let arguments = serde_json::from_value(arguments).map_err(|error| error.to_string())?;
    verbs::apply(net, &Command { verb, arguments }).map(drop)
}

/// Our two nodes after the first Sprint (61), challenged from 101 on; the safety window begins ten blocks before the next.
fn challenged(change: impl Fn(&str) -> String) -> World {
    let text = SCENARIO.replace("network: {", "network: {version: v0.2.16, ");
    let mut world = World::new(testing::network_of(&format!("{}{RULE}", change(&text))));
    for id in ["a", "b"] {
        let effects = testing::register(world.net(), id);
        world.effects(effects);
    }
    world.run_to(100);
    tell(world.net(), Verb::Challenge, json!({"target": "ours"})).expect("applies");
    world
}

/// Heights of the requests that end so, to one of the two nodes.
fn heights(world: &World, path: &str) -> Vec<i64> {
    let sent = world
        .sent
        .iter()
        .filter(|sent| sent.node == "a" && sent.path.ends_with(path));
    sent.map(|sent| sent.height).filter(|height| *height > 99).collect()
}

fn outcome(net: &Network) -> Option<Outcome> {
    let all = net.challenges.past.iter().chain(&net.challenges.live);
    all.last().and_then(|challenge| challenge.outcome)
}

/// What our host is paid for the challenged epoch.
fn reward(net: &Network) -> u64 {
    let settlement = net.epoch(1).and_then(|epoch| epoch.settlement.as_ref());
    settlement.expect("settled").rewards[&net.ours].ngonka
}

#[test]
fn slices_are_those_of_the_main_network_scaled_and_no_shorter_than_a_sprint() {
    let rule = |change: &str| {
        let net = testing::network_of(&SCENARIO.replace("epoch_length: 84, epoch_shift: 23", change));
        let rule = net.scenario.challenge_rule();
        (rule.slice_blocks, rule.shortest_blocks, rule.bounty_permille, rule.most)
    };
    assert_eq!(rule("epoch_length: 15391"), (500, 300, 100, 4));
    assert_eq!(rule("epoch_length: 1540"), (50, 30, 100, 4));
    assert_eq!(rule("epoch_length: 84"), (12, 7, 100, 4), "a Sprint has twelve");
}

#[test]
fn a_challenged_host_generates_until_the_safety_window_and_earns_the_bounty() {
    let mut world = challenged(str::to_owned);
    let before = world.net().hosts[0].balance;
    world.run_to(134);
    assert_eq!(heights(&world, "init/generate"), [101]);
    let start = world
        .sent
        .iter()
        .find(|sent| sent.height == 101 && sent.path.ends_with("init/generate"));
    let body = start.and_then(|sent| sent.body.clone()).expect("a start");
    let hash = world.net().block(100).expect("a block").hash.to_lowercase();
    assert_eq!(
        (&body["block_height"], &body["block_hash"]),
        (&json!(101), &json!(hash))
    );
    tell(world.net(), Verb::Report, json!({"target": "ours", "missed": 1000})).expect("applies");
    let refused = tell(world.net(), Verb::Challenge, json!({"target": "ours"}));
    assert!(refused.is_err_and(|why| why.contains("already")));
    world.run_to(144);
    assert_eq!(heights(&world, "pow/stop"), [135], "at the safety window");
    assert_eq!(world.net().dapi.nodes[0].current.0, crate::dapi::Status::Inference);
    world.run_to(178);
    let net = world.net();
    assert_eq!((outcome(net), net.challenges.live.len()), (Some(Outcome::Passed), 0));
    assert!(reward(net) > 0 && net.epoch(1).is_some_and(|epoch| epoch.excluded.is_empty()));
    let bounty = net.challenges.past[0].bounty_ngonka;
    assert!(
        bounty > 0 && net.hosts[0].balance == before + bounty,
        "a tenth of the reward"
    );
    assert_eq!(net.record.exams.len(), 2, "a segment is no exam of the network's");
}

#[test]
fn a_slice_without_a_commitment_costs_the_epoch_and_the_bounty_goes_back() {
    let mut world = challenged(str::to_owned);
    world.run_to(109);
    tell(world.net(), Verb::Grant, json!({"target": "ours", "ngonka": 0})).expect("applies");
    world.run_to(121);
    tell(world.net(), Verb::Grant, json!({"target": "ours"})).expect("applies");
    world.run_to(178);
    let net = world.net();
    assert_eq!((outcome(net), reward(net)), (Some(Outcome::Missing), 0));
    let challenge = &net.challenges.past[0];
    assert_eq!(challenge.to_challenger_ngonka, challenge.bounty_ngonka);
    assert!(net.epoch(1).is_some_and(|epoch| epoch.excluded.contains_key(&0)));
}

#[test]
fn nodes_that_stop_are_started_again_and_too_little_forfeits_the_reward_to_the_challenger() {
    let mut world = challenged(str::to_owned);
    world.init_status.insert("a".to_owned(), 500);
    world.init_status.insert("b".to_owned(), 500);
    world.run_to(107);
    assert_eq!(heights(&world, "init/generate"), [101, 102, 103, 104, 105, 106, 107]);
    world.init_status.clear();
    world.run_to(178);
    let net = world.net();
    assert_eq!((outcome(net), reward(net)), (Some(Outcome::Underweight), 0));
    let challenge = &net.challenges.past[0];
    assert!(challenge.to_challenger_ngonka > 9 * challenge.bounty_ngonka);
}

#[test]
fn a_confirmation_inside_keeps_the_seed_ends_the_segment_and_asks_nothing_of_the_target() {
    let long = |text: &str| {
        text.replace(
            "epoch_length: 84, epoch_shift: 23",
            "epoch_length: 184, epoch_shift: 123",
        )
    };
    let mut world = challenged(long);
    world.run_to(119);
    tell(world.net(), Verb::TriggerConfirmation, json!({"force": true})).expect("fits");
    world.run_to(135);
    assert_eq!(
        heights(&world, "init/generate"),
        [101],
        "generation at 122 changes nothing"
    );
    world.run_to(160);
    assert_eq!(heights(&world, "pow/stop"), [136]);
    assert!(!heights(&world, "pow/generate").is_empty(), "it votes on the others");
    assert_eq!(heights(&world, "init/generate"), [101, 153]);
    let net = world.net();
    let seat = &net.epoch(1).expect("an epoch").seats[&0];
    assert!(seat.ratio_bp > 9000, "{seat:?}");
    let exam = net.record.exams.last().expect("a confirmation");
    assert_eq!(
        (exam.kind, exam.hosts[0].expected_weight, exam.hosts[0].weight),
        ("Confirmation", None, 0)
    );
    assert!(exam.hosts[1].ratio_bp == 10_000 && exam.hosts[1].weight > 0);
    world.run_to(280);
    assert_eq!(outcome(world.net()), Some(Outcome::Passed));
}

/// A competitor, challenged in virtual time.
fn competitor(artifacts: &str, votes: &str) -> (Option<Outcome>, u64) {
    let text = format!(
        "
version: 1
network:
  version: v0.2.16
  blockMillis: 5000
  epochs: 3
  parameters: {{epoch_length: 90, epoch_shift: 70, poc_stage_duration: 20, poc_validation_delay: 2, poc_validation_duration: 12,
    set_new_validators_delay: 2, inference_validation_cutoff: 2, confirmation_poc_safety_window: 10, validation_sample_size: 40}}
models: [{{id: gonka-fleet/tiny_qwen3_dense, recipe: tiny_qwen3_dense}}]
hosts:
  - {{name: ours, driver: external, nodes: 4, noncesPerSecond: 10}}
  - {{name: target, driver: simulated, nodes: 4, noncesPerSecond: 10, artifacts: {artifacts}}}
  - {{name: rival, count: 3, driver: simulated, nodes: 4, noncesPerSecond: 10, votes: {votes}}}
exams: {{preserve: false}}
{RULE}steps:
  - {{at: epoch 1 +2 blocks, do: challenge, target: target}}
"
    );
    let scenario = scenario::parse(&text).unwrap_or_else(|invalid| panic!("{invalid}"));
    let (mut driver, mut nodes) = CountingNodes::registered(&Arc::new(scenario), BEGINNING_MS);
    assert!(driver.run(&mut nodes));
    let past = &driver.net().challenges.past;
    (past.first().and_then(|challenge| challenge.outcome), past.len() as u64)
}

#[test]
fn a_competitor_passes_with_work_and_votes_and_a_fraud_is_never_active() {
    assert_eq!(competitor("honest", "honest"), (Some(Outcome::Passed), 1));
    assert_eq!(
        competitor("honest", "absent"),
        (None, 0),
        "without votes it has no weight to challenge"
    );
    assert_eq!(competitor("random", "honest"), (None, 0));
}

#[test]
fn votes_that_turn_against_a_segment_reject_it() {
    let mut world = challenged(str::to_owned);
    world.run_to(140);
    for rival in ["rival-1", "rival-2", "rival-3"] {
        tell(world.net(), Verb::Vote, json!({"target": rival, "value": "invalid"})).expect("applies");
    }
    world.run_to(178);
    let net = world.net();
    assert_eq!((outcome(net), reward(net)), (Some(Outcome::Rejected), 0));
}

#[test]
fn a_challenge_is_refused_where_the_chain_has_none_or_no_room_for_it() {
    let refusal = |net: &mut Network, target: &str| {
        let told = tell(net, Verb::Challenge, json!({"target": target}));
        told.expect_err("refused")
    };
    let mut old = testing::network();
    testing::run_to(&mut old, 100);
    assert!(refusal(&mut old, "ours").contains("v0.2.16"));
    let mut world = challenged(str::to_owned);
    assert!(refusal(world.net(), "rival-1").contains("in real time"));
    let text = SCENARIO.replace("network: {", "network: {version: v0.2.16, ");
    let mut net = testing::network_of(&format!("{text}{RULE}"));
    testing::run_to(&mut net, 70);
    assert!(refusal(&mut net, "ours").contains("not active"));
    let mut world = World::new(testing::network_of(&format!("{text}{RULE}")));
    let effects = testing::register(world.net(), "a");
    world.effects(effects);
    world.run_to(131);
    assert!(refusal(world.net(), "ours").contains("too few blocks"));
}
