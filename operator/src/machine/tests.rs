//! Whose turn it is, and that nothing is released that should not be.

mod hours;

use crds::gpu_node::{Maintenance, MaintenanceStage, MaintenanceState};
use crds::references::Window;
use crds::sprint_schedule::{ChainParameters, StageHeights};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::decide::{Decision, decide};
use super::observed::{Deployment, GpuNodeSeen, Host, Machine, NodeSeen, Observed, PodHere};
use super::queue::{Turn, turns};
use crate::change::Change;
use crate::facts::{Facts, Pace};
use crate::gate::HostState;

const NOW: i64 = 1_700_000_000_000;
const NEXT: i64 = 20_000;
const OURS: &str = "gonka/ours";
const TINY: &str = "gonka/tiny";

/// Mainnet's numbers, 5-second blocks.
fn facts(window: Window, height: i64) -> Facts {
    Facts {
        height,
        window,
        block_time_ms: NOW,
        observed_ms: NOW,
        pace: Pace {
            block_millis: 5000.0,
            spread_millis: 0.0,
        },
        heights: Some(StageHeights {
            poc_start_height: NEXT - 15_391,
            generation_end_height: NEXT - 15_356,
            validation_end_height: NEXT - 15_111,
            set_new_validators_height: NEXT - 14_991,
            next_poc_start_height: NEXT,
            ..StageHeights::default()
        }),
        parameters: Some(ChainParameters::default()),
        green_until_height: (window == Window::Green).then_some(NEXT - 120),
        next_green_height: (window == Window::Amber).then_some(NEXT - 901),
        ..Facts::default()
    }
}

/// Machines n0, n1, …: `slots` of them hold one slot each, the others one rehearsed spare.
fn fleet(machines: usize, slots: usize) -> Observed {
    let mut observed = Observed {
        now_ms: NOW,
        ..Observed::default()
    };
    let name = |index: usize| format!("n{index}");
    for index in 0..machines {
        let pod = PodHere {
            deployment: TINY.to_owned(),
            name: format!("tiny-{index}"),
            slot: (index < slots).then(|| i32::try_from(index).expect("few")),
            proven: true,
        };
        let machine = Machine {
            node: Some(NodeSeen {
                uid: format!("node-{index}"),
                ready: true,
                ..NodeSeen::default()
            }),
            gpu_node: Some(GpuNodeSeen::default()),
            pods: vec![pod],
        };
        observed.machines.insert(name(index), machine);
    }
    let deployment = Deployment {
        host: OURS.to_owned(),
        domain_key: "rack".to_owned(),
        spares: (slots..machines).map(name).collect(),
        is_full: false,
        weights: (0..slots)
            .map(|slot| (i32::try_from(slot).expect("few"), 100))
            .collect(),
    };
    observed.deployments.insert(TINY.to_owned(), deployment);
    let host = Host {
        facts: facts(Window::Amber, NEXT - 5_000),
        state: HostState {
            max_weight_basis_points: 300,
            drain_millis: 120_000,
            ready_by_millis: 600_000,
            ..HostState::default()
        },
        weight: 100 * i64::try_from(slots).expect("few"),
        load_millis: 1_800_000,
    };
    observed.hosts.insert(OURS.to_owned(), host);
    observed
}

fn wish(observed: &mut Observed, name: &str) {
    let gpu_node = observed
        .machines
        .get_mut(name)
        .and_then(|machine| machine.gpu_node.as_mut());
    gpu_node.expect("a machine").wish = Maintenance {
        state: MaintenanceState::Requested,
        reason: Some("a fan".to_owned()),
        ..Maintenance::default()
    };
}

fn chain(observed: &mut Observed, window: Window, height: i64) {
    observed.hosts.get_mut(OURS).expect("a host").facts = facts(window, height);
}

fn turn(observed: &Observed, name: &str) -> Turn {
    turns(observed).remove(name).expect("a turn")
}

/// Statuses as written.
fn carry_out(observed: &mut Observed, decision: &Decision) {
    for change in decision.writes.values().flatten() {
        if let Change::Status(object) = change
            && let Some(gpu_node) = observed
                .machines
                .get_mut(&object.name)
                .and_then(|machine| machine.gpu_node.as_mut())
        {
            gpu_node.answer = serde_json::from_value(object.value["status"]["maintenance"].clone()).ok();
        }
    }
}

fn pass(observed: &mut Observed) -> Decision {
    let decision = decide(observed);
    carry_out(observed, &decision);
    decision
}

