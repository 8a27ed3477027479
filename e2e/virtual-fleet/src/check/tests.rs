use std::sync::Arc;

use network_simulator::event::Call;
use network_simulator::network::Network;
use network_simulator::truth::Unit;
use network_simulator::virtual_time::{BEGINNING_MS, Driver, Outside, Response, Ticket};
use operator::change::Deletion;
use operator::machine::switches::SWITCHES;
use serde_json::Value;

use super::*;
use crate::fleet::Fleet;
use crate::plan::Plan;

/// A fleet that stands, a minute after its beginning, long before its first exam: too late for the gate to know nothing.
fn standing() -> (Driver, Fleet) {
    let plan = Plan::devnet(1, 2);
    let scenario = Arc::new(plan.scenario().expect("a scenario"));
    let mut driver = Driver::new(scenario.clone(), BEGINNING_MS);
    let mut fleet = Fleet::new(&plan, &scenario);
    fleet.begin(&mut driver.door(), &plan);
    driver.step_until(BEGINNING_MS + 60_000, &mut fleet);
    (driver, fleet)
}

/// Time passes, and nobody does anything.
struct Nobody;

impl Outside for Nobody {
    fn call(&mut self, _door: &mut Door<'_>, _ticket: Ticket, _call: &Call) -> Response {
        Response::Never
    }

    fn wake(&mut self, _door: &mut Door<'_>, _token: u64) {}

    fn units(&mut self, _net: &Network, _stage_height: i64) -> Vec<Unit> {
        Vec::new()
    }
}

fn rules(fleet: &Fleet) -> Vec<Rule> {
    fleet.ground.checks.violations.iter().map(|found| found.rule).collect()
}

fn pod(fleet: &Fleet, holds: bool) -> (String, String) {
    let mut pods = fleet.ground.cluster.pods.iter();
    let found = pods.find(|(_, life)| life.slot.as_ref().is_some_and(|slot| slot.held().is_some() == holds));
    let (uid, life) = found.expect("there is one");
    (life.id.name.clone(), uid.clone())
}

fn deletion((name, uid): (String, String)) -> Change {
    Change::Delete(Deletion {
        resource: kube::api::ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&()),
        namespace: Some(crate::NAMESPACE.to_owned()),
        name,
        uid,
        grace_seconds: None,
    })
}

#[test]
fn one_generation_for_two_pods_is_seen() {
    let (mut driver, mut fleet) = standing();
    let door = driver.door();
    fleet.ground.check_promotion(&door, "a", "node", 90);
    fleet.ground.check_promotion(&door, "a", "node", 90);
    assert!(rules(&fleet).is_empty());
    fleet.ground.check_promotion(&door, "b", "node", 90);
    assert_eq!(rules(&fleet), [Rule::OnePodPerGeneration]);
}

#[test]
fn a_pod_that_holds_a_slot_is_not_deleted_outside_of_green_and_a_spare_only_before_it_is_late() {
    let (mut driver, mut fleet) = standing();
    let facts = fleet.operator.facts().expect("the chain is read").clone();
    let (holder, spare) = (deletion(pod(&fleet, true)), deletion(pod(&fleet, false)));
    let door = driver.door();
    fleet.ground.check_deletion(&door, &spare, Some(&facts));
    assert!(rules(&fleet).is_empty(), "{:?} allows it", facts.window);
    fleet.ground.check_deletion(&door, &spare, None);
    assert_eq!(rules(&fleet), [Rule::Gate], "nobody knows the chain");
    fleet.ground.checks.violations.clear();
    let amber = Facts {
        window: crds::references::Window::Amber,
        ..Facts::clone(&facts)
    };
    fleet.ground.check_deletion(&door, &holder, Some(&amber));
    assert_eq!(rules(&fleet), [Rule::Gate]);
}

#[test]
fn two_reachable_pods_on_one_slot_are_seen_once_it_lasts() {
    let (mut driver, mut fleet) = standing();
    let (_, spare) = pod(&fleet, false);
    let (_, holder) = pod(&fleet, true);
    let held = fleet.ground.cluster.pods[&holder]
        .slot
        .as_ref()
        .and_then(|slot| slot.state.memory.assignment.clone());
    let life = fleet.ground.cluster.pods.get_mut(&spare).expect("there");
    life.slot.as_mut().expect("it runs").state.memory.assignment = held;
    fleet.ground.check_holders(&driver.door(), true);
    assert!(rules(&fleet).is_empty(), "not at once");
    driver.step_until(BEGINNING_MS + 85_000, &mut Nobody);
    fleet.ground.check_holders(&driver.door(), true);
    assert_eq!(rules(&fleet), [Rule::OneHolder]);
}

