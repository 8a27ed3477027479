//! Conditions as a test asks for them.

use crds::conditions::{ConditionStatus, ConditionType, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The message of a condition that has this status and reason; else what it says instead.
pub fn says(
    conditions: &[Condition],
    kind: ConditionType,
    status: ConditionStatus,
    reason: Reason,
) -> Result<String, String> {
    let found = conditions
        .iter()
        .find(|condition| condition.type_ == kind.to_string())
        .ok_or_else(|| format!("there is no condition {kind}"))?;
    if found.status == status.to_string() && found.reason == reason.to_string() {
        Ok(found.message.clone())
    } else {
        Err(format!(
            "{kind} is {}/{} instead of {status}/{reason}: {}",
            found.status, found.reason, found.message
        ))
    }
}

/// The message of a condition that is True, for whatever reason; else what it says instead.
pub fn holds(conditions: &[Condition], kind: ConditionType) -> Result<String, String> {
    let found = conditions
        .iter()
        .find(|condition| condition.type_ == kind.to_string())
        .ok_or_else(|| format!("there is no condition {kind}"))?;
    if found.status == ConditionStatus::True.to_string() {
        Ok(found.message.clone())
    } else {
        Err(format!(
            "{kind} is {}/{}: {}",
            found.status, found.reason, found.message
        ))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    #[test]
    fn a_condition_is_taken_by_status_and_reason_and_told_when_it_is_another() {
        let conditions = [Condition {
            type_: "Accepted".to_owned(),
            status: "False".to_owned(),
            reason: "InvalidSpec".to_owned(),
            message: "twice".to_owned(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }];
        let asked = |status, reason| says(&conditions, ConditionType::Accepted, status, reason);
        assert_eq!(
            asked(ConditionStatus::False, Reason::InvalidSpec),
            Ok("twice".to_owned())
        );
        assert!(asked(ConditionStatus::True, Reason::AsExpected).is_err_and(|told| told.contains("False/InvalidSpec")));
        assert!(holds(&conditions, ConditionType::Accepted).is_err());
        assert!(holds(&conditions, ConditionType::Ready).is_err_and(|told| told.contains("no condition Ready")));
    }
}
