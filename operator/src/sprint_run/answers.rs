//! Box 2: what the chain says about an exam. Answers to values, pure; shapes are hostile.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chain::shapes::{ShapeError, decimal, integer, list, member, text};

/// Most rows of one answer that are read.
const MAX_ROWS: usize = 200_000;

/// The last commit of one host for one model.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Commit {
    /// Account.
    pub address: String,
    /// Model id.
    pub model: String,
    /// Artifacts.
    pub count: i64,
}

fn rows<'a>(answer: &'a Value, key: &str) -> Result<&'a [Value], ShapeError> {
    let rows = list(answer, key)?;
    if member(answer, key).is_none() {
        return Err(ShapeError::new(key, "nothing"));
    }
    if rows.len() > MAX_ROWS {
        return Err(ShapeError::new(key, "too many"));
    }
    Ok(rows)
}

/// Reads `all_poc_v2_store_commits/{height}`.
pub fn commits(answer: &Value) -> Result<Vec<Commit>, ShapeError> {
    rows(answer, "commits")?
        .iter()
        .map(|row| {
            Ok(Commit {
                address: text(row, "participant_address")?,
                model: text(row, "model_id")?,
                count: integer(row, "count")?.max(0),
            })
        })
        .collect()
}

/// Reads `all_mlnode_weight_distributions/{height}`: artifacts by DAPI node id of one account, all models.
pub fn distribution(answer: &Value, address: &str) -> Result<BTreeMap<String, i64>, ShapeError> {
    let mut nodes = BTreeMap::new();
    for row in rows(answer, "distributions")? {
        if text(row, "participant_address")? != address {
            continue;
        }
        for weight in list(row, "weights")? {
            let count = integer(weight, "weight")?.max(0);
            *nodes.entry(text(weight, "node_id")?).or_insert(0) += count;
        }
    }
    Ok(nodes)
}

/// Votes on one account.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Ballot {
    /// Validators that found everything in order.
    pub valid: i32,
    /// Validators that did not, for at least one model.
    pub invalid: i32,
}

/// Reads `poc_v2_validations_for_stage/{height}`. The chain looks at the sign alone.
pub fn ballot(answer: &Value, address: &str) -> Result<Ballot, ShapeError> {
    let (mut valid, mut invalid) = (BTreeSet::new(), BTreeSet::new());
    for group in rows(answer, "poc_validation")? {
        for vote in list(group, "poc_validation")? {
            if text(vote, "participant_address")? != address {
                continue;
            }
            let validator = text(vote, "validator_participant_address")?;
            if integer(vote, "validated_weight")? > 0 {
                valid.insert(validator);
            } else {
                invalid.insert(validator);
            }
        }
    }
    let count = |set: usize| i32::try_from(set).unwrap_or(i32::MAX);
    Ok(Ballot {
        valid: count(valid.difference(&invalid).count()),
        invalid: count(invalid.len()),
    })
}

/// Reads `poc_validation_snapshot/{height}`: voting power by account, all models; absent before it was taken.
pub fn powers(answer: &Value) -> Result<BTreeMap<String, i64>, ShapeError> {
    let mut powers = BTreeMap::new();
    let Some(snapshot) = member(answer, "snapshot") else {
        return Ok(powers);
    };
    for model in list(snapshot, "model_voting_powers")? {
        for entry in list(model, "voting_powers")?.iter().take(MAX_ROWS) {
            *powers.entry(text(entry, "address")?).or_insert(0) += integer(entry, "voting_power")?.max(0);
        }
    }
    Ok(powers)
}

/// Reads `participant/{address}`: the worst confirmation of the epoch in basis points; absent while there was none.
pub fn confirmation_ratio(answer: &Value) -> Result<Option<i32>, ShapeError> {
    let participant = member(answer, "participant").ok_or_else(|| ShapeError::new("participant", "nothing"))?;
    let Some(stats) = member(participant, "current_epoch_stats") else {
        return Ok(None);
    };
    // Camel case with an acronym: neither the snake nor the usual camel form.
    let key = if member(stats, "confirmationPoCRatio").is_some() {
        "confirmationPoCRatio"
    } else {
        "confirmation_poc_ratio"
    };
    let Some(ratio) = decimal(stats, key)? else {
        return Ok(None);
    };
    let ratio: f64 = ratio.parse().map_err(|_| ShapeError::new(key, &ratio))?;
    Ok(Some((ratio * 10_000.0).round().clamp(0.0, 10_000.0) as i32))
}