#[test]
fn an_exam_without_its_record_is_seen() {
    let (mut driver, mut fleet) = standing();
    let door = driver.door();
    fleet.ground.check_record(&door, "Sprint", 30);
    assert_eq!(rules(&fleet), [Rule::OneRecord]);
    let spec = serde_json::json!({"spec": {"triggerHeight": 97}});
    fleet
        .ground
        .store
        .make(Kind::SprintRun, crate::NAMESPACE, "ours-c-97", spec, 0);
    fleet.ground.check_record(&door, "Confirmation", 97);
    assert_eq!(rules(&fleet).len(), 1);
}

#[test]
fn a_fleet_that_is_not_as_it_should_be_has_something_to_write() {
    let (mut driver, mut fleet) = standing();
    let now_ms = Ground::now(&driver.door());
    assert_eq!(fleet.operator.would_write(&fleet.ground, now_ms), Vec::<String>::new());
    let budget = Id::new(Kind::PodDisruptionBudget, crate::NAMESPACE, crate::DEPLOYMENT);
    let open = |budget: &mut Value| budget["spec"]["minAvailable"] = json!(1);
    fleet.ground.store.edit(&budget, open).expect("there");
    assert_eq!(
        fleet.operator.would_write(&fleet.ground, now_ms),
        ["apply PodDisruptionBudget tiny"]
    );
}

fn machine_of(fleet: &Fleet, holds: bool) -> String {
    let (_, uid) = pod(fleet, holds);
    fleet.ground.cluster.pods[&uid].machine.clone()
}

#[test]
fn a_machine_that_is_released_without_the_gates_leave_or_beside_another_is_seen() {
    let (mut driver, mut fleet) = standing();
    let facts = fleet.operator.facts().expect("the chain is read").clone();
    let (carries, bare) = (machine_of(&fleet, true), machine_of(&fleet, false));
    let door = driver.door();
    fleet.ground.check_release(&door, &bare, Some(&facts));
    assert!(rules(&fleet).is_empty(), "a spare carries no weight");
    fleet.ground.check_release(&door, &bare, None);
    assert_eq!(rules(&fleet), [Rule::Release], "nobody knows the chain");
    fleet.ground.checks.violations.clear();
    fleet.ground.check_release(&door, &carries, Some(&facts));
    assert_eq!(
        rules(&fleet),
        [Rule::Release],
        "a third of the weight is not within the margin"
    );
    fleet.ground.checks.violations.clear();
    let released = |gpu_node: &mut Value| gpu_node["status"]["maintenance"]["state"] = json!("Released");
    let out = Id::new(Kind::GpuNode, "", &carries);
    fleet.ground.store.edit(&out, released).expect("there");
    fleet.ground.check_release(&door, &bare, Some(&facts));
    assert_eq!(rules(&fleet), [Rule::Release], "two domains at once");
}

#[test]
fn a_foreign_switch_that_is_not_as_it_should_be_is_seen_at_rest_and_where_it_lasts() {
    let (mut driver, mut fleet) = standing();
    let node = Id::new(Kind::Node, "", "n1");
    fleet.ground.check_machines(&driver.door(), true, true);
    assert!(rules(&fleet).is_empty(), "{:?}", fleet.ground.checks.violations);
    let skip = |value: &str| {
        let value = json!(value);
        move |node: &mut Value| node["metadata"]["labels"]["nvidia.com/gpu-driver-upgrade.skip"] = value
    };
    fleet.ground.store.edit(&node, skip("false")).expect("there");
    fleet.ground.check_machines(&driver.door(), true, false);
    assert!(rules(&fleet).is_empty(), "not at once");
    driver.step_until(BEGINNING_MS + 190_000, &mut Nobody);
    fleet.ground.check_machines(&driver.door(), true, false);
    assert_eq!(rules(&fleet), [Rule::Switches]);
    fleet.ground.checks.violations.clear();
    fleet.ground.store.edit(&node, skip("x")).expect("there");
    fleet.ground.check_machines(&driver.door(), true, true);
    assert_eq!(rules(&fleet), [Rule::Switches]);
}

#[test]
fn strangers_keep_what_they_set_when_nothing_of_ours_is_there_and_what_we_have_not_set_over() {
    let (_, mut fleet) = standing();
    let ground = &mut fleet.ground;
    let skip = "nvidia.com/gpu-driver-upgrade.skip";
    let place = SWITCHES.iter().position(|switch| switch.key == skip).expect("a switch");
    let complaints = |ground: &Ground, held: bool| ground.strangers.complaints(&ground.store, &|_| held).len();
    assert_eq!(complaints(ground, true), 0);
    assert!(complaints(ground, false) > 0, "ours is there");
    // Set over by us at once, were we there: a quarrel.
    ground
        .strangers
        .set(&mut ground.store, "n1", place, Some("x"))
        .expect("there");
    assert_eq!(complaints(ground, true), 1);
    let node = ground.store.get(&Id::new(Kind::Node, "", "n1")).expect("there").clone();
    let mut resource = kube::api::ApiResource::erase::<k8s_openapi::api::core::v1::Node>(&());
    "Node".clone_into(&mut resource.kind);
    let back = Change::Merge(operator::change::Object {
        resource,
        namespace: None,
        name: "n1".to_owned(),
        value: json!({"metadata": {"uid": node["metadata"]["uid"], "annotations": {crds::labels::PREVIOUS_VALUES: null}}}),
    });
    let theirs = crate::switches::given_back(&ground.store, &back).expect("it gives the machine back");
    assert_eq!(theirs.get(&place), Some(&Some("x".to_owned())));
    assert_eq!(theirs.len(), 1);
}

