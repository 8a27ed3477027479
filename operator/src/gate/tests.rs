//! The gate's answers by table, and what must hold for all of them.

use crds::sprint_schedule::{ChainParameters, StageHeights, UpgradePlan};
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::facts::{Exam, Pace};

const NOW: i64 = 1_000_000_000;
const NEXT: i64 = 20_000;

/// Mainnet's numbers, 5-second blocks, well before the Sprint at 20,000.
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
        parameters: Some(ChainParameters {
            poc_validation_duration: 240,
            set_new_validators_delay: 120,
            upgrade_protection_window: 500,
            ..ChainParameters::default()
        }),
        green_until_height: (window == Window::Green).then_some(height + 50),
        next_green_height: (window == Window::Amber).then_some(19_099),
        ..Facts::default()
    }
}

fn host() -> HostState {
    HostState {
        max_weight_basis_points: 300,
        drain_millis: 120_000,
        ready_by_millis: 600_000,
        ..HostState::default()
    }
}

fn action(kind: ActionKind) -> Action {
    Action {
        kind,
        weight_basis_points: 200,
        lead_millis: 300_000,
    }
}

fn reason(verdict: Verdict) -> Option<GateReason> {
    match verdict {
        Verdict::Allow { .. } => None,
        Verdict::Wait { reason, .. } | Verdict::Deny { reason } => Some(reason),
    }
}

#[rstest]
#[case(Window::Green, None, None)]
#[case(Window::Amber, Some(GateReason::NotGreen), None)]
#[case(Window::Sprint, Some(GateReason::ExamActive), Some(GateReason::ExamActive))]
#[case(Window::Validation, Some(GateReason::ExamActive), Some(GateReason::ExamActive))]
#[case(Window::Confirmation, Some(GateReason::ExamActive), Some(GateReason::ExamActive))]
#[case(Window::Challenge, Some(GateReason::ExamActive), Some(GateReason::ExamActive))]
#[case(
    Window::UpgradeFreeze,
    Some(GateReason::UpgradeFreeze),
    Some(GateReason::UpgradeFreeze)
)]
#[case(Window::Unknown, Some(GateReason::ChainUnknown), Some(GateReason::ChainUnknown))]
fn each_window_answers_each_kind_of_act(
    #[case] window: Window,
    #[case] release: Option<GateReason>,
    #[case] others: Option<GateReason>,
) {
    let facts = facts(window, 10_000);
    assert_eq!(
        reason(verdict(&facts, &host(), &action(ActionKind::Release), NOW)),
        release
    );
    for kind in [ActionKind::Rollout, ActionKind::Spare, ActionKind::Rehearsal] {
        assert_eq!(reason(verdict(&facts, &host(), &action(kind), NOW)), others, "{kind}");
    }
    assert_eq!(
        reason(verdict(&facts, &host(), &action(ActionKind::Takeover), NOW)),
        None
    );
}

#[rstest]
#[case(Window::Green, 0, None)]
#[case(Window::Green, -1, Some(GateReason::WeightExpected))]
#[case(Window::Amber, 0, Some(GateReason::WeightExpected))]
#[case(Window::Sprint, 0, Some(GateReason::ExamActive))]
#[case(Window::Validation, 0, Some(GateReason::ExamActive))]
#[case(Window::Confirmation, 0, Some(GateReason::ExamActive))]
#[case(Window::UpgradeFreeze, 0, Some(GateReason::UpgradeFreeze))]
#[case(Window::Unknown, 0, Some(GateReason::ChainUnknown))]
fn a_slot_is_given_up_when_no_confirmation_can_ask_for_it_before_the_next_sprint(
    #[case] window: Window,
    #[case] blocks_after_new_validators: i64,
    #[case] expected: Option<GateReason>,
) {
    let mut facts = facts(window, 10_000);
    let heights = facts.heights.as_mut().expect("heights");
    heights.set_new_validators_height = facts.height - blocks_after_new_validators;
    let answer = verdict(&facts, &host(), &action(ActionKind::Retire), NOW);
    assert_eq!(reason(answer), expected);
}

/// Margins in blocks: frozen from 24 before the Sprint, a rollout of 5 minutes from 84, a release from 180.
#[rstest]
#[case(ActionKind::Rollout, NEXT - 84, None)]
#[case(ActionKind::Rollout, NEXT - 83, Some(GateReason::LeadTimeTooShort))]
#[case(ActionKind::Rollout, NEXT - 24, Some(GateReason::LeadTimeTooShort))]
#[case(ActionKind::Rollout, NEXT - 23, Some(GateReason::FrozenBeforeSprint))]
#[case(ActionKind::Release, NEXT - 180, None)]
#[case(ActionKind::Release, NEXT - 179, Some(GateReason::LeadTimeTooShort))]
fn time_to_the_sprint_decides(#[case] kind: ActionKind, #[case] height: i64, #[case] expected: Option<GateReason>) {
    let facts = facts(Window::Green, height);
    assert_eq!(reason(verdict(&facts, &host(), &action(kind), NOW)), expected);
}

