//! Whole runs: the same plan gives the same history, what must hold holds through stories of every kind, and a story that breaks
//! something is reduced to what breaks it.

#[path = "stories/people.rs"]
mod people;

use std::io::Write as _;
use std::time::Instant;

use network_simulator::scenario::verb::{Arguments, Verb};
use virtual_fleet::check::Rule;
use virtual_fleet::fleet::{Outcome, run};
use virtual_fleet::minimise::minimise;
use virtual_fleet::plan::Plan;
use virtual_fleet::story::{Field, Happening, Moment, Weather, WriteFault, draw};
use virtual_fleet::table;

/// Milliseconds of one epoch of the short network.
const EPOCH_MS: i64 = 250_000;
/// The first Sprint begins here.
const FIRST_SPRINT_MS: i64 = 150_000;

fn with(seed: u64, epochs: u64, story: Vec<Moment>) -> Plan {
    Plan {
        story,
        ..Plan::devnet(seed, epochs)
    }
}

fn at(at: i64, what: Happening) -> Moment {
    Moment { at, what }
}

fn outcome(plan: &Plan) -> Outcome {
    run(plan, false).expect("the plan can be run")
}

/// Every other story is of a host with two models.
fn drawn(seed: u64, epochs: u64, moments: usize) -> Plan {
    let plan = with(seed, epochs, Vec::new());
    let mut plan = if seed.is_multiple_of(2) {
        plan
    } else {
        plan.with_two_deployments()
    };
    let until_ms = EPOCH_MS * i64::try_from(epochs).expect("few epochs");
    plan.story = draw(seed, &Weather::over(&plan.fleet, 60_000, until_ms, moments));
    plan
}

fn holds(plan: &Plan) -> Outcome {
    let outcome = outcome(plan);
    assert!(
        outcome.violations.is_empty(),
        "{:#?}\n{}\n{}",
        outcome.violations,
        outcome.newest.join("\n"),
        plan.write().expect("a plan is YAML")
    );
    outcome
}

#[test]
fn the_same_plan_gives_the_same_history_to_the_byte_and_another_seed_another() {
    let plan = drawn(11, 4, 20);
    let (first, second) = (outcome(&plan), outcome(&plan));
    assert_eq!(
        (first.digest.as_str(), first.lines),
        (second.digest.as_str(), second.lines)
    );
    assert_eq!(first.exams, second.exams);
    let read = Plan::read(&plan.write().expect("YAML")).expect("a plan");
    assert_eq!(
        outcome(&read).digest,
        first.digest,
        "a plan that was written down replays"
    );
    let other = Plan { seed: 12, ..plan };
    assert_ne!(outcome(&other).digest, first.digest);
}

#[test]
fn a_fleet_that_nothing_disturbs_loses_nothing_and_is_not_written_to() {
    let plan = with(3, 6, Vec::new());
    let outcome = run(&plan, true).expect("the plan can be run");
    assert_eq!(outcome.violations, [], "{}", table::shown(&outcome.exams, 20));
    assert!(outcome.looks[0] >= 3, "it was looked at at rest: {:?}", outcome.looks);
    assert!(outcome.looks[2] >= 4, "records were looked for: {:?}", outcome.looks);
    assert!(outcome.exams.iter().all(|exam| exam.available > 0));
    let kinds: std::collections::BTreeSet<&str> = outcome.exams.iter().map(|exam| exam.kind.as_str()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["Confirmation", "Sprint"]);
}

#[test]
fn a_machine_that_is_lost_as_a_sprint_begins_costs_seconds_and_not_the_sprint() {
    let mut lost_weight = 0;
    for machine in 1..=4 {
        let lost = Happening::NodeLost {
            machine,
            millis: 600_000,
        };
        let outcome = holds(&with(3, 2, vec![at(FIRST_SPRINT_MS + 500, lost)]));
        let first = &outcome.exams[0];
        assert_eq!(first.during, [format!("n{machine} lost")]);
        // One of three slots is silent for ten seconds of forty, and its last callback was not sent.
        if (800..=970).contains(&first.permille()) {
            lost_weight += 1;
        } else {
            assert!(first.permille() >= 980, "{first:?}");
        }
    }
    assert_eq!(lost_weight, 3, "the fourth machine had the spare");
}

#[test]
fn an_exam_that_nothing_disturbs_falls_short_of_the_fastest_machines_alone() {
    // Which of a deployment's machines carries the spare nobody chooses by its speed.
    let mut plan = drawn(3, 12, 8);
    plan.fleet.noise_permille = 0;
    let outcome = holds(&plan);
    let undisturbed: Vec<_> = outcome.exams.iter().filter(|exam| exam.during.is_empty()).collect();
    assert!(undisturbed.len() >= 5, "{}", table::shown(&outcome.exams, 20));
    let worst = undisturbed.iter().map(|exam| exam.permille()).min();
    assert!(worst >= Some(990), "{}", table::shown(&outcome.exams, 20));
}