#[test]
fn a_glass_that_stays_broken_is_seen() {
    let (mut driver, mut fleet) = standing();
    let host = Id::new(Kind::GonkaHost, crate::NAMESPACE, crate::HOST);
    let broken = |host: &mut Value| host["metadata"]["annotations"][crds::labels::BREAK_GLASS] = json!("fire");
    fleet.ground.store.edit(&host, broken).expect("there");
    driver.step_until(BEGINNING_MS + 80_000, &mut Nobody);
    fleet.ground.check_seals(&driver.door(), true, 30_000);
    driver.step_until(BEGINNING_MS + 160_000, &mut Nobody);
    fleet.ground.check_seals(&driver.door(), true, 30_000);
    assert!(rules(&fleet).is_empty(), "its time and a minute");
    driver.step_until(BEGINNING_MS + 180_000, &mut Nobody);
    fleet.ground.check_seals(&driver.door(), true, 30_000);
    assert_eq!(rules(&fleet), [Rule::Seal]);
}

#[test]
fn a_glass_whose_breaking_a_watch_has_lost_has_its_time_from_the_list_that_shows_it() {
    let (mut driver, mut fleet) = standing();
    let host = Id::new(Kind::GonkaHost, crate::NAMESPACE, crate::HOST);
    let broken = |host: &mut Value| host["metadata"]["annotations"][crds::labels::BREAK_GLASS] = json!("fire");
    fleet.ground.store.edit(&host, broken).expect("there");
    let look = |driver: &mut Driver, fleet: &mut Fleet, second: u64| {
        driver.step_until(BEGINNING_MS + second * 1000, &mut Nobody);
        fleet.ground.check_seals(&driver.door(), true, 30_000);
        rules(fleet)
    };
    fleet.ground.checks.unheard.insert(host);
    assert_eq!(look(&mut driver, &mut fleet, 80), []);
    assert_eq!(look(&mut driver, &mut fleet, 180), [], "no list has come yet");
    // A list of another kind shows nothing of it.
    fleet
        .operator
        .relist(&mut fleet.ground, &mut driver.door(), Kind::Service);
    assert_eq!(look(&mut driver, &mut fleet, 200), []);
    fleet
        .operator
        .relist(&mut fleet.ground, &mut driver.door(), Kind::GonkaHost);
    assert_eq!(look(&mut driver, &mut fleet, 285), [], "its time and a minute");
    assert_eq!(look(&mut driver, &mut fleet, 305), [Rule::Seal]);
}

#[test]
fn a_spare_is_assignable_while_writes_are_taken_and_its_machine_is_proven_and_a_holder_always() {
    let (driver, mut fleet) = standing();
    let (_, spare) = pod(&fleet, false);
    let assignable = |fleet: &mut Fleet| {
        let units = fleet.units(driver.net(), 0).into_iter();
        let (held, free): (Vec<Unit>, Vec<Unit>) = units.partition(|unit| unit.node_id.is_some());
        assert!((held.len(), free.len()) == (3, 1) && held.iter().all(|unit| unit.assignable));
        free[0].assignable
    };
    assert!(assignable(&mut fleet));
    let mark = fleet.units_mark(driver.net());
    fleet.ground.faults.api_down = 1;
    assert!(!assignable(&mut fleet), "an assignment is an object");
    assert_ne!(fleet.units_mark(driver.net()), mark, "that is seen when it begins");
    fleet.ground.faults.api_down = 0;
    let back_ms = i64::try_from(driver.now_ms()).expect("a time");
    let machine = fleet.ground.cluster.pods[&spare].machine.clone();
    let machines = &mut fleet.ground.cluster.machines;
    machines.get_mut(&machine).expect("there").given_back_ms = back_ms;
    assert!(!assignable(&mut fleet), "nobody knows what it computes");
    let life = fleet.ground.cluster.pods.get_mut(&spare);
    let slot = life.and_then(|life| life.slot.as_mut()).expect("it runs");
    assert!(slot.rehearsed(&[0], true, back_ms + 1));
    assert!(assignable(&mut fleet));
    fleet.ground.cluster.proven(&spare);
    assert_eq!(fleet.ground.cluster.machines[&machine].given_back_ms, 0);
}
