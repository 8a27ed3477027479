//! The books of hosts in a running network.

use crate::{
    economy::signing,
    event::Command,
    network::Network,
    scenario::verb::Verb,
    testing::{self, SCENARIO},
    verbs,
    views::rest_maintenance as views,
};
use serde_json::{Value, json};

fn tell(net: &mut Network, verb: Verb, arguments: Value) -> Result<(), String> {
    let arguments = serde_json::from_value(arguments).map_err(|error| error.to_string())?;
    verbs::apply(net, &Command { verb, arguments }).map(drop)
}

/// Four hosts of equal weight in epoch 1, which is settled at the second Sprint's end.
fn settled(change: impl Fn(&str) -> String, act: impl Fn(&mut Network)) -> Network {
    let mut world = testing::World::new(testing::network_of(&change(SCENARIO)));
    world.run_to(110);
    act(world.net());
    world.run_to(178);
    world.net.take().expect("a network")
}

fn weights(net: &Network) -> Vec<u64> {
    let settlement = net
        .epoch(1)
        .and_then(|epoch| epoch.settlement.as_ref())
        .expect("settled");
    (1..=3).map(|host| settlement.rewards[&host].weight).collect()
}

#[test]
fn without_a_deposit_a_fifth_counts_once_the_grace_is_over() {
    let poor = |text: &str| {
        text.replace(
            "nodes: 2, noncesPerSecond: 5}",
            "nodes: 2, noncesPerSecond: 5, collateral: 0}",
        )
    };
    let full = weights(&settled(str::to_owned, |_| {}));
    assert_eq!(weights(&settled(poor, |_| {})), full, "nobody is asked yet");
    let asked = |text: &str| {
        poor(text).replace(
            "epoch_length: 84",
            "collateral_params.grace_period_end_epoch: 0, epoch_length: 84",
        )
    };
    let fifth: Vec<u64> = full.iter().map(|weight| weight / 5).collect();
    assert_eq!(weights(&settled(asked, |_| {})), fifth);
    let topped_up = |net: &mut Network| {
        tell(net, Verb::Deposit, json!({"target": "rival-2", "ngonka": 1_000_000})).expect("applies");
    };
    assert_eq!(weights(&settled(asked, topped_up)), [fifth[0], full[1], fifth[2]]);
}

#[test]
fn whoever_misses_requests_is_inactive_loses_deposit_and_gets_nothing() {
    let net = settled(str::to_owned, |net| {
        tell(net, Verb::Deposit, json!({"target": "rival-1", "ngonka": 1000})).expect("applies");
        tell(
            net,
            Verb::Report,
            json!({"target": "rival-1", "served": 20, "missed": 12}),
        )
        .expect("applies");
        tell(
            net,
            Verb::Report,
            json!({"target": "rival-2", "served": 1000, "missed": 90}),
        )
        .expect("applies");
    });
    let weights = weights(&net);
    assert!(weights[0] == 0 && weights[1] > 0, "{weights:?}");
    assert_eq!(net.hosts[1].account.deposit.0, Some(900));
    assert_eq!(
        net.epoch(1).map(|epoch| epoch.excluded.clone()),
        Some([(1, 110)].into())
    );
}

#[test]
fn models_that_are_not_served_cost_a_part_of_the_reward() {
    let two = |text: &str| {
        text.replace(
            "hosts:",
            "  - {id: other/tiny_llama_dense, recipe: tiny_llama_dense}\nhosts:",
        )
        .replace(
            "models: [{id: gonka-fleet/tiny_qwen3_dense, recipe: tiny_qwen3_dense}]",
            "models:\n  - {id: gonka-fleet/tiny_qwen3_dense, recipe: tiny_qwen3_dense}",
        )
    };
    let refusing = |text: &str| {
        two(text).replace(
            "noncesPerSecond: 5}",
            "noncesPerSecond: 5, choices: {other/tiny_llama_dense: refuse}}",
        )
    };
    let (full, absent, refused) = (
        weights(&settled(str::to_owned, |_| {})),
        weights(&settled(two, |_| {})),
        weights(&settled(refusing, |_| {})),
    );
    assert_eq!((absent[0], refused[0]), (full[0] * 85 / 100, full[0] * 90 / 100));
}

