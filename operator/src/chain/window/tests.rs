//! Windows at every boundary, with mainnet's numbers and with those of a short test network.

use proptest::prelude::*;
use rstest::rstest;

use super::super::heights;
use super::*;
use crate::chain::answers::Event;

pub const P: i64 = 5_536_724;

pub fn mainnet() -> ChainParameters {
    ChainParameters {
        epoch_length: 15_391,
        poc_stage_duration: 35,
        poc_validation_delay: 5,
        poc_validation_duration: 240,
        set_new_validators_delay: 120,
        inference_validation_cutoff: 2,
        confirmation_poc_safety_window: 500,
        upgrade_protection_window: 500,
        ..ChainParameters::default()
    }
}

/// No confirmation fits between the new validators (P+35) and the last trigger (P+25).
fn short() -> ChainParameters {
    ChainParameters {
        epoch_length: 72,
        poc_stage_duration: 12,
        poc_validation_delay: 3,
        poc_validation_duration: 16,
        set_new_validators_delay: 4,
        inference_validation_cutoff: 2,
        confirmation_poc_safety_window: 10,
        upgrade_protection_window: 1,
        ..ChainParameters::default()
    }
}

pub struct World {
    pub parameters: ChainParameters,
    pub start: i64,
    pub pace: Pace,
    pub ready_by_millis: i64,
    pub confirmation: Option<Exam>,
    pub upgrade_height: Option<i64>,
}

impl World {
    pub fn mainnet() -> Self {
        Self {
            parameters: mainnet(),
            start: P,
            pace: Pace {
                block_millis: 5000.0,
                spread_millis: 0.0,
            },
            ready_by_millis: 600_000,
            confirmation: None,
            upgrade_height: None,
        }
    }

    fn short() -> Self {
        Self {
            parameters: short(),
            start: 61,
            pace: Pace {
                block_millis: 1000.0,
                spread_millis: 0.0,
            },
            ready_by_millis: 10_000,
            confirmation: None,
            upgrade_height: None,
        }
    }

    pub fn with_confirmation(mut self, trigger: i64) -> Self {
        let event = Event {
            trigger_height: trigger,
            generation_start_height: trigger + self.parameters.inference_validation_cutoff,
            ..Event::default()
        };
        self.confirmation = Some(heights::confirmation(&event, &self.parameters));
        self
    }

    fn at(&self, height: i64) -> Clearance {
        self.known_at(height, Some(height))
    }

    fn known_at(&self, height: i64, confirmation_known_at: Option<i64>) -> Clearance {
        let stages = heights::stages(self.start, &self.parameters);
        clearance(Some(&Inputs {
            height,
            stages: &stages,
            parameters: &self.parameters,
            confirmation: self.confirmation.as_ref(),
            confirmation_known_at,
            upgrade_height: self.upgrade_height,
            pace: self.pace,
            ready_by_millis: self.ready_by_millis,
        }))
    }
}

fn green(until: i64) -> Clearance {
    Clearance {
        window: Window::Green,
        green_until_height: Some(until),
        next_green_height: None,
    }
}

fn other(window: Window, next_green: i64) -> Clearance {
    Clearance {
        window,
        green_until_height: None,
        next_green_height: Some(next_green),
    }
}

/// Green before the Sprint begins 901 blocks before it and ends 120 blocks (10 minutes) before it.
#[rstest]
#[case(0, other(Window::Sprint, P + 280))]
#[case(34, other(Window::Sprint, P + 280))]
#[case(35, other(Window::Validation, P + 280))]
#[case(39, other(Window::Validation, P + 280))]
#[case(40, other(Window::Validation, P + 280))]
#[case(279, other(Window::Validation, P + 280))]
#[case(280, green(P + 399))]
#[case(399, green(P + 399))]
#[case(400, other(Window::Amber, P + 15_391 - 901))]
#[case(15_391 - 902, other(Window::Amber, P + 15_391 - 901))]
#[case(15_391 - 901, green(P + 15_391 - 120))]
#[case(15_391 - 120, green(P + 15_391 - 120))]
#[case(15_391 - 119, other(Window::Amber, P + 15_391 + 280))]
#[case(15_391 - 1, other(Window::Amber, P + 15_391 + 280))]
fn mainnet_boundaries(#[case] after_start: i64, #[case] expected: Clearance) {
    assert_eq!(World::mainnet().at(P + after_start), expected);
}

/// Sprint 61–72, validation 73–91, one Green from 92 to ten blocks before 133.
#[rstest]
#[case(61, other(Window::Sprint, 92))]
#[case(72, other(Window::Sprint, 92))]
#[case(73, other(Window::Validation, 92))]
#[case(91, other(Window::Validation, 92))]
#[case(92, green(123))]
#[case(96, green(123))]
#[case(123, green(123))]
#[case(124, other(Window::Amber, 164))]
#[case(132, other(Window::Amber, 164))]
fn short_network_boundaries(#[case] height: i64, #[case] expected: Clearance) {
    assert_eq!(World::short().at(height), expected);
}

#[rstest]
#[case(P - 1)]
#[case(P + 15_391)]
fn heights_of_another_epoch_are_unknown(#[case] height: i64) {
    assert_eq!(World::mainnet().at(height), Clearance::default());
}

/// Announced at P+5000, cleared 401 blocks later.
#[rstest]
#[case(P + 5000, Window::Confirmation)]
#[case(P + 5400, Window::Confirmation)]
fn a_confirmation_lasts_until_it_is_cleared(#[case] height: i64, #[case] window: Window) {
    let world = World::mainnet().with_confirmation(P + 5000);
    assert_eq!(world.at(height), other(window, P + 15_391 - 901));
}

