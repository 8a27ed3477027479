//! Between two looks the clock alone changes nothing: what a decision says of its next look is never too late.

use operator::change::Change;
use operator::model_deployment::decide::{self, Desired, Step};
use operator::model_deployment::observed::Observed;
use operator::model_deployment::pass;

/// As long as the longest wait a deployment is given.
const RESYNC_SECONDS: u64 = 3_600;
/// Moments that are tried between two looks.
const MOMENTS: i64 = 5;

/// What a decision does, without the times it writes.
fn essence(desired: &Desired) -> Vec<String> {
    let slots = desired.slots.iter().flat_map(|slot| {
        let cause = slot.takeover.iter().map(|takeover| takeover.cause.clone());
        let steps = slot.steps.iter().map(|step| match step {
            Step::Demote(demote) => format!("demote {} {}", demote.pod, demote.generation),
            Step::Change(_) => "slice".to_owned(),
            Step::Promote(promote) => format!("promote {} {}", promote.pod, promote.generation),
        });
        let lines = cause.chain(steps).map(|line| format!("slot {}: {line}", slot.slot));
        lines.collect::<Vec<_>>()
    });
    let changes = desired.changes.iter().filter_map(|change| match change {
        Change::Apply(object) | Change::Create(object) | Change::Merge(object) => {
            Some(format!("write {} {}", object.resource.kind, object.name))
        }
        Change::Delete(deletion) => Some(format!("delete {} {:?}", deletion.name, deletion.grace_seconds)),
        // Told once: the condition that it goes with is written in the same pass.
        Change::Status(_) | Change::Event(_) => None,
    });
    let rehearsals = desired
        .rehearsals
        .iter()
        .map(|rehearsal| format!("rehearse {}", rehearsal.pod));
    slots.chain(changes).chain(rehearsals).collect()
}

/// Asserts it of one snapshot. Facts are told anew with every block, so they do not age here.
pub fn nothing_comes_between_two_looks(seen: &Observed, desired: &Desired) {
    let again = i64::try_from(pass::again(desired, RESYNC_SECONDS).as_millis()).expect("hours");
    let expected = essence(desired);
    for moment in 1..=MOMENTS {
        let ahead = (again * moment / MOMENTS).min(again - 1);
        let mut later = seen.clone();
        later.now_ms += ahead;
        later.facts.observed_ms += ahead;
        assert_eq!(
            essence(&decide::decide(&later)),
            expected,
            "{ahead} ms later, when the next look is due after {again} ms"
        );
    }
}
