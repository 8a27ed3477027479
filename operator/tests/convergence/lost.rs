//! What the operator concludes from a pod that it hears no more.

use crds::references::Window;
use operator::model_deployment::decide::{self, Step};
use operator::model_deployment::observed::{Round, Start};

use crate::fleet::Fleet;

#[test]
fn a_round_that_a_lost_pod_was_last_heard_in_is_no_exam_once_the_chain_shows_none() {
    for (window, goes_on) in [(Window::Green, false), (Window::Unknown, true)] {
        let mut fleet = Fleet::new(2, 1, 3);
        fleet.settle(60).expect("a new deployment comes to rest");
        let door = fleet.doors.values_mut().find(|door| door.slot == 0).expect("a holder");
        door.round = Some(Round {
            height: 11_000,
            active: true,
            request: Some(Start::default()),
            ..Round::default()
        });
        fleet.facts.window = window;
        fleet.cut_power("n1");
        fleet.now_ms += 10_000;
        // What a board remembers of the exam: nobody else was heard in it.
        let mut observed = fleet.observe();
        let round = observed.live.values().find_map(|live| live.round.clone()).expect("one");
        observed.rounds.insert(observed.node_id(0), vec![round]);
        let desired = decide::decide(&observed);
        let promoted = desired
            .slots
            .iter()
            .flat_map(|slot| &slot.steps)
            .find_map(|step| match step {
                Step::Promote(promote) if promote.slot == 0 => Some(promote.running.is_some()),
                Step::Promote(_) | Step::Demote(_) | Step::Change(_) => None,
            });
        assert_eq!(promoted, Some(goes_on), "{window:?}");
    }
}