#[test]
fn the_last_possible_confirmation_delays_green_until_it_is_cleared() {
    let trigger = P + 15_391 - 902;
    let world = World::mainnet().with_confirmation(trigger);
    let clear = trigger + 2 + 34 + 5 + 240 + 120;
    assert_eq!(world.at(trigger + 300), other(Window::Confirmation, clear));
}

#[rstest]
#[case(-501, Window::Amber)]
#[case(-500, Window::UpgradeFreeze)]
#[case(0, Window::UpgradeFreeze)]
#[case(500, Window::UpgradeFreeze)]
#[case(501, Window::Amber)]
fn an_upgrade_freezes_500_blocks_on_each_side(#[case] from_upgrade: i64, #[case] window: Window) {
    let mut world = World::mainnet();
    world.upgrade_height = Some(P + 6000);
    assert_eq!(world.at(P + 6000 + from_upgrade).window, window);
}

#[test]
fn green_ends_before_an_upgrade_freezes_and_begins_again_after_it() {
    let mut world = World::mainnet();
    let upgrade = P + 15_391 - 700;
    world.parameters.upgrade_protection_window = 50;
    world.upgrade_height = Some(upgrade);
    assert_eq!(world.at(P + 15_391 - 901), green(upgrade - 51));
    assert_eq!(world.at(upgrade), other(Window::UpgradeFreeze, upgrade + 51));
    assert_eq!(world.at(upgrade + 51), green(P + 15_391 - 120));
}

#[rstest]
#[case(P + 300, None)]
#[case(P + 5000, None)]
#[case(P + 5000, Some(P + 4989))]
#[case(P + 15_391 - 901, Some(P + 15_391 - 903))]
fn without_recent_word_of_confirmations_nothing_is_permitted(#[case] height: i64, #[case] known_at: Option<i64>) {
    assert_eq!(World::mainnet().known_at(height, known_at), Clearance::default());
}

#[rstest]
#[case(P + 5, Window::Sprint)]
#[case(P + 100, Window::Validation)]
fn a_sprint_needs_no_word_of_confirmations(#[case] height: i64, #[case] window: Window) {
    assert_eq!(World::mainnet().known_at(height, None).window, window);
}

#[test]
fn without_a_pace_there_is_no_green_before_a_sprint() {
    let mut world = World::mainnet();
    world.pace = Pace::default();
    assert_eq!(world.at(P + 15_391 - 500).window, Window::Amber);
    assert_eq!(world.at(P + 300), green(P + 399));
}

#[test]
fn without_inputs_the_window_is_unknown() {
    assert_eq!(clearance(None), Clearance::default());
}

pub fn any_parameters() -> impl Strategy<Value = ChainParameters> {
    (
        1..60_i64,
        0..5_i64,
        0..10_i64,
        0..300_i64,
        0..200_i64,
        0..4_i64,
        0..600_i64,
        1..20_000_i64,
    )
        .prop_map(
            |(stage, exchange, delay, validation, settle, cutoff, safety, rest)| ChainParameters {
                epoch_length: stage + exchange + delay + validation + settle + rest,
                poc_stage_duration: stage,
                poc_exchange_duration: exchange,
                poc_validation_delay: delay,
                poc_validation_duration: validation,
                set_new_validators_delay: settle,
                inference_validation_cutoff: cutoff,
                confirmation_poc_safety_window: safety,
                upgrade_protection_window: 500,
                ..ChainParameters::default()
            },
        )
}

proptest! {
    /// The chain may announce a confirmation in the trigger range and a Sprint at its start; never while we say Green.
    #[test]
    fn no_exam_can_be_announced_before_green_ends(
        parameters in any_parameters(), offset in 0..21_000_i64, block_millis in 100.0..10_000.0_f64,
        spread in 0.0..1000.0_f64, ready_by in 0..3_600_000_i64,
    ) {
        let height = P + offset % parameters.epoch_length;
        let stages = heights::stages(P, &parameters);
        let (first, last) = heights::confirmation_triggers(&stages, &parameters);
        let world = World {
            parameters, start: P, pace: Pace { block_millis, spread_millis: spread },
            ready_by_millis: ready_by, confirmation: None, upgrade_height: None,
        };
        let clearance = world.at(height);
        if let Some(until) = clearance.green_until_height {
            prop_assert_eq!(clearance.window, Window::Green);
            prop_assert!(until >= height);
            // A safety window that fills the epoch leaves no block for a confirmation.
            let none = first > last;
            prop_assert!(none || until < first || height > last, "{}..={} meets triggers {}..={}", height, until, first, last);
            prop_assert!(until < stages.next_poc_start_height);
            prop_assert!(height >= stages.validation_end_height);
        } else {
            prop_assert!(clearance.window != Window::Green);
        }
        if let Some(next) = clearance.next_green_height {
            prop_assert!(next > height);
        }
    }

    /// What is promised as the next Green is Green when it comes, unless something new happens.
    #[test]
    fn the_promised_green_comes(parameters in any_parameters(), offset in 0..21_000_i64) {
        let height = P + offset % parameters.epoch_length;
        let world = World { parameters, ..World::mainnet() };
        if let Some(next) = world.at(height).next_green_height && next < P + world.parameters.epoch_length {
            prop_assert_eq!(world.at(next).window, Window::Green);
            prop_assert!(world.at(next - 1).window != Window::Green);
        }
    }
}