/// When the first confirmation of a plan generates, from a run that nothing disturbs.
fn first_confirmation_ms(plan: &Plan) -> i64 {
    let quiet = outcome(plan);
    let exam = quiet.exams.iter().find(|exam| exam.kind == "Confirmation");
    // A block after its trigger, and blocks begin with the first.
    (exam.expect("a confirmation").height + 1) * 5_000
}

#[test]
fn a_slot_that_moves_in_a_confirmation_goes_on_with_its_round() {
    let quiet = with(3, 3, Vec::new());
    let begins = first_confirmation_ms(&quiet);
    for pod in 0..4 {
        let deleted = at(begins + 12_000, Happening::PodDeleted { pod });
        let outcome = holds(&with(3, 3, vec![deleted]));
        let exam = outcome
            .exams
            .iter()
            .find(|exam| exam.kind == "Confirmation")
            .expect("a confirmation");
        assert!(exam.permille() >= 950, "pod {pod}: {exam:?}");
    }
}

#[test]
fn a_pod_that_falls_silent_in_a_confirmation_is_not_waited_for() {
    let quiet = with(3, 3, Vec::new());
    let begins = first_confirmation_ms(&quiet);
    for machine in 1..=4 {
        let cut = Happening::NodeCut {
            machine,
            millis: 300_000,
        };
        let outcome = holds(&with(3, 3, vec![at(begins + 2_000, cut)]));
        let exam = outcome
            .exams
            .iter()
            .find(|exam| exam.kind == "Confirmation")
            .expect("a confirmation");
        assert!(exam.permille() >= 850, "machine {machine}: {exam:?}");
    }
}

#[test]
fn a_slot_whose_pod_is_lost_in_a_confirmation_and_moves_after_it_is_there_for_the_sprint() {
    let quiet = with(3, 5, Vec::new());
    let begins = first_confirmation_ms(&quiet);
    for machine in 1..=4 {
        let lost = Happening::NodeLost {
            machine,
            millis: 100_000,
        };
        // Too late in the exam to be replaced in it: the node controller tells of it when the exam is over.
        let outcome = holds(&with(3, 5, vec![at(begins + 38_500, lost)]));
        for exam in outcome.exams.iter().filter(|exam| exam.kind == "Sprint") {
            assert!(exam.permille() >= 970, "machine {machine}: {exam:?}");
        }
    }
}

#[test]
fn the_operator_may_die_after_any_write_at_any_time() {
    for writes in (1..=40).step_by(3) {
        let dies = |at_ms| at(at_ms, Happening::OperatorDies { writes, millis: 4_000 });
        let story = vec![dies(5), dies(FIRST_SPRINT_MS - 20_000)];
        let outcome = holds(&with(u64::from(writes), 3, story));
        let sprint = outcome
            .exams
            .iter()
            .find(|exam| exam.kind == "Sprint")
            .expect("a Sprint");
        assert!(sprint.permille() >= 950, "after {writes} writes: {sprint:?}");
    }
}

#[test]
fn an_api_server_that_is_away_for_a_whole_sprint_costs_nothing_and_the_record_is_made_later() {
    let away = Happening::ApiOutage { millis: 90_000 };
    let outcome = holds(&with(5, 4, vec![at(FIRST_SPRINT_MS - 20_000, away)]));
    assert!(outcome.exams[0].permille() >= 980, "{:?}", outcome.exams[0]);
    assert!(outcome.looks[2] > 0, "the Sprint's record was looked for");
}

#[test]
fn one_endpoint_that_forks_lies_or_stands_still_changes_nothing() {
    let network = |verb, target: &str, field: Option<&str>| Happening::Network {
        verb,
        arguments: Arguments {
            target: target.to_owned(),
            lasting: Some("200000ms".to_owned()),
            field: field.map(str::to_owned),
            value: field.map(|_| "77".into()),
            ..Arguments::default()
        },
    };
    for (verb, target, field) in [
        (Verb::Fork, "rpc/2", None),
        (Verb::Stall, "rpc/1", None),
        (Verb::Lie, "rest/3", Some("index")),
        (Verb::Stop, "endpoint/2", None),
    ] {
        let story = vec![at(FIRST_SPRINT_MS - 60_000, network(verb, target, field))];
        let outcome = holds(&with(9, 2, story));
        assert!(
            outcome.exams[0].permille() >= 980,
            "{verb} {target}: {:?}",
            outcome.exams[0]
        );
    }
}

#[test]
fn a_rollout_goes_through_the_spare_and_costs_no_weight() {
    let story = vec![at(
        FIRST_SPRINT_MS + 150_000,
        Happening::Rollout {
            word: "new".to_owned(),
            deployment: 0,
        },
    )];
    let outcome = holds(&with(13, 8, story));
    assert!(
        outcome.looks[1] >= 4,
        "every pod was replaced, by the gate's leave: {:?}",
        outcome.looks
    );
    let sprints = outcome.exams.iter().filter(|exam| exam.kind == "Sprint");
    for exam in sprints {
        assert!(exam.permille() >= 970, "{exam:?}");
    }
}

