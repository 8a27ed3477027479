use super::*;
use crate::{faults::PortFault, step::step, testing};
use serde_json::json;

fn command(verb: Verb, arguments: serde_json::Value) -> Command {
    Command {
        verb,
        arguments: serde_json::from_value(arguments).expect("arguments"),
    }
}

#[test]
fn a_stopped_port_closes_and_opens_again_after_its_time() {
    let mut net = testing::network();
    let stop = command(Verb::Stop, json!({"target": "rpc/2", "for": "3 blocks"}));
    let effects = apply(&mut net, &stop).expect("applies");
    assert!(matches!(
        effects[0],
        Effect::Listen {
            port: Port::Rpc(1),
            open: false
        }
    ));
    let Effect::After { ms, timer } = effects[1].clone() else {
        panic!("no timer in {effects:?}")
    };
    assert_eq!(ms, 3 * net.scenario.network.block_millis);
    let effects = step(&mut net, 0, crate::event::Event::Timer(timer));
    assert!(matches!(
        effects[..],
        [Effect::Listen {
            port: Port::Rpc(1),
            open: true
        }]
    ));
    assert_eq!(net.faults.port(Port::Rpc(1)), PortFault::default());
}

#[test]
fn a_restart_of_the_dapi_keeps_its_disk_and_loses_its_memory() {
    let mut net = testing::network();
    testing::register(&mut net, "a");
    crate::dapi::nodes::set_enabled(&mut net, "a", false);
    let restart = command(Verb::Restart, json!({"target": "dapi"}));
    let effects = apply(&mut net, &restart).expect("applies");
    assert!(!net.dapi.up);
    let Some(Effect::After {
        timer: Timer::Undo(undone),
        ..
    }) = effects.last()
    else {
        panic!("no timer")
    };
    undo(&mut net, &undone.clone());
    assert!(net.dapi.up && net.dapi.nodes[0].admin.enabled);
    apply(&mut net, &command(Verb::LoseDatabase, json!({"target": "ours"}))).expect("applies");
    assert!(net.dapi.nodes.is_empty());
}

#[test]
fn lies_and_halts_are_set_and_start_clears_them() {
    let mut net = testing::network();
    let lie = command(Verb::Lie, json!({"target": "rest/1", "field": "height", "value": "9"}));
    apply(&mut net, &lie).expect("applies");
    apply(
        &mut net,
        &command(Verb::HaltAt, json!({"target": "endpoint/1", "height": 5})),
    )
    .expect("applies");
    assert_eq!(net.faults.port(Port::Rest(0)).lies["height"], json!("9"));
    assert_eq!(net.faults.port(Port::Rpc(0)).halt_at, Some(5));
    apply(&mut net, &command(Verb::Start, json!({"target": "endpoint/1"}))).expect("applies");
    assert!(net.faults.shown().is_empty());
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    let mut net = testing::network();
    for (verb, arguments, word) in [
        (Verb::Slow, json!({"target": "rpc/1"}), "bytesPerSecond"),
        (Verb::Stop, json!({"target": "moon"}), "moon"),
        (Verb::Fork, json!({"target": "dapi"}), "endpoints only"),
        (Verb::Skew, json!({"target": "chain", "ms": 1}), "chain as a whole"),
        (Verb::TriggerConfirmation, json!({}), "no Sprint yet"),
        (Verb::VoteInvalid, json!({"target": "nobody", "share": 1.0}), "no host"),
        (Verb::LoseDatabase, json!({"target": "rival-1"}), "no database"),
    ] {
        let refused = apply(&mut net, &command(verb, arguments)).expect_err("refused");
        assert!(refused.contains(word), "{verb}: {refused}");
    }
}

#[test]
fn a_standing_chain_makes_no_blocks_until_it_is_started() {
    let mut net = testing::network();
    testing::run_to(&mut net, 3);
    apply(
        &mut net,
        &command(Verb::HaltAt, json!({"target": "chain", "height": 4})),
    )
    .expect("applies");
    for _ in 0..3 {
        step(&mut net, 0, crate::event::Event::Block);
    }
    assert_eq!(net.height(), 4);
    apply(&mut net, &command(Verb::Start, json!({"target": "chain"}))).expect("applies");
    step(&mut net, 0, crate::event::Event::Block);
    assert_eq!(net.height(), 5);
}

