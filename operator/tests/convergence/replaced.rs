//! A slot whose only spare would have to leave with it gets another one elsewhere, before anything goes.

use std::collections::BTreeSet;

use crds::gpu_node::MaintenanceStage;

use crate::fleet::Fleet;

/// Two slots and a spare on two machines, and a third machine with nothing on it.
fn crowded() -> Fleet {
    let mut fleet = Fleet::new(2, 1, 2);
    fleet.settle(60).expect("a new deployment comes to rest");
    let mut machine = fleet.machines["n2"].clone();
    "n3".clone_into(&mut machine.domain);
    fleet.machines.insert("n3".to_owned(), machine);
    fleet.log.clear();
    fleet
}

fn on(fleet: &Fleet, node: &str) -> BTreeSet<String> {
    let pods = fleet.pods.iter();
    let here = pods.filter(|(_, pod)| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node));
    here.map(|(name, _)| name.clone()).collect()
}

/// The machine with two pods is asked for.
fn asked_for(fleet: &mut Fleet, stage: MaintenanceStage) -> String {
    let mut names = fleet.machines.keys().cloned();
    let name = names.find(|name| on(fleet, name).len() == 2).expect("one has two pods");
    let machine = fleet.machines.get_mut(&name).expect("a machine");
    (machine.leaving, machine.maintenance) = (true, Some(stage));
    name
}

#[test]
fn a_replacement_is_made_before_anything_goes_and_one_pod_too_many_goes_after_the_slot_has_moved() {
    let mut fleet = crowded();
    let asked = asked_for(&mut fleet, MaintenanceStage::Waiting);
    fleet.settle(60).expect("it comes to rest");
    assert_eq!((fleet.pods.len(), on(&fleet, "n3").len()), (4, 1), "{:?}", fleet.log);
    assert!(
        !fleet.log.iter().any(|line| line.starts_with("delete Pod")),
        "{:?}",
        fleet.log
    );
    // Its turn has come.
    fleet.machines.get_mut(&asked).expect("there").maintenance = Some(MaintenanceStage::Draining);
    fleet.settle(60).expect("it comes to rest");
    let observed = fleet.observe();
    let holds = |name: &String| observed.pods[name].slot != crds::labels::SLOT_SPARE;
    assert!(
        on(&fleet, "n3").iter().all(holds),
        "the slot is elsewhere: {:?}",
        fleet.log
    );
    assert!(!on(&fleet, &asked).iter().any(holds), "{:?}", fleet.log);
    assert_eq!(fleet.pods.len(), 3, "{:?}", fleet.log);
}

#[test]
fn a_wish_that_is_withdrawn_before_its_turn_leaves_as_many_pods_as_are_wanted() {
    let mut fleet = crowded();
    let asked = asked_for(&mut fleet, MaintenanceStage::Waiting);
    fleet.settle(60).expect("it comes to rest");
    let machine = fleet.machines.get_mut(&asked).expect("there");
    (machine.leaving, machine.maintenance) = (false, None);
    fleet.settle(60).expect("it comes to rest");
    assert_eq!(fleet.pods.len(), 3, "{:?}", fleet.log);
}

#[test]
fn nothing_is_made_ahead_in_an_exam_or_where_a_spare_stays_elsewhere() {
    let mut fleet = Fleet::new(2, 1, 3);
    fleet.settle(60).expect("a new deployment comes to rest");
    let machine = fleet.machines.get_mut("n1").expect("a machine");
    (machine.leaving, machine.maintenance) = (true, Some(MaintenanceStage::Waiting));
    fleet.settle(60).expect("it comes to rest");
    assert_eq!(fleet.pods.len(), 3, "{:?}", fleet.log);
    let mut fleet = crowded();
    fleet.facts.window = crds::references::Window::Sprint;
    asked_for(&mut fleet, MaintenanceStage::Waiting);
    fleet.settle(60).expect("it comes to rest");
    assert_eq!(fleet.pods.len(), 3, "{:?}", fleet.log);
}
