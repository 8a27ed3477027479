//! Box 2: what the chain says about one account. Answers to values, pure; shapes are hostile.

use std::collections::BTreeMap;

use serde_json::Value;

use super::observed::{Settlement, Summary};
use crate::chain::shapes::{ShapeError, boolean, decimal, integer, known, list, member, text};

/// One member of an epoch's group.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Member {
    /// Weight of its Sprint.
    pub weight: i64,
    /// What the worst confirmation left of it.
    pub confirmation_weight: i64,
}

/// An epoch's group.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Group {
    /// Epoch.
    pub epoch: i64,
    /// The account asked about; absent when it is not a member.
    pub member: Option<Member>,
    /// Members in all; 0 before weights are formed.
    pub members: usize,
    /// Sum of all weights.
    pub total_weight: i64,
    /// Weight per nonce by model, decimal, where the chain moves it per epoch.
    pub scales: BTreeMap<String, String>,
}

/// Reads `current_epoch_group_data` or `epoch_group_data/{epoch}`.
pub fn group(answer: &Value, address: &str) -> Result<Group, ShapeError> {
    let data = member(answer, "epoch_group_data").ok_or_else(|| ShapeError::new("epoch_group_data", "nothing"))?;
    let weights = list(data, "validation_weights")?;
    let mut found = None;
    for entry in weights {
        if text(entry, "member_address")? == address {
            found = Some(Member {
                weight: integer(entry, "weight")?,
                confirmation_weight: integer(entry, "confirmation_weight")?,
            });
        }
    }
    let mut scales = BTreeMap::new();
    for scale in list(data, "confirmation_weight_scales")?.iter().take(64) {
        if boolean(scale, "exclude_from_confirmation")? {
            continue;
        }
        // Since coefficients move, the one that counts has a name of its own.
        let effective = decimal(scale, "effective_coefficient")?;
        let factor = match effective {
            Some(effective) => Some(effective),
            None => decimal(scale, "weight_scale_factor")?,
        };
        if let Some(factor) = factor {
            scales.insert(text(scale, "model_id")?, factor);
        }
    }
    Ok(Group {
        epoch: integer(data, "epoch_index")?,
        member: found,
        members: weights.len(),
        total_weight: integer(data, "total_weight")?,
        scales,
    })
}

/// One object; where there is none, the chain may also say an empty list.
fn one<'a>(answer: &'a Value, key: &str) -> Result<Option<&'a Value>, ShapeError> {
    match known(answer, key)? {
        None => Ok(None),
        Some(Value::Array(none)) if none.is_empty() => Ok(None),
        Some(found @ Value::Object(_)) => Ok(Some(found)),
        Some(other) => Err(ShapeError::new(key, &other.to_string())),
    }
}

fn coins(object: &Value, key: &str) -> Result<u64, ShapeError> {
    let amount = integer(object, key)?;
    u64::try_from(amount).map_err(|_| ShapeError::new(key, &amount.to_string()))
}

/// Reads `settle_amount/{address}`; absent when nothing waits.
pub fn settlement(answer: &Value) -> Result<Option<Settlement>, ShapeError> {
    let Some(amount) = one(answer, "settle_amount")? else {
        return Ok(None);
    };
    Ok(Some(Settlement {
        epoch: integer(amount, "epoch_index")?,
        amount: coins(amount, "reward_coins")?.saturating_add(coins(amount, "work_coins")?),
    }))
}

/// Reads `epoch_performance_summary/{epoch}/{address}`; absent when there is none.
pub fn summary(answer: &Value) -> Result<Option<Summary>, ShapeError> {
    let Some(summary) = one(answer, "epoch_performance_summary")? else {
        return Ok(None);
    };
    Ok(Some(Summary {
        amount: coins(summary, "rewarded_coins")?.saturating_add(coins(summary, "earned_coins")?),
        claimed: boolean(summary, "claimed")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(text: &str) -> Value {
        let file: Value = serde_json::from_str(text).expect("a recording");
        file["body"].clone()
    }

    const OURS: &str = "gonka1r4zmwd8gvw7kguhfzk82eua7myrfx5glqtg86r";

    #[test]
    fn the_recorded_group_gives_weight_and_scale() {
        let answer = recorded(include_str!(
            "../../../e2e/network-simulator/tests/recorded/rest-current_epoch_group_data__162.json"
        ));
        let group = group(&answer, OURS).expect("known shape");
        assert_eq!(group.epoch, 1);
        assert_eq!(
            group.member,
            Some(Member {
                weight: 20,
                confirmation_weight: 20
            })
        );
        assert_eq!(
            group.scales.get("Qwen/Qwen2.5-7B-Instruct").map(String::as_str),
            Some("0.3024")
        );
    }

    #[test]
    fn a_coefficient_that_moves_counts_before_the_one_that_stood() {
        let scale = |scale: Value| {
            let answer = serde_json::json!({"epoch_group_data": {"confirmation_weight_scales": [scale]}});
            group(&answer, OURS).expect("known shape").scales.remove("m")
        };
        let tenth = serde_json::json!({"value": "1", "exponent": -1});
        let moving = serde_json::json!({"model_id": "m", "effective_coefficient": tenth, "weight_scale_factor": null});
        assert_eq!(scale(moving).as_deref(), Some("0.1"));
        let standing =
            serde_json::json!({"model_id": "m", "effective_coefficient": null, "weight_scale_factor": tenth});
        assert_eq!(scale(standing).as_deref(), Some("0.1"));
        let excluded =
            serde_json::json!({"model_id": "m", "effective_coefficient": tenth, "exclude_from_confirmation": true});
        assert_eq!(scale(excluded), None);
    }

    #[test]
    fn a_group_before_its_weights_has_no_members() {
        let answer = recorded(include_str!(
            "../../../e2e/network-simulator/tests/recorded/rest-epoch_group_data_2__162.json"
        ));
        let group = group(&answer, OURS).expect("known shape");
        assert_eq!((group.epoch, group.members, group.member), (2, 0, None));
    }

    #[test]
    fn the_recorded_settlement_and_summary_agree() {
        let settled = recorded(include_str!(
            "../../../e2e/network-simulator/tests/recorded/rest-settle_amount_COLD__182.json"
        ));
        let claimed = recorded(include_str!(
            "../../../e2e/network-simulator/tests/recorded/rest-epoch_performance_summary_1_COLD__184.json"
        ));
        let amount = 285_000_000_000_000;
        assert_eq!(settlement(&settled), Ok(Some(Settlement { epoch: 1, amount })));
        assert_eq!(summary(&claimed), Ok(Some(Summary { amount, claimed: true })));
    }

    #[test]
    fn empty_lists_in_place_of_an_object_are_nothing() {
        assert_eq!(settlement(&serde_json::json!({"settle_amount": []})), Ok(None));
        assert_eq!(summary(&serde_json::json!({"epochPerformanceSummary": []})), Ok(None));
    }

    #[test]
    fn an_answer_without_a_group_is_an_error_and_not_a_weight_of_zero() {
        assert!(group(&serde_json::json!({}), OURS).is_err());
    }
}
