//! The calendar says of every height what the window will say when it comes.

use proptest::prelude::*;

use super::super::tests::{P, World, any_parameters, mainnet};
use super::super::{Inputs, clearance};
use super::*;
use crate::chain::heights::stages;
use crate::facts::Pace;

fn inputs_at<'a>(world: &'a World, stages: &'a StageHeights, height: i64) -> Inputs<'a> {
    Inputs {
        height,
        stages,
        parameters: &world.parameters,
        confirmation: world.confirmation.as_ref(),
        confirmation_known_at: Some(height),
        upgrade_height: world.upgrade_height,
        pace: world.pace,
        ready_by_millis: world.ready_by_millis,
    }
}

fn of(world: &World, height: i64, until: i64) -> Vec<Interval> {
    calendar(
        &inputs_at(world, &stages(world.start, &world.parameters), height),
        &[],
        until,
        1_000,
    )
}

#[test]
fn a_day_of_the_main_network_has_one_sprint_and_two_green_windows() {
    let world = World::mainnet();
    let day = of(&world, P, P + 15_390);
    let named: Vec<(Window, i64, i64)> = day
        .iter()
        .map(|interval| (interval.window, interval.from_height - P, interval.until_height - P))
        .collect();
    assert_eq!(
        named,
        [
            (Window::Sprint, 0, 34),
            (Window::Validation, 35, 279),
            (Window::Green, 280, 399),
            (Window::Amber, 400, 14_489),
            (Window::Green, 14_490, 15_271),
            (Window::Amber, 15_272, 15_390),
        ]
    );
}

#[test]
fn a_week_drifts_by_the_epoch_s_length_and_an_upgrade_takes_its_heights() {
    let mut world = World::mainnet();
    world.upgrade_height = Some(P + 3 * 15_391 + 1_000);
    let week = of(&world, P + 5_000, P + 120_000);
    let sprints: Vec<i64> = week
        .iter()
        .filter(|interval| interval.window == Window::Sprint)
        .map(|interval| interval.from_height - P)
        .collect();
    assert_eq!(sprints, (1..8).map(|epoch| epoch * 15_391).collect::<Vec<_>>());
    let freeze = week
        .iter()
        .find(|interval| interval.window == Window::UpgradeFreeze)
        .expect("a freeze");
    let at = P + 3 * 15_391 + 1_000;
    assert_eq!((freeze.from_height, freeze.until_height), (at - 500, at + 500));
    assert_eq!(week[0].window, Window::Amber, "it begins with the window at hand");
}

#[test]
fn an_upgrade_that_is_voted_on_takes_nothing_from_an_exam_and_says_what_it_hangs_on() {
    let mut world = World::mainnet();
    world.upgrade_height = Some(P + 3_000);
    let vote = |proposal, height| Vote {
        proposal,
        height,
        ..Vote::default()
    };
    let stages = stages(P, &world.parameters);
    let inputs = inputs_at(&world, &stages, P);
    // The first overlaps the plan, the second the next Sprint.
    let votes = [vote(7, P + 3_600), vote(8, P + 15_391)];
    let day = calendar(&inputs, &votes, P + 16_500, 100);
    let frozen: Vec<(Option<i64>, i64, i64)> = day
        .iter()
        .filter(|interval| interval.window == Window::UpgradeFreeze)
        .map(|interval| (interval.if_passed, interval.from_height - P, interval.until_height - P))
        .collect();
    assert_eq!(
        frozen,
        [
            (None, 2_500, 3_500),
            (Some(7), 3_501, 4_100),
            (Some(8), 14_891, 15_390),
            (Some(8), 15_671, 15_891),
        ]
    );
    let certain = calendar(&inputs, &[], P + 16_500, 100);
    let exams = |all: &[Interval]| -> Vec<Interval> {
        let exam = |interval: &&Interval| matches!(interval.window, Window::Sprint | Window::Validation);
        all.iter().filter(exam).copied().collect()
    };
    assert_eq!(exams(&day), exams(&certain));
    assert!(
        day.is_sorted_by(|one, next| one.until_height + 1 == next.from_height),
        "{day:?}"
    );
}

#[test]
fn without_a_length_of_epochs_there_is_no_calendar_and_it_is_never_longer_than_asked() {
    let mut world = World::mainnet();
    world.parameters.epoch_length = 0;
    assert!(of(&world, P, P + 100).is_empty());
    let world = World::mainnet();
    let all = stages(P, &mainnet());
    assert_eq!(calendar(&inputs_at(&world, &all, P), &[], i64::MAX, 40).len(), 40);
}

proptest! {
    #[test]
    fn every_height_has_the_window_that_will_be_there(
        parameters in any_parameters(), offset in 0..21_000_i64, later in 0..21_000_i64,
        block_millis in 100.0..10_000.0_f64, ready_by in 0..3_600_000_i64,
        upgrade in proptest::option::of(0..30_000_i64), confirmed in any::<bool>(),
    ) {
        let length = parameters.epoch_length;
        let height = P + offset % length;
        let mut world = World {
            parameters, start: P, pace: Pace { block_millis, spread_millis: 0.0 }, ready_by_millis: ready_by,
            confirmation: None, upgrade_height: upgrade.map(|height| P + height),
        };
        let (first, last) = heights::confirmation_triggers(&stages(P, &world.parameters), &world.parameters);
        if confirmed && first <= last {
            world = world.with_confirmation(first);
        }
        let intervals = of(&world, height, P + 3 * length);
        for pair in intervals.windows(2) {
            prop_assert_eq!(pair[0].until_height + 1, pair[1].from_height, "without gaps");
            prop_assert!(pair[0].window != pair[1].window, "neighbours differ");
        }
        let at = height + later % (2 * length);
        let epoch_start = P + (at - P) / length * length;
        let its_stages = stages(epoch_start, &world.parameters);
        let cleared = world.confirmation.as_ref().map_or(i64::MIN, |exam| confirmation_clear(exam, &world.parameters));
        if at >= cleared {
            world.confirmation = None;
        }
        let there = intervals.iter().find(|interval| (interval.from_height..=interval.until_height).contains(&at));
        let before_trigger = world.confirmation.as_ref().is_some_and(|exam| at < exam.trigger_height);
        if !before_trigger {
            let expected = clearance(Some(&inputs_at(&world, &its_stages, at))).window;
            prop_assert_eq!(there.map(|interval| interval.window), Some(expected), "at P+{}", at - P);
        }
    }
}
