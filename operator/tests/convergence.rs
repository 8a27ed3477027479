//! ModelDeployment as a whole: golden decisions, invalid specs, and convergence: from any state, repeated passes come to a
//! rest, do not flap, and the next pass has nothing to do.

#![allow(missing_debug_implementations, reason = "a test binary")]

#[path = "convergence/again.rs"]
mod again;
#[path = "convergence/between.rs"]
mod between;
#[path = "convergence/fewer.rs"]
mod fewer;
#[path = "convergence/fleet.rs"]
mod fleet;
#[path = "convergence/goldens.rs"]
mod goldens;
#[path = "convergence/invalid.rs"]
mod invalid;
#[path = "convergence/lost.rs"]
mod lost;
#[path = "convergence/replaced.rs"]
mod replaced;
#[path = "convergence/rollouts.rs"]
mod rollouts;
#[path = "convergence/spareless.rs"]
mod spareless;

use std::collections::{BTreeMap, BTreeSet};

use crds::gpu_node::MaintenanceStage;
use crds::references::Window;
use operator::change::Change;
use operator::model_deployment::decide::{self, Step, breaker_limit};
use operator::model_deployment::observed::{Link, Observed, Round, Start};
use proptest::prelude::*;

use fleet::{Fleet, NEXT_SPRINT};

/// What may happen between two passes.
#[derive(Clone, Debug)]
enum Event {
    RemovePod(usize),
    FailPod(usize),
    CutPower(usize),
    PowerOn(usize),
    Slots(i32),
    Spares(i32),
    Revision(u8),
    Exclude(usize, bool),
    /// A wish for maintenance, as far as the queue has let it come.
    Maintain(usize, u8),
    Finding(usize, bool),
    Chain(bool),
    CanarySlots(i32),
    Rollback(bool),
    /// Weights with this number rehearse badly, slowly or well.
    Engine(u8, u8),
    /// An exam in which weights with this number compute so much.
    Exam(u8, i64),
    /// The operator dies after so many writes.
    Die(usize),
    /// The deployment is deleted and made again.
    Again,
    Pass,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        any::<usize>().prop_map(Event::RemovePod),
        any::<usize>().prop_map(Event::FailPod),
        any::<usize>().prop_map(Event::CutPower),
        any::<usize>().prop_map(Event::PowerOn),
        (0..5_i32).prop_map(Event::Slots),
        (0..3_i32).prop_map(Event::Spares),
        (0..3_u8).prop_map(Event::Revision),
        (any::<usize>(), any::<bool>()).prop_map(|(machine, on)| Event::Exclude(machine, on)),
        (any::<usize>(), 0..4_u8).prop_map(|(machine, stage)| Event::Maintain(machine, stage)),
        (any::<usize>(), any::<bool>()).prop_map(|(machine, on)| Event::Finding(machine, on)),
        any::<bool>().prop_map(Event::Chain),
        (0..3_i32).prop_map(Event::CanarySlots),
        any::<bool>().prop_map(Event::Rollback),
        (0..3_u8, 0..3_u8).prop_map(|(number, what)| Event::Engine(number, what)),
        (0..3_u8, 900..1_000_i64).prop_map(|(number, part)| Event::Exam(number, part)),
        (0..12_usize).prop_map(Event::Die),
        Just(Event::Again),
        Just(Event::Pass),
        Just(Event::Pass),
        Just(Event::Pass),
    ];
    proptest::collection::vec(event, 0..40)
}