#[test]
fn a_burst_makes_blocks_at_once_but_not_on_a_standing_chain() {
    let mut net = testing::network();
    testing::run_to(&mut net, 3);
    let burst = command(Verb::Burst, json!({"target": "chain", "blocks": 3}));
    let play = |net: &mut Network| {
        for effect in apply(net, &burst).expect("applies") {
            let Effect::After { ms: 0, timer } = effect else {
                panic!("a burst waits for nothing: {effect:?}")
            };
            step(net, 0, crate::event::Event::Timer(timer));
        }
        net.height()
    };
    assert_eq!(play(&mut net), 6);
    apply(&mut net, &command(Verb::Stop, json!({"target": "chain"}))).expect("applies");
    assert_eq!(play(&mut net), 6);
    let refused = apply(&mut net, &command(Verb::Burst, json!({"target": "rpc/1"}))).expect_err("refused");
    assert!(refused.contains("chain as a whole"), "{refused}");
}

#[test]
fn an_endpoint_can_be_ahead_behind_and_of_another_chain() {
    let mut net = testing::network();
    testing::run_to(&mut net, 40);
    let do_to = |net: &mut Network, verb, arguments| apply(net, &command(verb, arguments)).expect("applies");
    do_to(&mut net, Verb::Jump, json!({"target": "rpc/1", "blocks": 20}));
    do_to(&mut net, Verb::Rollback, json!({"target": "rpc/2", "blocks": 30}));
    do_to(
        &mut net,
        Verb::ChainId,
        json!({"target": "endpoint/3", "value": "other-1"}),
    );
    let status = |net: &Network, port| crate::views::rpc::status(&crate::views::View::new(net, port));
    let heights: Vec<String> = (0..3)
        .map(|index| status(&net, Port::Rpc(index))["sync_info"]["latest_block_height"].to_string())
        .collect();
    assert_eq!(heights, ["\"60\"", "\"10\"", "\"40\""]);
    assert_eq!(status(&net, Port::Rpc(2))["node_info"]["network"], "other-1");
    let hash = |net: &Network, port, height| crate::views::View::new(net, port).block(height).map(|block| block.hash);
    assert_eq!(
        hash(&net, Port::Rpc(0), 40),
        hash(&net, Port::Rpc(2), 40),
        "what was made is the same"
    );
    assert!(hash(&net, Port::Rpc(0), 60).is_some() && hash(&net, Port::Rpc(0), 61).is_none());
    assert!(hash(&net, Port::Rpc(1), 11).is_none());
    testing::run_to(&mut net, 45);
    assert_eq!(
        status(&net, Port::Rpc(1))["sync_info"]["latest_block_height"],
        "15",
        "it goes on from there"
    );
    let jumped = command(Verb::Jump, json!({"target": "rpc/1", "blocks": 20}));
    undo(&mut net, &jumped);
    assert_eq!(status(&net, Port::Rpc(0))["sync_info"]["latest_block_height"], "45");
    assert!(apply(&mut net, &command(Verb::Jump, json!({"target": "dapi", "blocks": 2}))).is_err());
}

#[test]
fn packets_are_lost_in_their_share_and_by_the_seed() {
    let lost = || {
        let mut net = testing::network();
        let drop = command(Verb::Drop, json!({"target": "rest/1", "percent": 30}));
        apply(&mut net, &drop).expect("applies");
        assert!(!net.loses(Port::Rest(1)));
        (0..1000).map(|_| net.loses(Port::Rest(0))).collect::<Vec<bool>>()
    };
    let count = lost().into_iter().filter(|lost| *lost).count();
    assert!((250..350).contains(&count), "{count}");
    assert_eq!(lost(), lost());
}

#[test]
fn prices_shock_and_recover() {
    let mut net = testing::network();
    let price = command(Verb::Price, json!({"target": "chain", "percent": 250}));
    apply(&mut net, &price).expect("applies");
    let view = crate::views::View::new(&net, Port::DapiPublic);
    assert_eq!(
        crate::views::dapi::pricing(&view)["models"][0]["price_per_token"],
        25_000
    );
    undo(&mut net, &price);
    assert_eq!(net.price(100), 100);
    assert!(net.faults.chain_halts_at.is_none());
}

#[test]
fn machines_and_our_own_mind_are_not_to_be_had_in_real_time() {
    let mut net = testing::network();
    for (verb, arguments) in [
        (Verb::Stop, json!({"target": "node/a"})),
        (Verb::Weight, json!({"target": "ours", "percent": 50})),
        (Verb::Vote, json!({"target": "ours", "value": "invalid"})),
        (Verb::Vote, json!({"target": "rival-1", "value": "perhaps"})),
        (Verb::PartialStart, json!({"target": "nobody", "percent": 50})),
        (Verb::Drop, json!({"target": "rpc/1", "percent": 101})),
    ] {
        assert!(
            apply(&mut net, &command(verb, arguments.clone())).is_err(),
            "{verb} {arguments}"
        );
    }
}
