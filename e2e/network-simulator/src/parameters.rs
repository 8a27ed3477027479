//! The chain's parameters: the recorded ones of version 0.2.14, with those of the scenario on top.
//!
//! They are kept in the form the chain's REST shows (whole numbers as strings, decimals as value and exponent); the
//! numbers that decide something here are read out of that once.

use crate::{
    decimal::Decimal,
    economy::{deposit, maintenance, participation, service},
    stages::Lengths,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const DEFAULTS: &str = include_str!("parameters/defaults.json");

/// All parameters, typed where the network's course depends on them.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// As `GET params` shows them.
    pub json: Value,
    pub lengths: Lengths,
    pub poc_slot_allocation: Decimal,
    pub validation_sample_size: usize,
    pub validation_vote_threshold_bps: u64,
    pub poc_stronger_rng_enabled: bool,
    pub alpha_threshold: Decimal,
    pub expected_confirmations_per_epoch: u64,
    /// Blocks before and after an upgrade in which no confirmation is announced.
    pub upgrade_protection_window: i64,
    pub deposit: deposit::Rule,
    pub participation: participation::Rule,
    pub service: service::Rule,
    pub maintenance: maintenance::Rule,
    /// Epochs over which a claimed reward is paid; 0 = at once.
    pub reward_vesting_period: u64,
    pub initial_epoch_reward: u64,
    pub decay_rate: Decimal,
    pub genesis_epoch: u64,
}

impl Parameters {
    /// The recorded parameters with some overridden by name; a name that occurs twice is given as `group.name`. Every
    /// wrong entry is one message.
    ///
    /// # Panics
    /// Never: the embedded parameters are JSON, as its tests know.
    #[expect(
        clippy::unwrap_in_result,
        reason = "the embedded text is checked by this crate's tests"
    )]
    pub fn with(overrides: &BTreeMap<String, Value>) -> Result<Self, Vec<String>> {
        let mut json: Value = serde_json::from_str(DEFAULTS).expect("the embedded parameters are JSON");
        let mut wrong = Vec::new();
        for (name, value) in overrides {
            match set(&mut json, name, value) {
                Ok(()) => {}
                Err(message) => wrong.push(format!("network.parameters.{name}: {message}")),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let parameters = Self::read(json).map_err(|message| vec![message])?;
        let lengths_wrong = check(&parameters.lengths);
        if lengths_wrong.is_empty() {
            Ok(parameters)
        } else {
            Err(lengths_wrong)
        }
    }

    /// Puts a value under its group, for the parts that the scenario gives in its own words.
    pub fn put(&mut self, group: &str, name: &str, value: Value) {
        if let Some(Value::Object(group)) = self.json.get_mut(group) {
            group.insert(name.to_owned(), value);
        }
    }

    fn read(json: Value) -> Result<Self, String> {
        let epoch = Group {
            json: &json,
            name: "epoch_params",
        };
        let poc = Group {
            json: &json,
            name: "poc_params",
        };
        let confirmation = Group {
            json: &json,
            name: "confirmation_poc_params",
        };
        let reward = Group {
            json: &json,
            name: "bitcoin_reward_params",
        };
        let group = |name: &'static str| Group { json: &json, name };
        let (collateral, delegation) = (group("collateral_params"), group("delegation_params"));
        let (validation, tokenomics) = (group("validation_params"), group("tokenomics_params"));
        let windows = group("maintenance_params");
        let lengths = Lengths {
            epoch_length: epoch.int("epoch_length")?,
            epoch_shift: epoch.int("epoch_shift")?,
            poc_stage_duration: epoch.int("poc_stage_duration")?,
            poc_exchange_duration: epoch.int("poc_exchange_duration")?,
            poc_validation_delay: epoch.int("poc_validation_delay")?,
            poc_validation_duration: epoch.int("poc_validation_duration")?,
            set_new_validators_delay: epoch.int("set_new_validators_delay")?,
            inference_validation_cutoff: epoch.int("inference_validation_cutoff")?,
            confirmation_poc_safety_window: epoch.int("confirmation_poc_safety_window")?,
        };
        Ok(Self {
            lengths,
            poc_slot_allocation: epoch.decimal("poc_slot_allocation")?,
            validation_sample_size: poc.natural("validation_sample_size")? as usize,
            validation_vote_threshold_bps: poc.natural("validation_vote_threshold_bps")?,
            poc_stronger_rng_enabled: poc.get("poc_stronger_rng_enabled")? == &Value::Bool(true),
            alpha_threshold: confirmation.decimal("alpha_threshold")?,
            expected_confirmations_per_epoch: confirmation.natural("expected_confirmations_per_epoch")?,
            upgrade_protection_window: confirmation.int("upgrade_protection_window")?,
            deposit: deposit::Rule {
                base_weight_ratio: collateral.decimal("base_weight_ratio")?,
                per_weight_unit: collateral.decimal("collateral_per_weight_unit")?,
                grace_period_end_epoch: collateral.natural("grace_period_end_epoch")?,
                slash_downtime_permille: collateral.decimal("slash_fraction_downtime")?.floor_of(1000),
            },
            participation: participation::Rule {
                delegation_share: delegation.decimal("delegation_share")?,
                refusal_penalty: delegation.decimal("refusal_penalty")?,
                no_participation_penalty: delegation.decimal("no_participation_penalty")?,
            },
            service: service::Rule {
                good: validation.decimal("downtime_good_percentage")?,
                bad: validation.decimal("downtime_bad_percentage")?,
                threshold: validation.decimal("downtime_h_threshold")?,
            },
            maintenance: maintenance::Rule {
                enabled: windows.get("maintenance_enabled")? == &Value::Bool(true),
                lead_blocks: windows.int("maintenance_min_schedule_lead_blocks")?,
                longest_blocks: windows.int("maintenance_max_window_blocks")?,
                concurrent: windows.natural("maintenance_max_concurrent_validators")?,
                concurrent_power_bps: windows.natural("maintenance_max_concurrent_power_bps")?,
                credit_cap_blocks: windows.natural("maintenance_credit_cap_blocks")?,
                earned_blocks: windows.natural("maintenance_credit_earn_per_successful_epoch_blocks")?,
            },
            reward_vesting_period: tokenomics.natural("reward_vesting_period")?,
            initial_epoch_reward: reward.natural("initial_epoch_reward")?,
            decay_rate: reward.decimal("decay_rate")?,
            genesis_epoch: reward.natural("genesis_epoch")?,
            json,
        })
    }
}

struct Group<'a> {
    json: &'a Value,
    name: &'static str,
}

