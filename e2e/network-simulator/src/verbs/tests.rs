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