fn stage(observed: &Observed, name: &str) -> Option<MaintenanceStage> {
    observed.machines[name].stage()
}

#[test]
fn slots_move_to_spares_first_and_then_the_machine_is_released() {
    let mut observed = fleet(3, 2);
    pass(&mut observed);
    wish(&mut observed, "n0");
    pass(&mut observed);
    assert_eq!(stage(&observed, "n0"), Some(MaintenanceStage::Draining));
    // The deployment's controller moved the slot.
    let slot = observed.machines.get_mut("n0").expect("n0").pods[0].slot.take();
    observed.machines.get_mut("n2").expect("n2").pods[0].slot = slot;
    observed.deployments.get_mut(TINY).expect("tiny").spares = vec!["n0".to_owned()];
    let decision = pass(&mut observed);
    assert_eq!(stage(&observed, "n0"), Some(MaintenanceStage::Released));
    assert!(decision.writes.contains_key("machine n0"));
    assert!(stage(&observed, "n1").is_none(), "nobody else is touched");
}

#[test]
fn a_cordon_is_a_wish_and_drain_waits_while_an_exam_runs() {
    let mut observed = fleet(3, 2);
    observed
        .machines
        .get_mut("n2")
        .expect("n2")
        .node
        .as_mut()
        .expect("a node")
        .unschedulable = true;
    for window in [
        Window::Sprint,
        Window::Validation,
        Window::Confirmation,
        Window::UpgradeFreeze,
        Window::Unknown,
    ] {
        chain(&mut observed, window, NEXT - 15_380);
        let turn = turn(&observed, "n2");
        assert_eq!(turn.stage, MaintenanceStage::Waiting, "{window}: {}", turn.message);
    }
    chain(&mut observed, Window::Sprint, NEXT - 15_380);
    let expected = turn(&observed, "n2").expected_ms.expect("a time");
    assert_eq!(expected, NOW + 269 * 5_000, "validation ends 269 blocks later");
    chain(&mut observed, Window::Amber, NEXT - 5_000);
    assert_eq!(
        turn(&observed, "n2").stage,
        MaintenanceStage::Released,
        "a spare carries no weight"
    );
}

#[test]
fn without_spares_only_a_green_window_that_is_long_enough_and_the_budget_let_a_machine_go() {
    let mut observed = fleet(40, 40);
    wish(&mut observed, "n7");
    let amber = turn(&observed, "n7");
    assert_eq!(amber.stage, MaintenanceStage::Waiting);
    assert!(amber.message.contains("no rehearsed spare"), "{}", amber.message);
    assert_eq!(amber.expected_ms, Some(NOW + (5_000 - 901) * 5_000));
    // 30 min of work, 30 min to load, proven 10 min before the Sprint: 840 blocks.
    chain(&mut observed, Window::Green, NEXT - 841);
    assert_eq!(turn(&observed, "n7").stage, MaintenanceStage::Released);
    chain(&mut observed, Window::Green, NEXT - 839);
    assert_eq!(turn(&observed, "n7").stage, MaintenanceStage::Waiting);
    let mut small = fleet(4, 4);
    chain(&mut small, Window::Green, NEXT - 841);
    wish(&mut small, "n1");
    let refused = turn(&small, "n1");
    assert_eq!((refused.stage, refused.expected_ms), (MaintenanceStage::Waiting, None));
    assert!(
        refused
            .message
            .contains("2500 basis points of gonka/ours would be out and 300 may be"),
        "{}",
        refused.message
    );
}

#[test]
fn one_failure_domain_at_a_time_and_the_next_is_told_when() {
    let mut observed = fleet(6, 2);
    for name in ["n3", "n4"] {
        wish(&mut observed, name);
    }
    pass(&mut observed);
    assert_eq!(stage(&observed, "n3"), Some(MaintenanceStage::Released));
    assert_eq!(stage(&observed, "n4"), Some(MaintenanceStage::Waiting));
    let waits = turn(&observed, "n4");
    assert!(waits.message.contains("n3 is out"), "{}", waits.message);
    assert_eq!((waits.expected_ms, waits.position), (Some(NOW + 30 * 60_000), Some(1)));
    for name in ["n3", "n4"] {
        let node = observed
            .machines
            .get_mut(name)
            .and_then(|machine| machine.node.as_mut())
            .expect("a node");
        node.labels.insert("rack".to_owned(), "r1".to_owned());
    }
    assert_eq!(
        turn(&observed, "n4").stage,
        MaintenanceStage::Released,
        "one rack is one domain"
    );
}