#[test]
fn a_reward_vests_epoch_by_epoch() {
    let vesting = |text: &str| {
        text.replace("epochs: 2", "epochs: 4").replace(
            "epoch_length: 84",
            "tokenomics_params.reward_vesting_period: 180, epoch_length: 84",
        )
    };
    let mut world = testing::World::new(testing::network_of(&vesting(SCENARIO)));
    world.run_to(190);
    let net = world.net();
    let paid = net
        .epoch(1)
        .and_then(|epoch| epoch.settlement.as_ref())
        .expect("settled")
        .rewards[&1]
        .ngonka;
    let (balance, total) = (net.hosts[1].balance, net.hosts[1].account.vesting.total());
    assert_eq!((balance, total), (2_000_000_000, paid), "nothing to spend yet");
    world.run_to(265);
    let host = &world.net().hosts[1];
    assert!(host.balance >= 2_000_000_000 + paid / 180, "{}", host.balance);
}

#[test]
fn a_signer_that_is_away_is_jailed_and_freed_by_its_cold_key() {
    let mut net = testing::network();
    tell(
        &mut net,
        Verb::MissBlocks,
        json!({"target": "ours", "for": "60 blocks"}),
    )
    .expect("applies");
    testing::run_to(&mut net, 52);
    assert!(net.hosts[net.ours].account.signing.jailed);
    let early = tell(&mut net, Verb::Unjail, json!({"target": "ours"}));
    assert!(early.is_err_and(|why| why.contains("jailed for")));
    net.now_ms += signing::JAIL_MS;
    tell(&mut net, Verb::Unjail, json!({"target": "ours"})).expect("its time is over");
    assert!(tell(&mut net, Verb::Unjail, json!({"target": "rival-1"})).is_err());
}

/// A Sprint with two nodes whose commitments cost ten each.
fn paying(dapi: &str) -> testing::World {
    let scenario = format!("{SCENARIO}dapi: {{commitIntervalMillis: 1000, {dapi}}}\n");
    let mut world = testing::World::new(testing::network_of(&scenario));
    for id in ["a", "b"] {
        let effects = testing::register(world.net(), id);
        world.effects(effects);
    }
    world
}

#[test]
fn commitments_end_where_the_allowance_does_and_go_on_when_it_is_renewed() {
    let mut world = paying("feeNgonka: 10, allowanceNgonka: 45");
    world.run_to(68);
    let net = world.net();
    let book = |net: &Network| {
        let entry = &net.exam.as_ref().expect("a Sprint").entries[net.ours];
        let book = &entry.books[testing::MODEL];
        (book.commits().len(), book.accepted() > book.committed())
    };
    assert_eq!(book(net), (4, true), "five are left, and all looks well");
    assert_eq!(net.hosts[net.ours].balance, 2_000_000_000 - 40);
    let view = crate::views::View::new(net, crate::faults::Port::Rest(0));
    let (cold, warm) = (&net.hosts[net.ours].address, &net.hosts[net.ours].warm_address);
    let shown = crate::views::rest_cosmos::allowance(&view, cold, warm).expect("in force");
    assert_eq!(shown["allowance"]["allowance"]["spend_limit"][0]["amount"], "5");
    let report = crate::views::setup::report(net, &[]);
    let checks = report["checks"].as_array().expect("checks");
    let of = |check: &&Value| check["id"] == "feegrant_allowance";
    let check = checks.iter().find(of).expect("the allowance");
    assert_eq!(
        (&check["status"], &check["details"]["spend_limit"]),
        (&json!("PASS"), &json!("5ngonka"))
    );
    tell(net, Verb::Grant, json!({"target": "ours", "ngonka": 1000})).expect("applies");
    world.run_to(71);
    assert_eq!(book(world.net()).0, 7);
}

#[test]
fn what_nobody_pays_does_not_exist_be_it_a_distribution_or_a_vote() {
    let mut world = paying("feeNgonka: 10");
    world.run_to(72);
    let before = world.net().hosts[0].balance;
    tell(world.net(), Verb::Grant, json!({"target": "ours", "ngonka": 9})).expect("applies");
    world.run_to(92);
    let net = world.net();
    let view = crate::views::View::new(net, crate::faults::Port::Rest(0));
    let rows = crate::views::rest_exam::all_mlnode_weight_distributions(&view, 61);
    let senders: Vec<&Value> = rows["distributions"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| &row["participant_address"])
        .collect();
    assert!(
        senders.len() == 3 && !senders.contains(&&json!(net.hosts[0].address)),
        "{senders:?}"
    );
    let votes = |host: usize| net.record.exams[0].hosts[host].votes.len();
    assert_eq!([0, 1, 2, 3].map(votes), [3; 4], "everybody's but ours");
    assert_eq!(net.hosts[0].balance, before);
    let mut world = paying("feeNgonka: 10, dutiesFree: true");
    world.run_to(72);
    tell(world.net(), Verb::Grant, json!({"target": "ours", "ngonka": 9})).expect("applies");
    world.run_to(92);
    assert_eq!(
        world.net().record.exams[0].hosts[1].votes.len(),
        4,
        "an allowance, but no fee"
    );
}

