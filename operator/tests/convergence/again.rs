//! A deployment that is deleted and made again: people do so by mistake, tools that sync and restore do so by design.

use std::collections::BTreeSet;

use operator::model_deployment::decide::{self, Step};
use operator::model_deployment::pass;

use crate::fleet::Fleet;
use crate::rollouts::{NEW, OLD, ask_for, rollout, settled, slots_with};
use crate::{checked_pass, generations, holders};

fn owners(fleet: &Fleet) -> BTreeSet<String> {
    let pods = fleet.pods.values();
    pods.flat_map(|pod| pod.metadata.owner_references.iter().flatten())
        .map(|owner| owner.uid.clone())
        .collect()
}

fn pods(fleet: &Fleet) -> BTreeSet<String> {
    fleet.pods.keys().cloned().collect()
}

#[test]
fn it_takes_its_pods_over_as_they_are_and_moves_no_slot() {
    let mut fleet = settled(3, 1, 4);
    let before = (pods(&fleet), holders(&fleet.observe()), generations(&fleet.observe()));
    fleet.make_again();
    for _ in 0..30 {
        checked_pass(&mut fleet);
    }
    let after = (pods(&fleet), holders(&fleet.observe()), generations(&fleet.observe()));
    assert_eq!(before, after);
    let uid = fleet.deployment.metadata.uid.clone().expect("a UID");
    assert_eq!(
        owners(&fleet),
        BTreeSet::from([uid]),
        "the collector asks for no owner that is gone"
    );
    assert!(fleet.pass(), "it is at rest");
    let status = fleet.deployment.status.clone().expect("a status");
    assert_eq!((status.sprint_ready_slots, status.ready_spares), (3, 1));
}

#[test]
fn its_pods_are_spoken_to_with_the_name_they_were_given() {
    let mut fleet = settled(2, 1, 3);
    let born = fleet.deployment.metadata.uid.clone().expect("a UID");
    fleet.make_again();
    checked_pass(&mut fleet);
    let observed = fleet.observe();
    let spoken: BTreeSet<String> = pass::targets(&observed)
        .into_iter()
        .map(|target| target.deployment_uid)
        .collect();
    assert_eq!(spoken, BTreeSet::from([born]), "a pod's environment does not change");
    let first = fleet.pods.keys().next().expect("a pod").clone();
    fleet.remove_pod(&first);
    fleet.settle(100).expect("rest");
    let spoken: BTreeSet<String> = pass::targets(&fleet.observe())
        .into_iter()
        .map(|target| target.deployment_uid)
        .collect();
    assert_eq!(
        spoken.len(),
        2,
        "the pod that came since was given the new one: {spoken:?}"
    );
}

#[test]
fn with_another_template_it_rolls_out_like_an_edit_with_a_canary_first() {
    let mut fleet = settled(4, 1, 5);
    let before = holders(&fleet.observe());
    fleet.make_again();
    ask_for(&mut fleet, NEW);
    // The host has let go of the old one's registrations, and has not asked for the new one's yet.
    let known = fleet
        .host
        .as_mut()
        .and_then(|host| host.status.as_mut())
        .expect("a status");
    let registrations = std::mem::take(&mut known.registrations);
    for _ in 0..20 {
        checked_pass(&mut fleet);
    }
    let known = fleet
        .host
        .as_mut()
        .and_then(|host| host.status.as_mut())
        .expect("a status");
    known.registrations = registrations;
    for _ in 0..20 {
        checked_pass(&mut fleet);
    }
    assert_eq!(slots_with(&fleet, NEW).len(), 1, "one slot waits for its exam");
    assert_eq!(slots_with(&fleet, OLD).len(), 3);
    assert!(rollout(&fleet).is_some_and(|rollout| rollout.previous_revision.is_some()));
    let kept = holders(&fleet.observe());
    assert_eq!(before.iter().filter(|held| kept.get(held.0) == Some(held.1)).count(), 3);
}

#[test]
fn the_slot_of_a_pod_it_took_over_is_closed_there_before_it_is_opened_elsewhere() {
    let mut fleet = settled(2, 1, 3);
    fleet.make_again();
    let machine = fleet.machines.get_mut("n1").expect("a machine");
    machine.findings = vec!["EccUncorrectable".to_owned()];
    let desired = decide::decide(&fleet.observe());
    let moved = desired
        .slots
        .iter()
        .find(|slot| slot.takeover.is_some())
        .expect("a takeover");
    assert!(
        matches!(moved.steps.first(), Some(Step::Demote(_))),
        "{:?}",
        moved.steps
    );
}