#[test]
fn the_least_weight_and_then_the_shortest_work_goes_first() {
    let mut observed = fleet(6, 2);
    for name in ["n0", "n3", "n5"] {
        wish(&mut observed, name);
    }
    let gpu_node = observed
        .machines
        .get_mut("n3")
        .and_then(|machine| machine.gpu_node.as_mut());
    gpu_node.expect("n3").wish.expected_minutes = 60;
    let turns = turns(&observed);
    assert_eq!(turns["n5"].stage, MaintenanceStage::Released);
    assert_eq!((turns["n3"].position, turns["n0"].position), (Some(1), Some(2)));
    assert_eq!(turns["n0"].expected_ms, Some(NOW + 90 * 60_000));
}

#[test]
fn a_machine_that_comes_back_is_trusted_after_its_rehearsal() {
    let mut observed = fleet(3, 2);
    wish(&mut observed, "n2");
    pass(&mut observed);
    let machine = observed.machines.get_mut("n2").expect("n2");
    machine.gpu_node.as_mut().expect("a GpuNode").wish = Maintenance::default();
    machine.node.as_mut().expect("a node").ready = false;
    machine.pods[0].proven = false;
    pass(&mut observed);
    assert_eq!(stage(&observed, "n2"), Some(MaintenanceStage::Returning));
    observed
        .machines
        .get_mut("n2")
        .expect("n2")
        .node
        .as_mut()
        .expect("a node")
        .ready = true;
    pass(&mut observed);
    assert_eq!(stage(&observed, "n2"), Some(MaintenanceStage::Returning));
    observed.machines.get_mut("n2").expect("n2").pods[0].proven = true;
    pass(&mut observed);
    assert_eq!(stage(&observed, "n2"), None);
}

#[test]
fn a_wish_that_was_not_granted_lapses_and_one_that_was_does_not() {
    let mut observed = fleet(3, 2);
    wish(&mut observed, "n0");
    wish(&mut observed, "n2");
    let late = Time(Timestamp::from_millisecond(NOW + 1_000).expect("a time"));
    for name in ["n0", "n2"] {
        let gpu_node = observed
            .machines
            .get_mut(name)
            .and_then(|machine| machine.gpu_node.as_mut());
        gpu_node.expect("a GpuNode").wish.not_after_time = Some(late.clone());
    }
    pass(&mut observed);
    assert_eq!(stage(&observed, "n2"), Some(MaintenanceStage::Released));
    observed.now_ms = NOW + 2_000;
    pass(&mut observed);
    assert_eq!(stage(&observed, "n2"), Some(MaintenanceStage::Released));
    assert_eq!(stage(&observed, "n0"), None);
}

#[test]
fn a_machine_that_carries_nothing_is_free_at_once_and_takes_nobody_s_turn() {
    let mut observed = fleet(4, 2);
    observed.machines.get_mut("n2").expect("n2").pods.clear();
    chain(&mut observed, Window::Sprint, NEXT - 15_380);
    wish(&mut observed, "n2");
    assert_eq!(turn(&observed, "n2").stage, MaintenanceStage::Released);
    chain(&mut observed, Window::Amber, NEXT - 5_000);
    wish(&mut observed, "n3");
    assert_eq!(turn(&observed, "n3").stage, MaintenanceStage::Released);
}

#[test]
fn a_second_pass_writes_nothing() {
    let mut observed = fleet(6, 3);
    for name in ["n0", "n4", "n5"] {
        wish(&mut observed, name);
    }
    pass(&mut observed);
    let again = decide(&observed);
    let statuses = again
        .writes
        .values()
        .flatten()
        .filter(|change| matches!(change, Change::Status(_) | Change::Event(_)));
    assert_eq!(statuses.count(), 0);
}

