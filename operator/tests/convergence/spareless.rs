//! Rollouts without spares: one slot at a time, in Green windows that are long enough.

use crds::references::Window;

use crate::fleet::Fleet;
use crate::holders;
use crate::rollouts::{NEW, OLD, ask_for, pods_with, rolled_out, rollout, settled, slots_with};

/// Green until the next Sprint is near, so many blocks before it.
fn green(fleet: &mut Fleet, until: i64) {
    fleet.facts.window = Window::Green;
    fleet.facts.green_until_height = Some(until);
    if let Some(host) = &mut fleet.host {
        host.spec.disruption.max_weight_basis_points = 909;
    }
}

#[test]
fn without_spares_one_pod_at_a_time_gives_way_in_a_green_window() {
    let mut fleet = settled(12, 0, 4);
    ask_for(&mut fleet, NEW);
    fleet.deployment.spec.rollout.canary_slots = 0;
    fleet.settle(60).expect("in Amber it waits");
    assert_eq!(pods_with(&fleet, NEW), 0);
    assert_eq!(rolled_out(&fleet).0, "WaitingForWindow");
    green(&mut fleet, 15_000);
    for _ in 0..200 {
        fleet.pass();
        assert!(
            holders(&fleet.observe()).len() >= 11,
            "one slot at a time is without a pod"
        );
    }
    assert_eq!((slots_with(&fleet, NEW).len(), rollout(&fleet)), (12, None));
}

#[test]
fn without_spares_a_canary_is_one_slot_too() {
    let mut fleet = settled(12, 0, 4);
    green(&mut fleet, 15_000);
    ask_for(&mut fleet, NEW);
    for _ in 0..60 {
        fleet.pass();
    }
    assert_eq!((slots_with(&fleet, NEW).len(), pods_with(&fleet, NEW)), (1, 1));
    fleet.hold_exam(&[], |tag| if tag == NEW { 100 } else { 1_000 });
    for _ in 0..60 {
        fleet.pass();
    }
    assert_eq!(
        (slots_with(&fleet, OLD).len(), pods_with(&fleet, NEW)),
        (12, 0),
        "and it goes back"
    );
}

#[test]
fn without_spares_a_window_that_is_shorter_than_a_load_is_not_used() {
    let mut fleet = settled(12, 0, 4);
    ask_for(&mut fleet, NEW);
    let status = fleet.deployment.status.as_mut().expect("a status");
    assert!(
        status.load_seconds.is_some_and(|load| load <= 10),
        "{:?}",
        status.load_seconds
    );
    status.load_seconds = Some(600);
    // Five seconds a block: 121 blocks are more than ten minutes, 119 are less.
    let end = fleet.facts.height + 119;
    green(&mut fleet, end);
    fleet.settle(60).expect("it waits");
    assert_eq!(pods_with(&fleet, NEW), 0);
    let end = fleet.facts.height + 125;
    green(&mut fleet, end);
    for _ in 0..20 {
        fleet.pass();
    }
    assert_eq!(pods_with(&fleet, NEW), 1);
}

#[test]
fn without_spares_a_slot_that_is_more_than_may_be_out_waits_and_says_so() {
    let mut fleet = settled(4, 0, 4);
    green(&mut fleet, 15_000);
    ask_for(&mut fleet, NEW);
    fleet.settle(60).expect("it waits");
    assert_eq!(pods_with(&fleet, NEW), 0);
    let message = rollout(&fleet).expect("it is under way").message;
    assert!(
        message.contains("2500 basis points") && message.contains("add a spare"),
        "{message}"
    );
}