#[test]
fn a_drain_in_a_sprint_evicts_nothing_and_costs_nothing() {
    let drained = |machine| {
        let what = Happening::Drained {
            machine,
            millis: 90_000,
        };
        at(FIRST_SPRINT_MS - 20_000, what)
    };
    let outcome = holds(&with(7, 2, (1..=4).map(drained).collect()));
    assert!(outcome.looks[3] >= 4, "evictions were refused: {:?}", outcome.looks);
    assert_eq!(outcome.looks[1], 0, "nothing was deleted");
    assert!(outcome.exams[0].permille() >= 980, "{:?}", outcome.exams[0]);
}

#[test]
fn labels_of_a_thousand_machines_that_flap_cost_nothing_and_delete_nothing() {
    let flap = |at_ms| at(at_ms, Happening::LabelsFlap { millis: 700 });
    let mut plan = with(
        7,
        1,
        vec![
            flap(100_000),
            flap(FIRST_SPRINT_MS + 4_000),
            flap(FIRST_SPRINT_MS + 9_000),
        ],
    );
    let few = holds(&plan);
    plan.fleet.machines = 1_000;
    let outcome = holds(&plan);
    assert_eq!(outcome.looks[1], 0, "nothing was deleted");
    assert!(
        outcome.writes <= few.writes + 10,
        "machines without slots are not written to: {} and {}",
        outcome.writes,
        few.writes
    );
    for (controller, passes) in &outcome.passes {
        let among_few = few.passes.get(controller).copied().unwrap_or_default();
        assert!(
            *passes <= among_few + 20,
            "{controller}: {passes} and {among_few} passes"
        );
    }
    assert!(outcome.exams[0].permille() >= 980, "{:?}", outcome.exams[0]);
}

#[test]
fn edits_in_quick_succession_in_a_sprint_and_after_it_cost_no_weight() {
    let edits = [Field::Image, Field::Model, Field::Argument, Field::Image, Field::Model].into_iter();
    let story = edits.enumerate().flat_map(|(place, field)| {
        let value = place as u32 % 3;
        let after = |ms: i64| {
            at(
                ms + 700 * place as i64,
                Happening::Edited {
                    field,
                    value,
                    deployment: 0,
                },
            )
        };
        [after(FIRST_SPRINT_MS + 5_000), after(FIRST_SPRINT_MS + 120_000)]
    });
    let mut story: Vec<Moment> = story.collect();
    story.sort_by_key(|moment| moment.at);
    let outcome = holds(&with(19, 8, story));
    assert!(outcome.looks[1] >= 4, "every pod was replaced: {:?}", outcome.looks);
    for exam in &outcome.exams {
        assert!(exam.permille() >= 970, "{exam:?}");
    }
}

#[test]
fn writes_that_are_lost_refused_or_unanswered_are_made_good() {
    let faults = [WriteFault::Lost, WriteFault::Unanswered, WriteFault::Conflict];
    let story = (0..30)
        .map(|place| {
            let how = faults[place % 3];
            at(place as i64 * 20_000 + 5, Happening::WriteFails { how })
        })
        .collect();
    holds(&with(17, 4, story));
}

#[test]
fn stories_of_every_kind_break_nothing_that_must_hold() {
    let begun = Instant::now();
    let mut epochs = 0;
    for seed in 1..=5 {
        epochs += holds(&drawn(seed, 10, 25)).epochs;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let rate = epochs as f64 / seconds;
    // Shown although the test passes.
    writeln!(
        std::io::stderr(),
        "virtual fleet: {epochs} epochs with stories, {rate:.1} epochs/s unoptimised; the month and the soak: make soak-virtual"
    )
    .expect("standard error is open");
}

#[test]
fn a_story_that_loses_weight_is_reduced_to_the_moment_that_does_it() {
    let mut plan = drawn(23, 2, 6);
    plan.story.retain(|moment| {
        matches!(
            moment.what,
            Happening::WriteFails { .. } | Happening::StaleLists { .. } | Happening::Rollout { .. }
        )
    });
    for machine in [2, 3] {
        let lost = Happening::NodeLost {
            machine,
            millis: 300_000,
        };
        plan.story.push(at(FIRST_SPRINT_MS + 3_000, lost));
    }
    let loses = |story: &[Moment]| {
        let shorter = Plan {
            story: story.to_vec(),
            ..plan.clone()
        };
        let outcome = run(&shorter, true).expect("it can be run");
        outcome.violations.iter().any(|found| found.rule == Rule::Weight)
    };
    assert!(loses(&plan.story));
    let smallest = minimise(&plan.story, loses);
    assert_eq!(smallest.len(), 1, "{smallest:?}");
    assert!(matches!(smallest[0].what, Happening::NodeLost { .. }));
    assert!(loses(&smallest), "what is printed replays");
}