proptest! {
    /// Whatever people wish and the chain does: nothing new is released in an exam or while the chain is unknown, never more
    /// than one domain is out, and no more weight than may be.
    #[test]
    fn no_history_releases_what_it_should_not(
        slots in 0..8_usize, spares in 0..4_usize,
        steps in proptest::collection::vec((0..12_usize, any::<bool>(), 0..7_u8, 1..15_000_i64), 1..30),
    ) {
        let mut observed = fleet(slots + spares, slots);
        for (index, wished, window, left) in steps {
            let window = [
                Window::Green, Window::Amber, Window::Sprint, Window::Validation, Window::Confirmation,
                Window::UpgradeFreeze, Window::Unknown,
            ][usize::from(window)];
            chain(&mut observed, window, NEXT - left);
            let name = format!("n{}", index % (slots + spares).max(1));
            if let Some(gpu_node) = observed.machines.get_mut(&name).and_then(|machine| machine.gpu_node.as_mut()) {
                gpu_node.wish.state = if wished { MaintenanceState::Requested } else { MaintenanceState::None };
            }
            let before = observed.clone();
            pass(&mut observed);
            let out: Vec<&String> = observed
                .machines
                .keys()
                .filter(|name| stage(&observed, name) == Some(MaintenanceStage::Released))
                .collect();
            let fresh = out.iter().any(|name| stage(&before, name) != Some(MaintenanceStage::Released));
            prop_assert!(!fresh || matches!(window, Window::Green | Window::Amber), "released in {window}");
            prop_assert!(out.len() <= 1, "{out:?}");
            let weight: usize = out.iter().filter(|name| observed.machines[**name].pods[0].slot.is_some()).count();
            prop_assert!(!fresh || weight * 10_000 <= 300 * slots.max(1), "{weight} of {slots} slots are out");
        }
    }
}

/// The spec as somebody edited it so many times.
fn edited(observed: &mut Observed, name: &str, generation: i64) {
    let gpu_node = observed
        .machines
        .get_mut(name)
        .and_then(|machine| machine.gpu_node.as_mut());
    gpu_node.expect("a machine").generation = Some(generation);
}

/// n2, without a slot, is released, and then an exam begins.
fn released_before_an_exam() -> Observed {
    let mut observed = fleet(3, 2);
    wish(&mut observed, "n2");
    edited(&mut observed, "n2", 2);
    pass(&mut observed);
    assert_eq!(stage(&observed, "n2"), Some(MaintenanceStage::Released));
    chain(&mut observed, Window::Sprint, NEXT);
    observed
}

#[test]
fn a_leave_outlives_every_single_edit_of_the_spec() {
    let mut observed = released_before_an_exam();
    for generation in 3..10 {
        edited(&mut observed, "n2", generation);
        let decision = pass(&mut observed);
        assert_eq!(stage(&observed, "n2"), Some(MaintenanceStage::Released), "{decision:?}");
    }
    let writes = decide(&observed).writes;
    let status = |change: &Change| matches!(change, Change::Status(_));
    assert!(!writes.values().flatten().any(status), "what was seen is on record");
}

#[test]
fn a_wish_that_was_withdrawn_and_made_again_between_two_looks_is_asked_for_anew() {
    let mut observed = released_before_an_exam();
    edited(&mut observed, "n2", 4);
    assert_eq!(stage(&observed, "n2"), Some(MaintenanceStage::Waiting));
    observed.now_ms += 5_000;
    pass(&mut observed);
    assert_eq!(stage(&observed, "n2"), Some(MaintenanceStage::Waiting));
    let answer = observed.machines["n2"].answer().expect("an answer").clone();
    assert_eq!(
        answer.requested_time.0.as_millisecond(),
        NOW + 5_000,
        "a new wish queues anew"
    );
    // Nothing stands between it and its release any more.
    chain(&mut observed, Window::Amber, NEXT - 5_000);
    pass(&mut observed);
    assert_eq!(stage(&observed, "n2"), Some(MaintenanceStage::Released));
}

#[test]
fn a_cordon_is_not_withdrawn_by_edits_of_the_gpu_node() {
    let mut observed = released_before_an_exam();
    let node = observed
        .machines
        .get_mut("n2")
        .and_then(|machine| machine.node.as_mut());
    node.expect("a Node").unschedulable = true;
    edited(&mut observed, "n2", 6);
    pass(&mut observed);
    assert_eq!(stage(&observed, "n2"), Some(MaintenanceStage::Released));
}

#[test]
fn a_wish_that_waits_for_a_spare_says_where_none_can_be_made() {
    let mut observed = fleet(2, 2);
    wish(&mut observed, "n0");
    let message = turn(&observed, "n0").message;
    assert!(!message.contains("GPUs left"), "{message}");
    observed.deployments.get_mut(TINY).expect("a deployment").is_full = true;
    let message = turn(&observed, "n0").message;
    assert!(
        message.starts_with(
            "no rehearsed spare elsewhere for slots of gonka/tiny, and no machine that stays has GPUs left for one; \
             released with them: "
        ),
        "{message}"
    );
}
