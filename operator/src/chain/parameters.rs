//! Protocol parameters of any known release to one value. Pure.

use crds::sprint_schedule::{ChainModel, ChainParameters};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::shapes::{ShapeError, boolean, decimal, integer, list, member, required_integer, text};

/// Most models that are read.
const MAX_MODELS: usize = 64;
/// Longest duration that is believed, blocks.
const MAX_BLOCKS: i64 = 100_000_000;

/// The scheme of proof that is in force when nothing says which: the only one there was before there were several.
const PREFILL: &str = "POC_SCHEME_PREFILL";

/// Reads parameters: `{params: {epoch_params: …}}`, `{epoch_params: …}`, with the box in a box of its own name, or the
/// epoch's members without a box around them. A model's proof stands in the model or in its block of the scheme in force.
/// Zeros may be missing, as DAPI leaves them out.
pub fn parse(answer: &Value, source_height: i64) -> Result<ChainParameters, ShapeError> {
    let params = member(answer, "params").unwrap_or(answer);
    let epoch = epoch_of(params);
    let poc = member(params, "poc_params").unwrap_or(params);
    let confirmation = member(params, "confirmation_poc_params").unwrap_or(params);
    let parameters = ChainParameters {
        source_height,
        epoch_length: required_integer(epoch, "epoch_length")?,
        poc_stage_duration: required_integer(epoch, "poc_stage_duration")?,
        poc_exchange_duration: integer(epoch, "poc_exchange_duration")?,
        poc_validation_delay: integer(epoch, "poc_validation_delay")?,
        poc_validation_duration: integer(epoch, "poc_validation_duration")?,
        set_new_validators_delay: integer(epoch, "set_new_validators_delay")?,
        inference_validation_cutoff: integer(epoch, "inference_validation_cutoff")?,
        confirmation_poc_safety_window: integer(epoch, "confirmation_poc_safety_window")?,
        poc_slot_allocation: decimal(epoch, "poc_slot_allocation")?.unwrap_or_else(zero),
        expected_confirmations_per_epoch: integer(confirmation, "expected_confirmations_per_epoch")?,
        alpha_threshold: decimal(confirmation, "alpha_threshold")?.unwrap_or_else(zero),
        upgrade_protection_window: integer(confirmation, "upgrade_protection_window")?,
        validation_vote_threshold_basis_points: integer(poc, "validation_vote_threshold_bps")?,
        validation_sample_size: integer(poc, "validation_sample_size")?,
        stronger_rng: boolean(poc, "poc_stronger_rng_enabled")?,
        models: models(poc)?,
    };
    plausible(&parameters)?;
    Ok(parameters)
}

/// `epoch_shift`, which places the first Sprint of a chain; 0 when missing.
pub fn epoch_shift(answer: &Value) -> Result<i64, ShapeError> {
    let params = member(answer, "params").unwrap_or(answer);
    integer(epoch_of(params), "epoch_shift")
}

fn epoch_of(params: &Value) -> &Value {
    let epoch = member(params, "epoch_params").unwrap_or(params);
    member(epoch, "epoch_params").unwrap_or(epoch)
}

/// SHA-256 of everything but the height they were read at.
///
/// # Panics
/// Never: plain members serialise to JSON.
pub fn hash(parameters: &ChainParameters) -> String {
    let same_everywhere = ChainParameters {
        source_height: 0,
        ..parameters.clone()
    };
    let bytes = serde_json::to_vec(&same_everywhere).expect("plain members serialise to JSON");
    hex::encode(Sha256::digest(bytes))
}

fn zero() -> String {
    "0".to_owned()
}

fn models(poc: &Value) -> Result<Vec<ChainModel>, ShapeError> {
    let listed = list(poc, "models")?;
    if listed.len() > MAX_MODELS {
        return Err(ShapeError::new("models", &format!("{} entries", listed.len())));
    }
    let scheme = scheme(poc, "poc_scheme")?;
    if !listed.is_empty() {
        return listed.iter().map(|entry| model(entry, &scheme)).collect();
    }
    // Before several models, the one model stood in the parameters themselves.
    if text(poc, "model_id")?.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![model(poc, &scheme)?])
}

/// Name of a scheme; zero and missing are the first one.
fn scheme(object: &Value, key: &str) -> Result<String, ShapeError> {
    let name = match member(object, key) {
        Some(Value::Number(_)) => integer(object, key)?.to_string(),
        _ => text(object, key)?,
    };
    Ok(match name.as_str() {
        "" | "0" => PREFILL.to_owned(),
        _ => name,
    })
}

/// Where a model's proof is described: the block of the scheme in force; in the model itself where it has no blocks.
fn recipe<'a>(entry: &'a Value, in_force: &str) -> Result<&'a Value, ShapeError> {
    let blocks = list(entry, "schemes")?;
    if blocks.is_empty() {
        return Ok(entry);
    }
    for block in blocks {
        if scheme(block, "scheme")? == in_force {
            return Ok(block);
        }
    }
    Err(ShapeError::new("models[].schemes", &format!("no block of {in_force}")))
}

fn model(entry: &Value, in_force: &str) -> Result<ChainModel, ShapeError> {
    let model_id = text(entry, "model_id")?;
    if model_id.is_empty() {
        return Err(ShapeError::new("models[].model_id", "nothing"));
    }
    let recipe = recipe(entry, in_force)?;
    let test = member(recipe, "stat_test").unwrap_or(recipe);
    Ok(ChainModel {
        model_id,
        seq_len: integer(recipe, "seq_len")?,
        dist_threshold: decimal(test, "dist_threshold")?,
        p_mismatch: decimal(test, "p_mismatch")?,
        p_value_threshold: decimal(test, "p_value_threshold")?,
        weight_scale_factor: decimal(entry, "weight_scale_factor")?,
    })
}

/// Durations that cannot be durations are a shape we do not know.
fn plausible(parameters: &ChainParameters) -> Result<(), ShapeError> {
    let positive = [
        ("epoch_length", parameters.epoch_length),
        ("poc_stage_duration", parameters.poc_stage_duration),
    ];
    let not_negative = [
        ("poc_exchange_duration", parameters.poc_exchange_duration),
        ("poc_validation_delay", parameters.poc_validation_delay),
        ("poc_validation_duration", parameters.poc_validation_duration),
        ("set_new_validators_delay", parameters.set_new_validators_delay),
        ("inference_validation_cutoff", parameters.inference_validation_cutoff),
        (
            "confirmation_poc_safety_window",
            parameters.confirmation_poc_safety_window,
        ),
        ("upgrade_protection_window", parameters.upgrade_protection_window),
    ];
    let out_of_range = positive
        .iter()
        .find(|(_, blocks)| !(1..=MAX_BLOCKS).contains(blocks))
        .or_else(|| {
            not_negative
                .iter()
                .find(|(_, blocks)| !(0..=MAX_BLOCKS).contains(blocks))
        });
    if let Some((field, blocks)) = out_of_range {
        return Err(ShapeError::new(field, &format!("{blocks} blocks")));
    }
    let sprint = parameters.poc_stage_duration
        + parameters.poc_exchange_duration
        + parameters.poc_validation_delay
        + parameters.poc_validation_duration
        + parameters.set_new_validators_delay;
    if sprint >= parameters.epoch_length {
        return Err(ShapeError::new(
            "epoch_length",
            &format!("{} blocks, shorter than a Sprint of {sprint}", parameters.epoch_length),
        ));
    }
    Ok(())
}
