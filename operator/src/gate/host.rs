//! What the gate knows of a host, from its objects. Pure.

use std::collections::BTreeMap;

use crds::conditions::{ConditionType, Reason};
use crds::gonka_host::{AllowInInference, ExamSummary};
use crds::labels::REARM;
use crds::references::Window;
use crds::sprint_schedule::Margins;
use crds::{GonkaHost, ModelDeployment};

use super::HostState;

/// One slot's part of its host.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Part {
    /// Weight, in units that compare within the host.
    pub weight: i64,
    /// It would pass an exam now.
    pub healthy: bool,
    /// It is on a machine that was released.
    pub released: bool,
}

/// Reads a host. `parts` are all its slots.
pub fn state(host: &GonkaHost, margins: &Margins, parts: &[Part]) -> HostState {
    let disruption = &host.spec.disruption;
    let exams = host.status.iter().flat_map(|status| &status.last_exams);
    let of = |wanted: fn(&Part) -> bool| share(parts.iter().filter(|part| wanted(part)), parts);
    HostState {
        challenged: host
            .status
            .as_ref()
            .is_some_and(|status| status.window == Window::Challenge),
        breaker_tripped: tripped(host),
        max_weight_basis_points: disruption.max_weight_basis_points,
        allow_in_amber: disruption.allow_in_inference == AllowInInference::WithinMargin,
        natural_shortfall_basis_points: exams.filter_map(shortfall).max().unwrap_or_default(),
        unhealthy_basis_points: of(|part| !part.healthy && !part.released),
        released_basis_points: of(|part| part.released),
        drain_millis: i64::from(margins.drain_seconds) * 1000,
        ready_by_millis: i64::from(margins.ready_by_seconds) * 1000,
    }
}

/// What is known of the host cannot all be true, and no person has said what to make of it.
pub fn tripped(host: &GonkaHost) -> bool {
    let conditions = host.status.iter().flat_map(|status| &status.conditions);
    let stalled = conditions
        .into_iter()
        .find(|condition| condition.type_ == ConditionType::Stalled.to_string());
    stalled.is_some_and(|stalled| stalled.status == "True" && stalled.reason == Reason::BreakerTripped.to_string())
        && !armed(host)
}

/// A person has written down why the breaker is to let something happen.
pub fn armed(host: &GonkaHost) -> bool {
    let annotations = host.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(REARM))
        .is_some_and(|reason| !reason.is_empty())
}

/// Weight of each slot of a deployment: nonces a minute, as rehearsed; a slot that has no figure counts as the others' mean, and as
/// one where none has.
pub fn weights(object: &ModelDeployment) -> BTreeMap<i32, i64> {
    let slots = object.status.iter().flat_map(|status| &status.slots);
    let rates: BTreeMap<i32, Option<i64>> = slots
        .map(|slot| (slot.index, slot.nonces_per_minute.filter(|rate| *rate > 0)))
        .collect();
    let known: Vec<i64> = rates.values().filter_map(|rate| *rate).collect();
    let mean = i64::try_from(known.len())
        .ok()
        .filter(|count| *count > 0)
        .map_or(1, |count| known.iter().sum::<i64>() / count);
    object
        .examined_slots()
        .into_iter()
        .map(|slot| (slot, rates.get(&slot).copied().flatten().unwrap_or(mean)))
        .collect()
}

/// Basis points that `some` are of `all`, rounded up.
fn share<'a>(some: impl Iterator<Item = &'a Part>, all: &[Part]) -> i32 {
    let total: i64 = all.iter().map(|part| part.weight.max(0)).sum();
    let out: i64 = some.map(|part| part.weight.max(0)).sum();
    match total {
        0 => 0,
        total => i32::try_from((out.saturating_mul(10_000) + total - 1) / total).unwrap_or(10_000),
    }
}

/// What an exam fell short of, basis points. Of twenty exams, the worst is their 99th percentile.
fn shortfall(exam: &ExamSummary) -> Option<i32> {
    let missing = (exam.expected - exam.committed).max(0);
    (exam.expected > 0).then(|| i32::try_from(missing.saturating_mul(10_000) / exam.expected).unwrap_or(10_000))
}

#[cfg(test)]
mod tests {
    use crds::{GonkaHostSpec, GonkaHostStatus};

    use super::*;
    use crate::gate::{CONFIRMATION_MARGIN_BASIS_POINTS, budget};

    fn host(exams: &[(i64, i64)]) -> GonkaHost {
        let mut host = GonkaHost::new("ours", GonkaHostSpec::default());
        host.spec.disruption.max_weight_basis_points = 909;
        host.status = Some(GonkaHostStatus {
            last_exams: exams
                .iter()
                .map(|(expected, committed)| ExamSummary {
                    expected: *expected,
                    committed: *committed,
                    ..ExamSummary::default()
                })
                .collect(),
            ..GonkaHostStatus::default()
        });
        host
    }

    fn part(healthy: bool, released: bool) -> Part {
        Part {
            weight: 100,
            healthy,
            released,
        }
    }

    #[test]
    fn the_worst_of_the_last_exams_and_what_is_out_count_against_the_margin() {
        let parts = vec![part(true, false); 49]
            .into_iter()
            .chain([part(false, false)])
            .collect::<Vec<_>>();
        let state = state(
            &host(&[(1_000, 990), (1_000, 1_010), (0, 0)]),
            &Margins::default(),
            &parts,
        );
        assert_eq!(state.natural_shortfall_basis_points, 100);
        assert_eq!(state.unhealthy_basis_points, 200);
        assert_eq!(budget(&state), CONFIRMATION_MARGIN_BASIS_POINTS - 300);
    }

    #[test]
    fn a_released_slot_counts_once() {
        let state = state(&host(&[]), &Margins::default(), &[part(false, true), part(true, false)]);
        assert_eq!((state.unhealthy_basis_points, state.released_basis_points), (0, 5_000));
    }

    #[test]
    fn facts_that_contradict_each_other_hold_everything_until_a_person_says_so() {
        let mut host = host(&[]);
        assert!(!state(&host, &Margins::default(), &[]).breaker_tripped);
        let stalled = |reason: &str| {
            serde_json::json!({"type": "Stalled", "status": "True", "reason": reason, "message": "",
            "lastTransitionTime": "2026-11-27T12:00:00Z"})
        };
        let mut set = |reason: &str| {
            let condition = serde_json::from_value(stalled(reason)).expect("a condition");
            host.status.as_mut().expect("a status").conditions = vec![condition];
            host.clone()
        };
        assert!(!tripped(&set("OwnedByAnotherInstall")));
        let mut host = set("BreakerTripped");
        assert!(tripped(&host));
        host.metadata.annotations = Some([(REARM.to_owned(), String::new())].into());
        assert!(tripped(&host), "an empty reason is none");
        host.metadata.annotations = Some([(REARM.to_owned(), "I looked".to_owned())].into());
        assert!(!tripped(&host));
    }

    #[test]
    fn a_host_without_slots_has_nothing_out() {
        let state = state(&host(&[]), &Margins::default(), &[]);
        assert_eq!((state.unhealthy_basis_points, state.released_basis_points), (0, 0));
    }
}
