//! Typed conditions to Kubernetes conditions. Pure: `now` comes in, transition times are kept.

use std::collections::BTreeMap;

use crds::conditions::{ConditionStatus, ConditionType, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Unix milliseconds in whole seconds, as Kubernetes keeps times. A wall clock is within jiff's range of years ±9999.
pub fn whole_seconds(millis: i64) -> Time {
    Time(Timestamp::from_second(millis.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The conditions of one object as they should be now. Every type starts `Unknown/NotObserved`.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions(BTreeMap<ConditionType, (ConditionStatus, Reason, String)>);

impl Conditions {
    /// All `types`, not known yet.
    pub fn unknown(types: &[ConditionType]) -> Self {
        Self(
            types
                .iter()
                .map(|kind| (*kind, (ConditionStatus::Unknown, Reason::NotObserved, String::new())))
                .collect(),
        )
    }

    /// Sets one condition.
    pub fn set(&mut self, kind: ConditionType, status: ConditionStatus, reason: Reason, message: impl Into<String>) {
        self.0.insert(kind, (status, reason, message.into()));
    }

    /// Sets one condition to `True/AsExpected`.
    pub fn set_true(&mut self, kind: ConditionType, message: impl Into<String>) {
        self.set(kind, ConditionStatus::True, Reason::AsExpected, message);
    }

    /// Sets one condition to `False`.
    pub fn set_false(&mut self, kind: ConditionType, reason: Reason, message: impl Into<String>) {
        self.set(kind, ConditionStatus::False, reason, message);
    }

    /// Status of one condition; `Unknown` when it is not there.
    pub fn status(&self, kind: ConditionType) -> ConditionStatus {
        self.0
            .get(&kind)
            .map_or(ConditionStatus::Unknown, |(status, ..)| *status)
    }

    /// Reason of one condition, if that is its status.
    pub fn reason_if(&self, kind: ConditionType, wanted: ConditionStatus) -> Option<Reason> {
        let (status, reason, _) = self.0.get(&kind)?;
        (*status == wanted).then_some(*reason)
    }

    /// As Kubernetes wants them. A condition whose status is unchanged keeps its transition time.
    pub fn render(&self, generation: Option<i64>, now: &Time, previous: &[Condition]) -> Vec<Condition> {
        self.0
            .iter()
            .map(|(kind, (status, reason, message))| {
                let (kind, status) = (kind.to_string(), status.to_string());
                let kept = previous
                    .iter()
                    .find(|condition| condition.type_ == kind && condition.status == status)
                    .map(|condition| condition.last_transition_time.clone());
                Condition {
                    last_transition_time: kept.unwrap_or_else(|| now.clone()),
                    message: message.clone(),
                    observed_generation: generation,
                    reason: reason.to_string(),
                    status,
                    type_: kind,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time(Timestamp::from_second(seconds).expect("in range"))
    }

    #[test]
    fn keeps_transition_time_when_status_is_unchanged() {
        let mut conditions = Conditions::unknown(&[ConditionType::Ready]);
        conditions.set_false(ConditionType::Ready, Reason::NotRehearsed, "slot 0");
        let first = conditions.render(Some(1), &at(10), &[]);
        conditions.set_false(ConditionType::Ready, Reason::GpuFinding, "slot 1");
        let second = conditions.render(Some(1), &at(20), &first);
        assert_eq!(second[0].last_transition_time, at(10));
        assert_eq!(second[0].reason, "GpuFinding");
        conditions.set_true(ConditionType::Ready, "");
        assert_eq!(
            conditions.render(Some(1), &at(30), &second)[0].last_transition_time,
            at(30)
        );
    }

    #[test]
    fn every_type_is_present_and_unknown_from_the_first_pass() {
        let rendered = Conditions::unknown(&[ConditionType::Ready, ConditionType::Accepted]).render(None, &at(1), &[]);
        assert_eq!(rendered.len(), 2);
        assert!(rendered.iter().all(|condition| condition.status == "Unknown"));
    }
}
