//! Rollouts: a canary for one exam, one failure domain after another, and back by themselves.

use std::collections::{BTreeMap, BTreeSet};

use crds::model_deployment::{RolloutState, RolloutStatus};
use operator::change::Change;
use operator::model_deployment::decide::{self, Desired};
use operator::model_deployment::observed::Observed;
use rstest::rstest;

use crate::fleet::Fleet;
use crate::{checked_pass, holders};

/// Tag of the weights that everything starts with, and of those that come.
pub const OLD: &str = "public-tiny-v1";
pub const NEW: &str = "public-tiny-v2";

pub fn settled(slots: i32, spares: i32, machines: u32) -> Fleet {
    let mut fleet = Fleet::new(slots, spares, machines);
    fleet.settle(100).expect("a new deployment comes to rest");
    fleet
}

pub fn ask_for(fleet: &mut Fleet, tag: &str) {
    fleet.deployment.spec.model.revision = Some(tag.to_owned());
}

fn passes(fleet: &mut Fleet, count: usize) {
    for _ in 0..count {
        checked_pass(fleet);
    }
}

pub fn rollout(fleet: &Fleet) -> Option<RolloutStatus> {
    fleet.deployment.status.as_ref()?.rollout.clone()
}

pub fn rolled_out(fleet: &Fleet) -> (String, String) {
    let status = fleet.deployment.status.as_ref().expect("a status");
    let found = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "RolledOut");
    let found = found.expect("RolledOut is always there");
    (found.reason.clone(), found.message.clone())
}

/// Weights' tag of the pod of every slot.
fn in_slots(fleet: &Fleet) -> BTreeMap<i32, String> {
    let observed = fleet.observe();
    let slices = observed.slices.values();
    slices
        .filter_map(|slice| {
            let slot = slice.metadata.labels.as_ref()?[crds::labels::SLOT].parse().ok()?;
            Some((slot, fleet.weights(&decide::assignment(slice).holder?.name)))
        })
        .collect()
}

pub fn slots_with(fleet: &Fleet, tag: &str) -> Vec<i32> {
    let slots = in_slots(fleet).into_iter();
    slots.filter(|(_, of)| of == tag).map(|(slot, _)| slot).collect()
}

pub fn pods_with(fleet: &Fleet, tag: &str) -> usize {
    fleet.pods.keys().filter(|pod| fleet.weights(pod) == tag).count()
}

fn records(fleet: &Fleet) -> usize {
    fleet
        .objects
        .keys()
        .filter(|(kind, _)| kind == "ControllerRevision")
        .count()
}

/// What holds of every pass, whatever happens: a canary is not exceeded by somebody's wish, and no pod is made of a revision
/// that nobody asks for.
pub fn keeps_to_its_rules(after: &Observed, desired: &Desired) {
    let Some(status) = after.deployment.status.as_ref() else {
        return;
    };
    let wished = desired
        .slots
        .iter()
        .filter_map(|slot| slot.takeover.as_ref())
        .any(|takeover| takeover.cause == "Rollout");
    let told = status.rollout.as_ref();
    if let Some(told) = told.filter(|told| told.state == RolloutState::Canary && wished) {
        let slots = after.slices.values().filter(|slice| {
            let holder = decide::assignment(slice).holder;
            let pod = holder.and_then(|holder| after.pods.get(&holder.name));
            pod.is_some_and(|pod| pod.revision == told.revision)
        });
        let most = usize::try_from(after.deployment.spec.rollout.canary_slots).expect("not negative");
        assert!(slots.count() <= most, "more than {most} canaries: {told:?}");
    }
    let revisions = told.map(|told| [Some(&told.revision), told.previous_revision.as_ref()]);
    for change in &desired.changes {
        let Change::Create(object) = change else { continue };
        let made = object.value["metadata"]["labels"][crds::labels::REVISION].as_str();
        let asked_for = revisions
            .iter()
            .flatten()
            .flatten()
            .any(|known| Some(known.as_str()) == made);
        assert!(asked_for || status.revision.as_deref() == made, "{made:?} of {told:?}");
    }
}

