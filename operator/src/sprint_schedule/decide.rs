//! Box 3: whether the status is written, and what it says. Pure.

use std::borrow::Cow;

use crds::SprintSchedule;
use crds::sprint_schedule::SprintScheduleStatus;

use super::observe::{Invalid, Observed};
use super::status::{desired, steady};
use super::validate::reasons;
use crate::change::{Change, Object};
use crate::conditions::whole_seconds;

/// Time between writes while nothing but estimates and words change.
const QUIET_MILLIS: i64 = 60_000;

/// What to write: nothing while the world is as the status says.
pub fn decide(observed: &Observed) -> Vec<Change> {
    let (object, reasons) = match (&observed.object, &observed.invalid) {
        (Some(object), _) => (Cow::Borrowed(object), reasons(&object.spec)),
        (None, Some(invalid)) => (
            Cow::Owned(stand_in(invalid, observed.previous.clone())),
            vec![format!("the object cannot be understood: {}", invalid.error)],
        ),
        (None, None) => return Vec::new(),
    };
    let before = ours(object.status.clone().unwrap_or_default());
    let now = whole_seconds(observed.now_ms);
    let after = desired(&object, &observed.facts, &reasons, observed.now_ms, &now);
    let after = ours(steady(&before, after, observed.now_ms));
    let quiet = observed
        .written_ms
        .is_some_and(|written| observed.now_ms - written < QUIET_MILLIS);
    if before == after || (quiet && essence(&before) == essence(&after)) {
        return Vec::new();
    }
    vec![Change::Status(Object::status_of(object.as_ref(), &after))]
}

/// An object that cannot be understood still has a name, a generation and what was written last.
fn stand_in(invalid: &Invalid, previous: Option<SprintScheduleStatus>) -> SprintSchedule {
    let mut object = SprintSchedule::new(&invalid.name, crds::SprintScheduleSpec::default());
    object.metadata.generation = invalid.generation;
    object.status = previous;
    object
}

/// Conditions of others are theirs; the order of lists says nothing.
fn ours(mut status: SprintScheduleStatus) -> SprintScheduleStatus {
    let types = SprintSchedule::CONDITIONS.map(|kind| kind.to_string());
    status.conditions.retain(|condition| types.contains(&condition.type_));
    status.conditions.sort_by(|one, other| one.type_.cmp(&other.type_));
    status
}

/// The status without what only drifts: a difference here is a transition.
fn essence(status: &SprintScheduleStatus) -> SprintScheduleStatus {
    let mut essence = status.clone();
    essence.next_sprint_time = None;
    essence.next_sprint_error_seconds = None;
    essence.next_green_time = None;
    essence.calendar.clear();
    essence.block_millis = None;
    essence.block_spread_millis = None;
    for endpoint in &mut essence.endpoints {
        endpoint.message = None;
    }
    for condition in &mut essence.conditions {
        condition.message.clear();
    }
    essence
}