#[test]
fn an_allowance_ends_by_its_clock_and_takes_the_claim_with_it() {
    let claimed = |grant: Value| {
        let mut world = paying("feeNgonka: 10");
        world.run_to(150);
        tell(world.net(), Verb::Grant, grant).expect("applies");
        world.run_to(200);
        let settlement = world.net().epoch(1).and_then(|epoch| epoch.settlement.clone());
        settlement.expect("settled").rewards[&0].claimed_height > 0
    };
    assert!(claimed(json!({"target": "ours"})));
    assert!(claimed(
        json!({"target": "ours", "for": "90 blocks", "ngonka": 1_000_000})
    ));
    assert!(!claimed(json!({"target": "ours", "for": "20 blocks"})));
    assert!(!claimed(json!({"target": "ours", "ngonka": 0})), "taken back");
}

fn claimed_twice() -> Network {
    let mut world = testing::World::new(testing::network_of(&SCENARIO.replace("epochs: 2", "epochs: 4")));
    world.run_to(275);
    world.net.take().expect("a network")
}

#[test]
fn a_maintenance_window_is_paid_with_claimed_epochs_and_neither_jails_nor_counts_misses() {
    let mut net = claimed_twice();
    let credit = |net: &Network| net.hosts[1].account.maintenance.credit_blocks;
    assert_eq!(credit(&net), 40, "epochs 1 and 2 are claimed");
    let window = json!({"target": "rival-1", "height": 285, "blocks": 21});
    let refused = tell(
        &mut net,
        Verb::ScheduleMaintenance,
        json!({"target": "ours", "height": 285, "blocks": 21}),
    );
    assert!(refused.is_err_and(|why| why == "insufficient maintenance credit"));
    tell(&mut net, Verb::ScheduleMaintenance, window.clone()).expect("fits");
    let again = tell(&mut net, Verb::ScheduleMaintenance, window);
    assert!(again.is_err_and(|why| why.contains("already has a scheduled")));
    assert_eq!(credit(&net), 19);
    let view = crate::views::View::new(&net, crate::faults::Port::Rest(0));
    assert_eq!(views::concurrency(&view, 305)["concurrent_count"], 1);
    assert_eq!(views::concurrency(&view, 306)["concurrent_count"], 0);
    let third = views::schedulability(&view, 2, 290, 10);
    assert_eq!(third["rejection_reason"], "too much power is in maintenance at once");
    assert_eq!(views::schedulability(&view, 2, 306, 7)["schedulable"], true);
    let sprint = views::schedulability(&view, 2, 312, 10);
    assert_eq!(sprint["rejection_reason"], "maintenance window overlaps a PoC phase");
    assert_eq!(
        views::scheduled(&view, 1)["reservation"]["status"],
        "MAINTENANCE_RESERVATION_STATUS_SCHEDULED"
    );
    testing::run_to(&mut net, 285);
    tell(&mut net, Verb::MissBlocks, json!({"target": "rival-1"})).expect("applies");
    tell(&mut net, Verb::Report, json!({"target": "rival-1", "missed": 100})).expect("applies");
    testing::run_to(&mut net, 305);
    let account = &net.hosts[1].account;
    assert_eq!((account.signing.missed(), account.service.missed), (0, 0));
    let view = crate::views::View::new(&net, crate::faults::Port::Rest(0));
    assert_eq!(views::active(&view)["reservations"].as_array().map(Vec::len), Some(1));
    assert_eq!(views::status(&view, 1)["state"]["active_reservation_id"], "1");
    assert!(tell(&mut net, Verb::CancelMaintenance, json!({"target": "rival-1"})).is_err());
    testing::run_to(&mut net, 308);
    assert_eq!(net.hosts[1].account.signing.missed(), 3, "it is over");
}