#[test]
fn one_slot_is_examined_with_a_new_revision_before_the_others_get_it_domain_by_domain() {
    let mut fleet = settled(6, 1, 7);
    for (index, machine) in fleet.machines.values_mut().enumerate() {
        machine.domain = format!("r{}", index % 3);
    }
    fleet.settle(60).expect("spread over the new domains");
    ask_for(&mut fleet, NEW);
    passes(&mut fleet, 40);
    let canary = slots_with(&fleet, NEW);
    assert_eq!(
        (canary.len(), pods_with(&fleet, NEW)),
        (1, 1),
        "the freed pod stays a spare of what is proven"
    );
    let told = rollout(&fleet).expect("it is under way");
    assert_eq!(
        (told.state, told.updated_slots, told.slots),
        (RolloutState::Canary, 1, 6)
    );
    assert!(told.canary_since_time.is_some() && told.expected_time.is_some() && told.canary_exam.is_none());
    assert_eq!(rolled_out(&fleet).0, "CanaryUnproven");
    assert_eq!(records(&fleet), 2, "the revision asked for and the one before");
    fleet.hold_exam(&[], |_| 1_000);
    let mut domains: Vec<String> = Vec::new();
    for _ in 0..120 {
        let before = fleet.observe();
        checked_pass(&mut fleet);
        for (slice, uid) in holders(&before) {
            let pod = before.pods.values().find(|pod| pod.uid == uid).expect("it was there");
            let rolling = before
                .deployment
                .status
                .as_ref()
                .is_some_and(|status| status.rollout.is_some());
            if rolling && holders(&fleet.observe()).get(&slice) != Some(&uid) {
                domains.push(before.machines[&pod.node_name].domain.clone());
            }
        }
        assert_eq!(holders(&fleet.observe()).len(), 6, "no slot is empty for a moment");
    }
    assert_eq!(slots_with(&fleet, NEW).len(), 6);
    assert_eq!((rollout(&fleet), records(&fleet)), (None, 1), "nothing is left of it");
    let mut grouped = domains.clone();
    grouped.dedup();
    let distinct: BTreeSet<&String> = domains.iter().collect();
    assert_eq!(grouped.len(), distinct.len(), "one domain at a time: {domains:?}");
}

#[test]
fn a_canary_that_was_left_on_inference_waits_for_the_next_exam() {
    let mut fleet = settled(3, 1, 4);
    ask_for(&mut fleet, NEW);
    passes(&mut fleet, 30);
    let canary = slots_with(&fleet, NEW);
    fleet.hold_exam(&canary, |_| 1_000);
    passes(&mut fleet, 30);
    assert_eq!(slots_with(&fleet, NEW), canary);
    fleet.hold_exam(&[], |_| 1_000);
    passes(&mut fleet, 2);
    assert_eq!(
        rollout(&fleet).and_then(|told| told.canary_exam).as_deref(),
        Some("ours-sprint-13001")
    );
    passes(&mut fleet, 60);
    assert_eq!(slots_with(&fleet, NEW).len(), 3);
}

#[test]
fn an_exam_that_began_before_the_canary_had_its_slot_proves_nothing() {
    let mut fleet = settled(3, 1, 4);
    fleet.hold_exam(&[], |_| 1_000);
    ask_for(&mut fleet, NEW);
    passes(&mut fleet, 40);
    assert_eq!(slots_with(&fleet, NEW).len(), 1);
}

#[test]
fn without_canary_slots_nothing_waits_for_an_exam() {
    let mut fleet = settled(3, 1, 4);
    fleet.deployment.spec.rollout.canary_slots = 0;
    ask_for(&mut fleet, NEW);
    passes(&mut fleet, 60);
    assert_eq!(slots_with(&fleet, NEW).len(), 3);
}

/// What speaks against the new weights.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    Rehearsal,
    Rate,
    Exam,
}

fn suffer(fleet: &mut Fleet, flaw: Flaw) {
    match flaw {
        Flaw::Rehearsal => drop(fleet.engines.insert(NEW.to_owned(), Err("an engine ended".to_owned()))),
        Flaw::Rate => drop(fleet.engines.insert(NEW.to_owned(), Ok(3_990))),
        Flaw::Exam => {}
    }
    ask_for(fleet, NEW);
    passes(fleet, 40);
    if matches!(flaw, Flaw::Exam) {
        assert_eq!(slots_with(fleet, NEW).len(), 1, "nothing speaks against it yet");
        fleet.hold_exam(&[], |tag| if tag == NEW { 940 } else { 1_000 });
        passes(fleet, 40);
    }
}

