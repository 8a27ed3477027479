//! People and strangers' programs: machines are asked for, released, rebooted and given back; glass is broken and forgotten.

use virtual_fleet::check::Rule;
use virtual_fleet::fleet::run;
use virtual_fleet::plan::Plan;
use virtual_fleet::story::{Happening, Moment, Protected};
use virtual_fleet::table;

use crate::{EPOCH_MS, FIRST_SPRINT_MS, at, holds, with};

fn maintained(machine: u32, millis: i64) -> Happening {
    Happening::Maintained {
        machine,
        millis,
        minutes: 1,
        lapses: 0,
        preferred: None,
    }
}

#[test]
fn machines_are_emptied_rebooted_and_given_back_one_after_another_and_no_exam_notices() {
    let begins = |place: i64| FIRST_SPRINT_MS + 120_000 + place * 3 * EPOCH_MS;
    let story = (0..4).map(|place| at(begins(place), maintained(place as u32 + 1, 2 * EPOCH_MS)));
    let outcome = holds(&with(3, 14, story.collect()));
    let machines = outcome.machines;
    assert_eq!((machines.released, machines.rebooted), (4, 4), "{machines:?}");
    assert_eq!(machines.given_back, 4, "{machines:?}");
    assert!(machines.evicted >= 4, "{machines:?}");
    for exam in &outcome.exams {
        assert!(exam.permille() >= 970, "{exam:?}");
    }
}

#[test]
fn whoever_wants_a_second_machine_waits_until_the_first_is_back_and_proven() {
    let from = FIRST_SPRINT_MS + 120_000;
    let story = vec![
        at(from, maintained(1, 2 * EPOCH_MS)),
        at(from + 30_000, maintained(2, 6 * EPOCH_MS)),
    ];
    let first_alone = holds(&with(3, 3, story.clone()));
    assert_eq!(first_alone.machines.released, 1, "{:?}", first_alone.machines);
    let outcome = holds(&with(3, 10, story));
    assert_eq!(outcome.machines.rebooted, 2, "{:?}", outcome.machines);
}

#[test]
fn what_was_set_aside_and_forgotten_is_protected_again_whoever_dies_meanwhile() {
    let kinds = [
        Protected::Pod,
        Protected::Service,
        Protected::Node,
        Protected::GpuNode,
        Protected::ModelDeployment,
        Protected::GonkaHost,
        Protected::SprintSchedule,
    ];
    let mut story: Vec<Moment> = kinds
        .into_iter()
        .map(|kind| at(FIRST_SPRINT_MS, Happening::GlassBroken { kind, place: 0 }))
        .collect();
    story.push(at(FIRST_SPRINT_MS + 1, Happening::Rearmed));
    for (writes, after) in [(3, 5_000), (5, 118_000)] {
        let millis = 3_000;
        story.push(at(FIRST_SPRINT_MS + after, Happening::OperatorDies { writes, millis }));
    }
    let outcome = holds(&with(3, 4, story));
    let machines = outcome.machines;
    // Why and until when, of seven glasses and a breaker.
    assert_eq!((machines.set_aside, machines.mended), (8, 16), "{machines:?}");
}

#[test]
fn what_strangers_set_is_there_again_whoever_dies_meanwhile() {
    for writes in 1..=6 {
        let from = FIRST_SPRINT_MS + 120_000;
        let set = |at_ms, switch, value: Option<&str>| {
            let value = value.map(str::to_owned);
            at(
                at_ms,
                Happening::SwitchSet {
                    machine: 1,
                    switch,
                    value,
                },
            )
        };
        let dies = |at_ms| at(at_ms, Happening::OperatorDies { writes, millis: 3_000 });
        let story = vec![
            set(from - 60_000, 1, Some("theirs")),
            dies(from),
            at(from + 10, maintained(1, 2 * EPOCH_MS)),
            set(from + EPOCH_MS, 2, Some("true")),
            set(from + EPOCH_MS, 3, None),
            dies(from + 2 * EPOCH_MS),
        ];
        let outcome = holds(&with(u64::from(writes), 5, story));
        assert!(
            outcome.machines.given_back > 0,
            "after {writes} writes: {:?}",
            outcome.machines
        );
    }
}

#[test]
fn a_host_with_two_models_on_shared_machines_loses_nothing_of_either() {
    let plan = with(3, 5, Vec::new()).with_two_deployments();
    let outcome = run(&plan, true).expect("the plan can be run");
    assert_eq!(outcome.violations, [], "{}", table::shown(&outcome.exams, 20));
    assert!(outcome.looks[0] >= 2, "it was looked at at rest: {:?}", outcome.looks);
    let alone = holds(&with(3, 5, Vec::new()));
    let sprint = |exams: &[table::Row]| {
        let found = exams.iter().find(|exam| exam.kind == "Sprint");
        found.expect("a Sprint").available
    };
    let (both, one) = (sprint(&outcome.exams), sprint(&alone.exams));
    assert!(both * 10 > one * 12, "a fourth slot is examined: {both} and {one}");
}

#[test]
fn a_machine_that_two_deployments_share_is_released_once_both_have_left_it() {
    let begins = |place: i64| FIRST_SPRINT_MS + 120_000 + place * 3 * EPOCH_MS;
    let story: Vec<Moment> = (0..4)
        .map(|place| at(begins(place), maintained(place as u32 + 1, 2 * EPOCH_MS)))
        .collect();
    let outcome = holds(&with(3, 14, story).with_two_deployments());
    // Four pods of one deployment on the three machines that are left: a slot and the only spare are neighbours from then on, and
    // whoever asks for their machine has another spare made elsewhere.
    assert_eq!(outcome.machines.rebooted, 4, "{:?}", outcome.machines);
    for exam in &outcome.exams {
        assert!(exam.permille() >= 970, "{exam:?}");
    }
}

#[test]
fn a_plan_of_one_deployment_reads_as_it_always_did() {
    let text = Plan::devnet(1, 1).write().expect("a plan is YAML");
    assert!(!text.contains("others"), "{text}");
    let two = Plan::devnet(1, 1).with_two_deployments();
    let read = Plan::read(&two.write().expect("a plan is YAML")).expect("a plan");
    assert_eq!(read.fleet, two.fleet);
}

#[test]
fn a_wish_that_nobody_grants_is_told_of() {
    let mut plan = with(3, 5, vec![at(FIRST_SPRINT_MS + 120_000, maintained(1, 4 * EPOCH_MS))]);
    // Without spares a slot's weight would be out, and that is more than may be.
    (plan.fleet.slots, plan.fleet.spares) = (4, 0);
    let outcome = run(&plan, false).expect("the plan can be run");
    let rules: Vec<Rule> = outcome.violations.iter().map(|found| found.rule).collect();
    assert_eq!(rules, [Rule::Wish], "{:?}", outcome.violations);
    assert_eq!(outcome.machines.released, 0);
}