fn happen(fleet: &mut Fleet, event: &Event) {
    let pods: Vec<String> = fleet.pods.keys().cloned().collect();
    let machines: Vec<String> = fleet.machines.keys().cloned().collect();
    let pick = |names: &[String], index: usize| names.get(index % names.len().max(1)).cloned();
    match event {
        Event::RemovePod(index) => pick(&pods, *index).into_iter().for_each(|name| fleet.remove_pod(&name)),
        Event::FailPod(index) => pick(&pods, *index).into_iter().for_each(|name| fleet.fail_pod(&name)),
        Event::CutPower(index) => pick(&machines, *index)
            .into_iter()
            .for_each(|name| fleet.cut_power(&name)),
        Event::PowerOn(index) => pick(&machines, *index)
            .into_iter()
            .for_each(|name| fleet.power_on(&name)),
        Event::Slots(count) => fleet.deployment.spec.slots = *count,
        Event::Spares(count) => fleet.deployment.spec.spares = *count,
        Event::Revision(number) => {
            fleet.deployment.spec.model.revision = Some(format!("public-tiny-v{number}"));
        }
        Event::Exclude(index, on) => {
            if let Some(machine) = pick(&machines, *index).and_then(|name| fleet.machines.get_mut(&name)) {
                machine.excluded = *on;
            }
        }
        Event::Maintain(index, stage) => {
            if let Some(machine) = pick(&machines, *index).and_then(|name| fleet.machines.get_mut(&name)) {
                machine.leaving = matches!(stage, 1 | 2);
                machine.maintenance = [
                    None,
                    Some(MaintenanceStage::Draining),
                    Some(MaintenanceStage::Released),
                    Some(MaintenanceStage::Returning),
                ][usize::from(*stage)];
            }
        }
        Event::Finding(index, on) => {
            if let Some(machine) = pick(&machines, *index).and_then(|name| fleet.machines.get_mut(&name)) {
                machine.findings = if *on {
                    vec!["EccUncorrectable".to_owned()]
                } else {
                    Vec::new()
                };
                machine.gpus_healthy = Some(!on);
            }
        }
        Event::CanarySlots(count) => fleet.deployment.spec.rollout.canary_slots = *count,
        Event::Rollback(on) => fleet.deployment.spec.rollout.automatic_rollback = *on,
        Event::Engine(number, what) => {
            let engine = [Err("an engine ended".to_owned()), Ok(4_000), Ok(5_000)][usize::from(*what)].clone();
            fleet.engines.insert(format!("public-tiny-v{number}"), engine);
        }
        Event::Exam(number, part) => {
            let worse = format!("public-tiny-v{number}");
            fleet.hold_exam(&[], |tag| if tag == worse { *part } else { 1_000 });
        }
        Event::Chain(known) => fleet.facts.window = if *known { Window::Amber } else { Window::Unknown },
        Event::Die(after) => {
            let observed = fleet.observe();
            let desired = decide::decide(&observed);
            fleet.apply(&desired, *after);
            fleet.live_on();
            // A new process remembers nothing it was told.
            for door in fleet.doors.values_mut() {
                door.told = None;
                door.fence = 0;
            }
        }
        Event::Again => fleet.make_again(),
        Event::Pass => checked_pass(fleet),
    }
}

/// One pass, with everything that must hold of every pass.
fn checked_pass(fleet: &mut Fleet) {
    let before = fleet.observe();
    let desired = decide::decide(&before);
    assert_eq!(
        desired,
        decide::decide(&before),
        "the same snapshot gives the same answer"
    );
    between::nothing_comes_between_two_looks(&before, &desired);
    let generations = generations(&before);
    let deleted: Vec<&str> = desired
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::Delete(deletion) if deletion.resource.kind == "Pod" => Some(deletion.name.as_str()),
            _ => None,
        })
        .collect();
    let healthy = deleted
        .iter()
        .filter(|name| {
            let pod = &before.pods[**name];
            before
                .live
                .get(&pod.uid)
                .is_some_and(|live| live.link == Link::Connected)
        })
        .count();
    assert!(
        healthy <= breaker_limit(before.pods.len()),
        "no mass deletion without a person: {deleted:?}"
    );
    for slot in &desired.slots {
        let order: Vec<u8> = slot
            .steps
            .iter()
            .map(|step| match step {
                Step::Demote(_) => 0,
                Step::Change(_) => 1,
                Step::Promote(_) => 2,
            })
            .collect();
        assert!(
            order.last() == Some(&2) || !order.contains(&2),
            "promote comes last: {order:?}"
        );
    }
    fleet.apply(&desired, usize::MAX);
    let after = fleet.observe();
    rollouts::keeps_to_its_rules(&after, &desired);
    let holders = holders(&after);
    let pods: BTreeSet<&String> = holders.values().collect();
    assert_eq!(pods.len(), holders.len(), "a pod holds one slot: {holders:?}");
    for (slot, generation) in self::generations(&after) {
        assert!(
            generation >= generations.get(&slot).copied().unwrap_or_default(),
            "generations of slot {slot} only grow"
        );
    }
    for (slot, uid) in &holders {
        assert!(
            after.pods.values().any(|pod| pod.uid == *uid),
            "slot {slot} names a pod that is not there"
        );
        assert!(
            !deleted.iter().any(|name| before.pods[*name].uid == *uid),
            "a pod with a slot is not deleted"
        );
    }
    fleet.live_on();
}

fn holders(observed: &Observed) -> BTreeMap<String, String> {
    observed
        .slices
        .iter()
        .filter_map(|(name, slice)| Some((name.clone(), decide::assignment(slice).holder?.uid)))
        .collect()
}

fn generations(observed: &Observed) -> BTreeMap<String, i64> {
    observed
        .slices
        .iter()
        .map(|(name, slice)| (name.clone(), decide::assignment(slice).generation))
        .collect()
}