#[rstest]
#[case::rehearsal(Flaw::Rehearsal, "an engine ended")]
#[case::rate(Flaw::Rate, "rehearsed at 239 nonces a minute")]
#[case::exam(Flaw::Exam, "computed 94 %")]
fn a_new_revision_that_fails_is_rolled_back_and_stays_so_until_the_spec_asks_for_another(
    #[case] flaw: Flaw,
    #[case] why: &str,
) {
    let mut fleet = settled(3, 1, 4);
    suffer(&mut fleet, flaw);
    assert_eq!((slots_with(&fleet, OLD).len(), pods_with(&fleet, NEW)), (3, 0));
    let told = rollout(&fleet).expect("it was rolled back");
    assert_eq!(told.state, RolloutState::RolledBack);
    assert_eq!(told.failed_revision.as_ref(), Some(&told.revision));
    assert!(told.message.contains(why), "{}", told.message);
    assert_eq!(
        fleet
            .deployment
            .status
            .as_ref()
            .and_then(|status| status.revision.clone()),
        told.previous_revision
    );
    let (reason, message) = rolled_out(&fleet);
    assert!(reason == "RolledBack" && message.contains(why), "{reason}: {message}");
    let writes = fleet.log.len();
    fleet.engines.clear();
    fleet.exams.clear();
    for _ in 0..30 {
        assert!(fleet.pass(), "it tries again: {:?}", &fleet.log[writes..]);
    }
    ask_for(&mut fleet, "public-tiny-v3");
    passes(&mut fleet, 40);
    fleet.hold_exam(&[], |_| 1_000);
    passes(&mut fleet, 60);
    assert_eq!((slots_with(&fleet, "public-tiny-v3").len(), rollout(&fleet)), (3, None));
}

#[test]
fn a_revision_that_failed_costs_no_slot_before_its_exam() {
    let mut fleet = settled(3, 1, 4);
    fleet.engines.insert(NEW.to_owned(), Err("an engine ended".to_owned()));
    ask_for(&mut fleet, NEW);
    for _ in 0..60 {
        checked_pass(&mut fleet);
        assert!(slots_with(&fleet, NEW).is_empty());
    }
    let made = fleet.log.iter().filter(|line| *line == "create Pod").count();
    assert_eq!(
        made,
        4 + 1 + 1,
        "one pod of the new revision, and one to take its place"
    );
}

#[test]
fn a_rate_that_is_a_little_lower_is_good_enough() {
    let mut fleet = settled(3, 1, 4);
    fleet.engines.insert(NEW.to_owned(), Ok(4_010));
    ask_for(&mut fleet, NEW);
    passes(&mut fleet, 40);
    assert_eq!(slots_with(&fleet, NEW).len(), 1);
}

#[test]
fn what_speaks_against_a_revision_is_written_before_its_pod_is_deleted() {
    let mut fleet = settled(3, 1, 4);
    fleet.engines.insert(NEW.to_owned(), Err("an engine ended".to_owned()));
    ask_for(&mut fleet, NEW);
    for _ in 0..60 {
        let observed = fleet.observe();
        let known = rollout(&fleet).is_some_and(|told| told.failed_revision.is_some());
        let desired = decide::decide(&observed);
        for change in &desired.changes {
            let Change::Delete(deletion) = change else { continue };
            let of_new = deletion.resource.kind == "Pod" && fleet.weights(&deletion.name) == NEW;
            assert!(!of_new || known, "its evidence would be gone");
        }
        // Whatever is cut off after the first write comes to the same.
        fleet.apply(&desired, 1);
        fleet.live_on();
    }
    passes(&mut fleet, 30);
    assert_eq!(rollout(&fleet).map(|told| told.state), Some(RolloutState::RolledBack));
}

#[test]
fn without_automatic_rollback_a_rollout_is_held_where_it_is_and_says_why() {
    let mut fleet = settled(3, 1, 4);
    fleet.deployment.spec.rollout.automatic_rollback = false;
    suffer(&mut fleet, Flaw::Exam);
    assert_eq!((slots_with(&fleet, NEW).len(), pods_with(&fleet, NEW)), (1, 1));
    let told = rollout(&fleet).expect("it is held");
    assert_eq!(told.state, RolloutState::Paused);
    assert_eq!(rolled_out(&fleet).0, "RolloutFailed");
    let pod = fleet
        .pods
        .keys()
        .find(|pod| fleet.weights(pod) == OLD)
        .cloned()
        .expect("there are some");
    fleet.remove_pod(&pod);
    passes(&mut fleet, 30);
    assert_eq!(
        pods_with(&fleet, NEW),
        1,
        "what is made meanwhile is of the revision before"
    );
    fleet.deployment.spec.rollout.automatic_rollback = true;
    passes(&mut fleet, 40);
    assert_eq!(pods_with(&fleet, NEW), 0);
}