/// Reads `/cosmos/base/tendermint/v1beta1/blocks/{height}`: hash in upper-case hex and time in Unix milliseconds.
pub fn block(answer: &Value) -> Result<(String, i64), ShapeError> {
    use base64::Engine as _;
    let nothing = |key| ShapeError::new(key, "nothing");
    let id = member(answer, "block_id").ok_or_else(|| nothing("block_id"))?;
    let hash = text(id, "hash")?;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(&hash)
        .ok()
        .filter(|bytes| bytes.len() == 32)
        .ok_or_else(|| ShapeError::new("hash", &hash))?;
    let block = member(answer, "sdk_block")
        .or_else(|| member(answer, "block"))
        .ok_or_else(|| nothing("block"))?;
    let header = member(block, "header").ok_or_else(|| nothing("header"))?;
    let time = text(header, "time")?;
    let millis = time
        .parse::<k8s_openapi::jiff::Timestamp>()
        .map_err(|_| ShapeError::new("time", &time))?
        .as_millisecond();
    Ok((hex::encode_upper(bytes), millis))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OURS: &str = "gonka1r4zmwd8gvw7kguhfzk82eua7myrfx5glqtg86r";

    fn recorded(text: &str) -> Value {
        let file: Value = serde_json::from_str(text).expect("a recording");
        file["body"].clone()
    }

    #[test]
    fn recorded_commits_and_distribution_add_up() {
        let all = commits(&recorded(include_str!(
            "../../../e2e/network-simulator/tests/recorded/rest-all_poc_v2_store_commits_145__162.json"
        )))
        .expect("known");
        let nodes = distribution(
            &recorded(include_str!(
                "../../../e2e/network-simulator/tests/recorded/rest-all_mlnode_weight_distributions_145__162.json"
            )),
            OURS,
        )
        .expect("known");
        assert_eq!((all.len(), all[0].count), (1, 156));
        assert_eq!(
            nodes,
            BTreeMap::from([("ml-a".to_owned(), 96), ("ml-b".to_owned(), 60)])
        );
    }

    #[test]
    fn the_recorded_snapshot_gives_voting_powers() {
        let answer = recorded(include_str!(
            "../../../e2e/network-simulator/tests/recorded/rest-poc_validation_snapshot_145__162.json"
        ));
        assert_eq!(powers(&answer), Ok(BTreeMap::from([(OURS.to_owned(), 20)])));
    }

    #[test]
    fn nobody_voted_in_the_recording() {
        let answer = recorded(include_str!(
            "../../../e2e/network-simulator/tests/recorded/rest-poc_v2_validations_for_stage_180__184.json"
        ));
        assert_eq!(ballot(&answer, OURS), Ok(Ballot::default()));
    }

    #[test]
    fn a_validator_that_rejects_one_model_rejects() {
        let vote = |validator: &str, weight: Value| json!({"participant_address": "us", "validator_participant_address": validator, "validated_weight": weight});
        let answer = json!({"poc_validation": [
            {"participant": "us", "poc_validation": [vote("a", json!("200")), vote("b", json!(200)), vote("b", json!("-1")), vote("c", json!(-1))]},
            {"participant": "them", "poc_validation": [{"participant_address": "them", "validator_participant_address": "d", "validated_weight": "-1"}]},
        ]});
        assert_eq!(ballot(&answer, "us"), Ok(Ballot { valid: 1, invalid: 2 }));
    }

    #[test]
    fn the_recorded_participant_has_no_confirmation_yet() {
        let mut answer = recorded(include_str!(
            "../../../e2e/network-simulator/tests/recorded/rest-participant_COLD__162.json"
        ));
        assert_eq!(confirmation_ratio(&answer), Ok(None));
        answer["participant"]["current_epoch_stats"]["confirmationPoCRatio"] = json!({"value": "4680", "exponent": -4});
        assert_eq!(confirmation_ratio(&answer), Ok(Some(4680)));
    }

    #[test]
    fn an_answer_without_rows_is_not_an_empty_list() {
        assert!(commits(&json!({})).is_err());
        assert!(ballot(&json!({"code": 12, "message": "Not Implemented"}), "us").is_err());
    }

    #[test]
    fn blocks_give_hash_and_time() {
        let answer = json!({
            "block_id": {"hash": "TXUzd3XFu7n9gJ3YDkPb2aAeJlwwyAavOpm50dyTvIs="},
            "block": {"header": {"time": "2026-11-22T10:57:18.668161047Z"}},
        });
        let (hash, millis) = block(&answer).expect("known");
        assert!(hash.starts_with("4D7533777") && hash.len() == 64, "{hash}");
        assert_eq!(millis, 1_795_345_038_668);
    }
}