impl<'a> Group<'a> {
    fn get(&self, name: &str) -> Result<&'a Value, String> {
        self.json
            .get(self.name)
            .and_then(|group| group.get(name))
            .ok_or_else(|| format!("parameter {}.{name} is missing", self.name))
    }

    fn int(&self, name: &str) -> Result<i64, String> {
        let value = self.get(name)?;
        value
            .as_i64()
            .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
            .ok_or_else(|| format!("network.parameters.{name}: {value} is not a whole number"))
    }

    fn natural(&self, name: &str) -> Result<u64, String> {
        u64::try_from(self.int(name)?).map_err(|_| format!("network.parameters.{name}: must not be negative"))
    }

    fn decimal(&self, name: &str) -> Result<Decimal, String> {
        let value = self.get(name)?;
        Decimal::from_rest(value).ok_or_else(|| format!("network.parameters.{name}: {value} is not a decimal"))
    }
}

fn set(json: &mut Value, name: &str, value: &Value) -> Result<(), String> {
    let groups = json.as_object_mut().expect("the embedded parameters are an object");
    let (group, leaf) = match name.split_once('.') {
        Some((group, leaf)) => (group.to_owned(), leaf),
        None => (group_of(groups, name)?, name),
    };
    let place = groups
        .get_mut(&group)
        .and_then(|group| group.get_mut(leaf))
        .ok_or("the chain has no such parameter")?;
    *place = reshaped(place, value)?;
    Ok(())
}

fn group_of(groups: &Map<String, Value>, leaf: &str) -> Result<String, String> {
    let found: Vec<&String> = groups
        .iter()
        .filter(|(_, group)| group.get(leaf).is_some())
        .map(|(name, _)| name)
        .collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err("the chain has no such parameter".to_owned()),
        several => Err(format!("occurs in {several:?}: write group.name")),
    }
}