/// Puts everything right but the deployment's own doing.
fn calm(fleet: &mut Fleet) {
    // A rehearsal that failed is tried again after half a minute, for ever.
    fleet.engines.clear();
    fleet.now_ms += 30_000;
    // Slots that are not wanted go when no exam can be announced before the Sprint.
    fleet.facts.window = Window::Green;
    fleet.facts.green_until_height = Some(NEXT_SPRINT - 1_000);
    let machines: Vec<String> = fleet.machines.keys().cloned().collect();
    for name in machines {
        fleet.power_on(&name);
        if let Some(machine) = fleet.machines.get_mut(&name) {
            machine.findings.clear();
            machine.gpus_healthy = Some(true);
            machine.excluded = false;
            (machine.leaving, machine.maintenance) = (false, None);
        }
    }
    // A person re-arms the breaker; a rollout needs a spare.
    if let Some(host) = &mut fleet.host {
        let annotations = host.metadata.annotations.get_or_insert_default();
        annotations.insert(crds::labels::REARM.to_owned(), "test".to_owned());
    }
    fleet.deployment.spec.spares = fleet.deployment.spec.spares.max(1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn from_any_state_passes_come_to_rest_and_the_next_is_empty(
        slots in 0..5_i32, spares in 0..3_i32, machines in 2..5_u32, events in events(),
    ) {
        let mut fleet = Fleet::new(slots, spares, machines);
        for event in &events {
            happen(&mut fleet, event);
        }
        calm(&mut fleet);
        let passes = fleet.settle(400);
        prop_assert!(passes.is_some(), "no rest after 400 passes: {:?}", fleet.log.iter().rev().take(12).collect::<Vec<_>>());
        let observed = fleet.observe();
        let wanted = usize::try_from(observed.deployment.spec.slots + observed.deployment.spec.spares).unwrap();
        prop_assert_eq!(observed.pods.len(), wanted);
        let held: Vec<i32> = fleet.doors.values().map(|door| door.slot).filter(|slot| *slot >= 0).collect();
        let distinct: BTreeSet<i32> = held.iter().copied().collect();
        prop_assert_eq!(held.len(), distinct.len(), "one open door per slot");
        prop_assert_eq!(distinct, (0..observed.deployment.spec.slots).collect::<BTreeSet<i32>>());
        let writes = fleet.log.len();
        for _ in 0..30 {
            prop_assert!(fleet.pass(), "it flaps: {:?}", &fleet.log[writes..]);
        }
    }
}

#[test]
fn a_new_deployment_is_sprint_ready_after_a_few_passes() {
    let mut fleet = Fleet::new(3, 1, 3);
    let passes = fleet.settle(60).expect("it comes to rest");
    assert!(passes < 20, "{passes} passes");
    let status = fleet.deployment.status.clone().expect("there is a status");
    assert_eq!(
        (status.assigned_slots, status.sprint_ready_slots, status.ready_spares),
        (3, 3, 1)
    );
    let machines: BTreeSet<Option<String>> = status.slots.iter().map(|slot| slot.node_name.clone()).collect();
    assert_eq!(machines.len(), 3, "slots are spread over machines: {:?}", status.slots);
}

#[test]
fn a_lost_machine_costs_one_takeover_and_no_return_trip() {
    let mut fleet = Fleet::new(3, 1, 3);
    fleet.settle(60).expect("it comes to rest");
    let before = generations(&fleet.observe());
    fleet.cut_power("n2");
    for _ in 0..20 {
        checked_pass(&mut fleet);
    }
    let during = generations(&fleet.observe());
    let moved: Vec<&String> = before
        .iter()
        .filter(|(name, generation)| during[*name] != **generation)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(moved.len(), 1, "{moved:?}");
    fleet.power_on("n2");
    fleet.settle(100).expect("it comes to rest again");
    assert_eq!(generations(&fleet.observe()), during, "what moved stays");
}

#[test]
fn a_round_that_a_lost_pod_reported_last_is_not_handed_on_once_its_exam_is_over() {
    let mut fleet = Fleet::new(2, 1, 3);
    fleet.settle(60).expect("it comes to rest");
    let mut seen = fleet.observe();
    let holder = decide::assignment(&seen.slices["slot-tiny-1"]).holder.expect("held");
    let round = Round {
        height: 100,
        active: true,
        first_nonce_ms: 1,
        request: Some(Start {
            height: 100,
            ..Start::default()
        }),
        ..Round::default()
    };
    let live = seen.live.get_mut(&holder.uid).expect("heard once");
    live.link = Link::Broken;
    live.since_ms = seen.now_ms - 60_000;
    live.round = Some(round.clone());
    seen.rounds.insert(seen.node_id(1), vec![round]);
    let machine = seen
        .machines
        .get_mut(&seen.pods[&holder.name].node_name)
        .expect("it is known");
    machine.ready = false;
    machine.ready_since_ms = seen.now_ms - 20_000;
    assert_eq!(seen.facts.exam, None);
    let desired = decide::decide(&seen);
    let promotes: Vec<_> = desired
        .slots
        .iter()
        .flat_map(|slot| &slot.steps)
        .filter_map(|step| match step {
            Step::Promote(promote) => Some((promote.slot, promote.running.clone())),
            Step::Demote(_) | Step::Change(_) => None,
        })
        .collect();
    assert_eq!(promotes, [(1, None)]);
}

#[test]
fn a_rollout_goes_through_the_spare_and_keeps_every_slot_held() {
    let mut fleet = Fleet::new(3, 1, 3);
    fleet.settle(60).expect("it comes to rest");
    fleet.deployment.spec.model.revision = Some("public-tiny-v2".to_owned());
    for pass in 0..100 {
        checked_pass(&mut fleet);
        if pass == 30 {
            fleet.hold_exam(&[], |_| 1_000);
        }
        assert_eq!(holders(&fleet.observe()).len(), 3, "no slot is empty for a moment");
    }
    let observed = fleet.observe();
    let revisions: BTreeSet<&String> = observed.pods.values().map(|pod| &pod.revision).collect();
    assert_eq!(revisions.len(), 1, "{revisions:?}");
}

#[test]
fn nothing_rolls_out_while_the_chain_is_not_known() {
    let mut fleet = Fleet::new(2, 1, 3);
    fleet.settle(60).expect("it comes to rest");
    fleet.facts.window = Window::Unknown;
    fleet.deployment.spec.model.revision = Some("public-tiny-v2".to_owned());
    let pods: BTreeSet<String> = fleet.pods.keys().cloned().collect();
    fleet.settle(60).expect("it waits at rest");
    assert_eq!(fleet.pods.keys().cloned().collect::<BTreeSet<String>>(), pods);
}

#[test]
fn many_silent_machines_are_an_outage_of_ours_and_nothing_is_replaced() {
    let mut fleet = Fleet::new(4, 1, 5);
    fleet.settle(60).expect("it comes to rest");
    let pods = fleet.pods.len();
    for machine in ["n1", "n2", "n3", "n4"] {
        fleet.cut_power(machine);
    }
    for _ in 0..10 {
        checked_pass(&mut fleet);
    }
    fleet.now_ms += 3_600_000;
    for _ in 0..10 {
        checked_pass(&mut fleet);
    }
    assert_eq!(fleet.pods.len(), pods);
    assert!(!fleet.log.iter().any(|line| line.starts_with("delete Pod")));
}

#[test]
fn the_only_spare_goes_where_most_weight_is() {
    for heavy in [0, 1] {
        let mut fleet = Fleet::new(2, 1, 3);
        fleet.settle(60).expect("a new deployment comes to rest");
        let status = fleet.deployment.status.as_mut().expect("a status");
        for slot in &mut status.slots {
            slot.nonces_per_minute = Some(if slot.index == heavy { 900 } else { 600 });
        }
        let holders: Vec<String> = status
            .slots
            .iter()
            .filter_map(|slot| slot.pod_ref.as_ref())
            .map(|pod| pod.name.clone())
            .collect();
        for pod in holders {
            fleet.remove_pod(&pod);
        }
        let desired = decide::decide(&fleet.observe());
        let moved: Vec<i32> = desired
            .slots
            .iter()
            .filter(|slot| slot.takeover.as_ref().is_some_and(|takeover| !takeover.to.is_empty()))
            .map(|slot| slot.slot)
            .collect();
        assert_eq!(moved, [heavy]);
    }
}

#[test]
fn slots_that_share_a_failure_domain_spread_and_then_stay() {
    let mut fleet = Fleet::new(4, 1, 5);
    fleet.settle(60).expect("a new deployment comes to rest");
    let names: Vec<String> = fleet.machines.keys().cloned().collect();
    for (index, name) in names.iter().enumerate() {
        if let Some(machine) = fleet.machines.get_mut(name) {
            machine.domain = if index < 4 { "r1".to_owned() } else { "r2".to_owned() };
        }
    }
    fleet.settle(60).expect("it comes to rest again");
    let observed = fleet.observe();
    let in_r2 = observed
        .slices
        .values()
        .filter_map(|slice| decide::assignment(slice).holder)
        .filter(|holder| {
            let pod = &observed.pods[&holder.name];
            observed
                .machines
                .get(&pod.node_name)
                .is_some_and(|machine| machine.domain == "r2")
        })
        .count();
    assert_eq!(in_r2, 1, "one pod is in r2, and it holds a slot");
}
