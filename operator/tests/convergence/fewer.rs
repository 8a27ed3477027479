//! Slots that are not wanted any more: kept while an exam may ask for them, given up once, and not taken up again.

use crds::references::Window;
use operator::model_deployment::decide;

use crate::fleet::{Fleet, NEXT_SPRINT};
use crate::rollouts::settled;
use crate::{checked_pass, holders};

/// Slots that a pod holds after some passes in a window.
fn held(fleet: &mut Fleet, window: Window) -> usize {
    fleet.facts.window = window;
    fleet.facts.green_until_height = (window == Window::Green).then_some(NEXT_SPRINT - 1_000);
    for _ in 0..20 {
        checked_pass(fleet);
    }
    holders(&fleet.observe()).len()
}

#[test]
fn they_are_given_up_when_no_exam_can_ask_for_them_and_stay_so() {
    let mut fleet = settled(4, 1, 5);
    fleet.deployment.spec.slots = 2;
    assert_eq!(held(&mut fleet, Window::Amber), 4, "a confirmation may ask for them");
    assert_eq!(fleet.pods.len(), 5, "whoever holds them has a spare");
    assert_eq!(held(&mut fleet, Window::Green), 2);
    assert_eq!(fleet.pods.len(), 3);
    for window in [Window::Amber, Window::Unknown, Window::Green] {
        assert_eq!(
            held(&mut fleet, window),
            2,
            "a spare takes nothing up again in {window}"
        );
    }
    fleet.deployment.spec.slots = 3;
    assert_eq!(held(&mut fleet, Window::Amber), 3, "until it is wanted again");
}

#[test]
fn one_whose_pod_is_lost_meanwhile_moves_to_the_spare() {
    let mut fleet = settled(3, 1, 4);
    fleet.deployment.spec.slots = 2;
    let observed = fleet.observe();
    let slice = &observed.slices["slot-tiny-2"];
    let holder = decide::assignment(slice).holder.expect("a holder");
    fleet.remove_pod(&holder.name);
    assert_eq!(held(&mut fleet, Window::Amber), 3);
    assert_eq!(held(&mut fleet, Window::Green), 2);
}