#[test]
fn a_release_beyond_the_budget_waits() {
    let facts = facts(Window::Green, 10_000);
    let mut host = host();
    host.released_basis_points = 101;
    let answer = verdict(&facts, &host, &action(ActionKind::Release), NOW);
    assert_eq!(reason(answer), Some(GateReason::BudgetExceeded));
}

#[test]
fn a_release_in_green_holds_until_green_ends() {
    let facts = facts(Window::Green, 10_000);
    let answer = verdict(&facts, &host(), &action(ActionKind::Release), NOW);
    assert_eq!(
        answer,
        Verdict::Allow {
            budget_basis_points: 300,
            until_height: 10_050
        }
    );
}

#[test]
fn an_owner_may_allow_releases_in_amber() {
    let facts = facts(Window::Amber, 10_000);
    let mut host = host();
    host.allow_in_amber = true;
    assert_eq!(reason(verdict(&facts, &host, &action(ActionKind::Release), NOW)), None);
}

#[test]
fn a_tripped_breaker_denies_everything() {
    let facts = facts(Window::Green, 10_000);
    let mut host = host();
    host.breaker_tripped = true;
    for kind in [ActionKind::Takeover, ActionKind::Spare, ActionKind::Release] {
        assert_eq!(
            verdict(&facts, &host, &action(kind), NOW),
            Verdict::Deny {
                reason: GateReason::BreakerTripped
            }
        );
    }
}

#[test]
fn waits_name_the_height_at_which_to_ask_again() {
    let mut upgrade = facts(Window::UpgradeFreeze, 10_000);
    upgrade.upgrade = Some(UpgradePlan {
        name: "v0.2.17".into(),
        height: 10_400,
    });
    let mut confirmation = facts(Window::Confirmation, 10_000);
    confirmation.exam = Some(Exam {
        kind: ExamKind::Confirmation,
        validation_start_height: 10_039,
        ..Exam::default()
    });
    let until = |facts: &Facts| match verdict(facts, &host(), &action(ActionKind::Release), NOW) {
        Verdict::Wait { until_height, .. } => until_height,
        Verdict::Allow { .. } | Verdict::Deny { .. } => None,
    };
    assert_eq!(until(&upgrade), Some(10_901));
    assert_eq!(until(&confirmation), Some(10_399));
    assert_eq!(until(&facts(Window::Amber, 10_000)), Some(19_099));
    assert_eq!(until(&facts(Window::Validation, NEXT - 15_300)), Some(NEXT - 15_111));
}

#[test]
fn facts_that_outlived_their_reader_permit_nothing() {
    let facts = facts(Window::Green, 10_000);
    let answer = verdict(&facts, &host(), &action(ActionKind::Spare), NOW + 60_000);
    assert_eq!(reason(answer), Some(GateReason::ChainUnknown));
}

fn any_kind() -> impl Strategy<Value = ActionKind> {
    prop_oneof![
        Just(ActionKind::Takeover),
        Just(ActionKind::Rollout),
        Just(ActionKind::Spare),
        Just(ActionKind::Rehearsal),
        Just(ActionKind::Release),
    ]
}

fn any_host() -> impl Strategy<Value = HostState> {
    (
        any::<bool>(),
        any::<bool>(),
        any::<i32>(),
        any::<i32>(),
        any::<i32>(),
        any::<i32>(),
    )
        .prop_map(|(challenged, amber, most, shortfall, unhealthy, released)| HostState {
            challenged,
            allow_in_amber: amber,
            max_weight_basis_points: most,
            natural_shortfall_basis_points: shortfall,
            unhealthy_basis_points: unhealthy,
            released_basis_points: released,
            drain_millis: 120_000,
            ready_by_millis: 600_000,
            ..HostState::default()
        })
}

proptest! {
    #[test]
    fn unknown_allows_nothing_but_a_takeover(
        kind in any_kind(), host in any_host(), height in 0..40_000_i64, lead in any::<i64>(), weight in any::<i32>(),
    ) {
        let action = Action { kind, weight_basis_points: weight, lead_millis: lead };
        let allowed = matches!(verdict(&facts(Window::Unknown, height), &host, &action, NOW), Verdict::Allow { .. });
        prop_assert_eq!(allowed, kind == ActionKind::Takeover);
    }

    #[test]
    fn the_budget_never_exceeds_what_a_confirmation_forgives(host in any_host()) {
        let margin = i64::from(CONFIRMATION_MARGIN_BASIS_POINTS)
            - i64::from(host.natural_shortfall_basis_points.max(0))
            - i64::from(host.unhealthy_basis_points.max(0));
        prop_assert!(i64::from(budget(&host)) <= margin.max(0));
        prop_assert!(budget(&host) >= 0);
    }

    #[test]
    fn a_release_outside_green_needs_the_owners_word(host in any_host(), height in 5_000..19_000_i64) {
        let action = Action { kind: ActionKind::Release, weight_basis_points: 0, lead_millis: 0 };
        let allowed = matches!(verdict(&facts(Window::Amber, height), &host, &action, NOW), Verdict::Allow { .. });
        prop_assert!(!allowed || host.allow_in_amber);
    }
}
