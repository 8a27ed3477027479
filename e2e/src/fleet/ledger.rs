//! The network's ledger as tests read it: parameters of an epoch, and what our nodes brought in an exam.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A number among the epoch's parameters.
pub fn parameter(ledger: &Value, name: &str) -> Result<i64> {
    let value = &ledger["parameters"]["epoch_params"][name];
    value
        .as_i64()
        .or_else(|| value.as_str()?.parse().ok())
        .with_context(|| format!("the network does not say its {name}"))
}

/// Height at which the generation of the Sprint that starts at `start` ends.
pub fn generation_end(ledger: &Value, start: i64) -> Result<i64> {
    Ok(start + parameter(ledger, "poc_stage_duration")?)
}

/// First and last height of the validation of the Sprint that starts at `start`.
pub fn validation(ledger: &Value, start: i64) -> Result<(i64, i64)> {
    let mut begins = start;
    for part in ["poc_stage_duration", "poc_exchange_duration", "poc_validation_delay"] {
        begins += parameter(ledger, part)?;
    }
    Ok((begins, begins + parameter(ledger, "poc_validation_duration")?))
}

/// Our nodes in the exam that starts at `start`.
pub fn own_nodes(ledger: &Value, start: i64) -> Result<&[Value]> {
    fn all(value: &Value) -> &[Value] {
        value.as_array().map(Vec::as_slice).unwrap_or_default()
    }
    let exam = all(&ledger["exams"])
        .iter()
        .find(|exam| exam["start_height"] == start)
        .with_context(|| format!("the ledger has no exam of height {start}"))?;
    let ours = all(&exam["hosts"])
        .iter()
        .find(|host| host["name"] == "ours")
        .context("our host took no part")?;
    Ok(all(&ours["nodes"]))
}