/// `value` in the form that `like` has on the chain's REST.
fn reshaped(like: &Value, value: &Value) -> Result<Value, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(_) if like.is_boolean() => return Ok(value.clone()),
        Value::Object(_) | Value::Array(_) | Value::Null | Value::Bool(_) => {
            return Err(format!("{value} does not fit a parameter like {like}"));
        }
    };
    let whole = || text.parse::<i64>().map_err(|_| format!("{text} is not a whole number"));
    match like {
        Value::Number(_) => Ok(whole()?.into()),
        Value::String(old) if old.parse::<i64>().is_ok() => Ok(whole()?.to_string().into()),
        Value::String(_) => Ok(text.into()),
        Value::Object(decimal) if decimal.contains_key("exponent") => text
            .parse::<Decimal>()
            .map(Decimal::rest)
            .map_err(|error| error.to_string()),
        Value::Object(_) | Value::Array(_) | Value::Null | Value::Bool(_) => {
            Err(format!("{text} does not fit a parameter like {like}"))
        }
    }
}

fn check(lengths: &Lengths) -> Vec<String> {
    let mut wrong = Vec::new();
    let stages = lengths.stages(1);
    if lengths.poc_stage_duration < 3 {
        wrong.push("network.parameters.poc_stage_duration: a Sprint needs at least 3 blocks".to_owned());
    }
    if stages.set_new_validators >= stages.inference_validation_cutoff {
        wrong.push(format!(
            "network.parameters.epoch_length: {} blocks do not hold a Sprint, its validation and the cutoff",
            lengths.epoch_length
        ));
    }
    if lengths.epoch_shift < 0 || stages.poc_start < 1 {
        wrong.push(format!(
            "network.parameters.epoch_shift: the first Sprint would start at height {}",
            stages.poc_start
        ));
    }
    for (name, value) in [
        ("poc_exchange_duration", lengths.poc_exchange_duration),
        ("poc_validation_delay", lengths.poc_validation_delay),
        ("set_new_validators_delay", lengths.set_new_validators_delay),
        ("inference_validation_cutoff", lengths.inference_validation_cutoff),
        ("confirmation_poc_safety_window", lengths.confirmation_poc_safety_window),
        ("poc_validation_duration", lengths.poc_validation_duration - 1),
    ] {
        if value < 0 {
            wrong.push(format!("network.parameters.{name}: too small"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn overrides(pairs: &[(&str, Value)]) -> BTreeMap<String, Value> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect()
    }

    #[test]
    fn an_override_takes_the_form_of_what_it_replaces() {
        let given = overrides(&[
            ("epoch_length", json!(84)),
            ("epoch_shift", json!(23)),
            ("poc_slot_allocation", json!(0.25)),
            ("validation_sample_size", json!(24)),
            ("poc_stronger_rng_enabled", json!(true)),
        ]);
        let parameters = Parameters::with(&given).expect("valid");
        assert_eq!(parameters.lengths.stages(1).poc_start, 61);
        assert_eq!(parameters.json["epoch_params"]["epoch_length"], json!("84"));
        assert_eq!(
            parameters.json["epoch_params"]["poc_slot_allocation"],
            json!({"value": "25", "exponent": -2})
        );
        assert_eq!(parameters.json["poc_params"]["validation_sample_size"], json!(24));
        assert!(parameters.poc_stronger_rng_enabled);
    }

    #[test]
    fn every_wrong_override_is_named() {
        let given = overrides(&[
            ("epoch_lenght", json!(1)),
            ("grace_period_end_epoch", json!(1)),
            ("poc_stage_duration", json!("soon")),
        ]);
        let wrong = Parameters::with(&given).expect_err("invalid");
        assert_eq!(wrong.len(), 3);
        assert!(wrong[0].contains("epoch_lenght: the chain has no such parameter"));
        assert!(wrong[1].contains("write group.name"));
        assert!(wrong[2].contains("soon is not a whole number"));
    }

    #[test]
    fn an_epoch_too_short_for_its_stages_is_refused() {
        let wrong = Parameters::with(&overrides(&[("epoch_length", json!(36))])).expect_err("invalid");
        assert!(wrong.iter().any(|line| line.contains("do not hold a Sprint")));
    }
}