#[test]
fn while_its_owner_holds_a_rollout_pods_are_made_of_the_revision_before() {
    let mut fleet = settled(3, 1, 4);
    fleet.deployment.spec.rollout.paused = true;
    ask_for(&mut fleet, NEW);
    passes(&mut fleet, 5);
    fleet.remove_pod("tiny-0001");
    passes(&mut fleet, 30);
    assert_eq!((pods_with(&fleet, OLD), pods_with(&fleet, NEW)), (4, 0));
    assert_eq!(rollout(&fleet).map(|told| told.state), Some(RolloutState::Paused));
    assert_eq!(rolled_out(&fleet).0, "Paused");
}

#[test]
fn without_a_template_on_record_there_is_no_way_back() {
    let mut fleet = settled(3, 1, 4);
    fleet.objects.retain(|(kind, _), _| kind != "ControllerRevision");
    ask_for(&mut fleet, NEW);
    fleet.engines.insert(NEW.to_owned(), Err("an engine ended".to_owned()));
    passes(&mut fleet, 40);
    assert_eq!(rollout(&fleet).map(|told| told.state), Some(RolloutState::Paused));
    assert_eq!(slots_with(&fleet, OLD).len(), 3);
}

#[test]
fn a_template_that_somebody_changed_is_no_way_back() {
    let mut fleet = settled(3, 1, 4);
    for ((kind, _), record) in &mut fleet.objects {
        if kind == "ControllerRevision" {
            record["data"]["spec"]["priorityClassName"] = "system-node-critical".into();
        }
    }
    fleet.engines.insert(NEW.to_owned(), Err("an engine ended".to_owned()));
    ask_for(&mut fleet, NEW);
    passes(&mut fleet, 40);
    assert_eq!(rollout(&fleet).map(|told| told.state), Some(RolloutState::Paused));
}

#[test]
fn edits_that_follow_one_another_collapse_into_the_last() {
    let mut fleet = settled(3, 2, 4);
    ask_for(&mut fleet, NEW);
    passes(&mut fleet, 1);
    ask_for(&mut fleet, "public-tiny-v3");
    for _ in 0..40 {
        let before: BTreeSet<String> = fleet.pods.keys().cloned().collect();
        checked_pass(&mut fleet);
        let made = fleet.pods.keys().filter(|pod| !before.contains(*pod));
        assert!(
            made.map(|pod| fleet.weights(pod)).all(|tag| tag != NEW),
            "nobody asks for it any more"
        );
    }
    assert_eq!(
        (pods_with(&fleet, NEW), slots_with(&fleet, "public-tiny-v3").len()),
        (0, 1)
    );
    assert!(records(&fleet) <= 2);
}

#[test]
fn an_edit_that_is_taken_back_goes_back_without_an_exam_and_without_pods_beyond_those_replaced() {
    let mut fleet = settled(3, 1, 4);
    ask_for(&mut fleet, NEW);
    passes(&mut fleet, 40);
    assert_eq!(slots_with(&fleet, NEW).len(), 1);
    let created = |fleet: &Fleet| fleet.log.iter().filter(|line| *line == "create Pod").count();
    let before = created(&fleet);
    ask_for(&mut fleet, OLD);
    passes(&mut fleet, 40);
    assert_eq!(
        (slots_with(&fleet, OLD).len(), pods_with(&fleet, NEW), rollout(&fleet)),
        (3, 0, None)
    );
    assert_eq!(created(&fleet), before + 1);
}

#[test]
fn the_time_a_load_takes_is_learned_and_fades_slowly() {
    let mut fleet = settled(2, 1, 3);
    let learned = |fleet: &Fleet| fleet.deployment.status.as_ref().and_then(|status| status.load_seconds);
    let first = learned(&fleet).expect("three pods loaded");
    fleet.deployment.status.as_mut().expect("a status").load_seconds = Some(1_000);
    passes(&mut fleet, 20);
    assert_eq!(learned(&fleet), Some(1_000), "nothing was loaded");
    let spare = fleet
        .observe()
        .pods
        .iter()
        .find(|(_, pod)| pod.slot == "spare")
        .map(|(name, _)| name.clone());
    fleet.remove_pod(&spare.expect("there is one"));
    // Pods are made at the time that the fleet began at: this one takes as long as the fleet has lived.
    passes(&mut fleet, 20);
    assert_eq!(learned(&fleet), Some(900), "the first one took {first}");
}
