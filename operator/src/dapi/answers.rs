//! Box 2: DAPI's answers as values. Pure; what is foreign is read tolerantly and bounded, an unknown shape is an error.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chain::shapes::{ShapeError, boolean, integer, list, member, text};

/// Most nodes one DAPI is believed to have.
const MAX_NODES: usize = 4096;
/// Most models, arguments or devices of one node.
const MAX_PARTS: usize = 512;
/// Most checks of a setup report that are kept.
const MAX_CHECKS: usize = 4096;
/// Longest node id.
const MAX_ID: usize = 253;

/// A node as DAPI takes it. Its answers have the same members, and more.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct NodeSpec {
    /// Decides which node is meant, whatever the path says.
    pub id: String,
    /// Address without a scheme.
    pub host: String,
    /// Path prefix on the inference port.
    #[serde(default)]
    pub inference_segment: String,
    /// Port of inference.
    pub inference_port: i64,
    /// Path prefix on the management port.
    #[serde(default)]
    pub poc_segment: String,
    /// Port of management and PoC.
    pub poc_port: i64,
    /// Requests DAPI queues at once.
    pub max_concurrent: i64,
    /// Models by id.
    pub models: BTreeMap<String, ModelArgs>,
    /// Devices.
    #[serde(default)]
    pub hardware: Vec<Hardware>,
    /// Members this version does not know; a PUT hands them back as they were.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Local arguments of a model.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ModelArgs {
    /// Appended to the chain's arguments.
    #[serde(default)]
    pub args: Vec<String>,
}

/// Devices of one type.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hardware {
    /// `<NAME> | <GB>GB`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How many.
    pub count: i64,
}

/// A node as DAPI lists it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Registered {
    /// The node.
    pub node: NodeSpec,
    /// Number DAPI gave it; 0 = not told.
    #[serde(default)]
    pub node_num: i32,
    /// What DAPI knows of it; absent until it looked.
    #[serde(default)]
    pub state: Option<NodeState>,
}

/// What DAPI knows of a node.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeState {
    /// `INFERENCE`, `POC`, `STOPPED`, `FAILED`, …
    pub current_status: String,
    /// What DAPI wants it to be.
    pub intended_status: String,
    /// `IDLE`, `GENERATING`, `VALIDATING`.
    pub poc_current_status: String,
    /// Why it failed; empty when it did not.
    pub failure_reason: String,
    /// False when a person disabled it.
    pub enabled: bool,
    /// Models for which it is left on inference in the exam at hand.
    pub preserved_models: BTreeSet<String>,
}

/// Body of a member that is known, taken out of the map that keeps the others.
const KNOWN: [&str; 10] = [
    "id",
    "host",
    "inference_segment",
    "inference_port",
    "poc_segment",
    "poc_port",
    "max_concurrent",
    "models",
    "hardware",
    "node_num",
];

/// Reads `GET /admin/v1/nodes`, sorted by id.
pub fn nodes(answer: &Value) -> Result<Vec<Registered>, ShapeError> {
    let entries = match answer {
        Value::Null => &[],
        Value::Array(entries) if entries.len() <= MAX_NODES => entries.as_slice(),
        Value::Array(_) => return Err(ShapeError::new("nodes", "too many")),
        other => return Err(ShapeError::new("nodes", &other.to_string())),
    };
    let mut nodes = entries.iter().map(registered).collect::<Result<Vec<_>, _>>()?;
    nodes.sort_by(|a, b| a.node.id.cmp(&b.node.id));
    if let Some(twice) = nodes.windows(2).find(|pair| pair[0].node.id == pair[1].node.id) {
        return Err(ShapeError::new("id", &format!("{} twice", twice[0].node.id)));
    }
    Ok(nodes)
}

fn registered(entry: &Value) -> Result<Registered, ShapeError> {
    let node = member(entry, "node").ok_or_else(|| ShapeError::new("node", "nothing"))?;
    let number = integer(node, "node_num")?;
    Ok(Registered {
        node: spec(node)?,
        node_num: i32::try_from(number)
            .ok()
            .filter(|number| *number >= 0)
            .ok_or_else(|| ShapeError::new("node_num", &number.to_string()))?,
        state: member(entry, "state").map(state).transpose()?,
    })
}

fn spec(node: &Value) -> Result<NodeSpec, ShapeError> {
    let id = text(node, "id")?;
    if id.is_empty() || id.len() > MAX_ID {
        return Err(ShapeError::new("id", &id));
    }
    let other = node
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !KNOWN.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Ok(NodeSpec {
        id,
        host: text(node, "host")?,
        inference_segment: text(node, "inference_segment")?,
        inference_port: integer(node, "inference_port")?,
        poc_segment: text(node, "poc_segment")?,
        poc_port: integer(node, "poc_port")?,
        max_concurrent: integer(node, "max_concurrent")?,
        models: models(member(node, "models"))?,
        hardware: bounded("hardware", list(node, "hardware")?)?
            .iter()
            .map(|device| {
                Ok(Hardware {
                    kind: text(device, "type")?,
                    count: integer(device, "count")?,
                })
            })
            .collect::<Result<_, ShapeError>>()?,
        other,
    })
}

fn models(value: Option<&Value>) -> Result<BTreeMap<String, ModelArgs>, ShapeError> {
    let Some(value) = value else {
        return Ok(BTreeMap::new());
    };
    let models = value
        .as_object()
        .ok_or_else(|| ShapeError::new("models", &value.to_string()))?;
    if models.len() > MAX_PARTS {
        return Err(ShapeError::new("models", "too many"));
    }
    models
        .iter()
        .map(|(id, model)| {
            Ok((
                id.clone(),
                ModelArgs {
                    args: texts("args", model)?,
                },
            ))
        })
        .collect()
}

fn texts(key: &str, object: &Value) -> Result<Vec<String>, ShapeError> {
    bounded(key, list(object, key)?)?
        .iter()
        .map(|item| {
            item.as_str()
                .map(str::to_owned)
                .ok_or_else(|| ShapeError::new(key, &item.to_string()))
        })
        .collect()
}

fn bounded<'a>(key: &str, items: &'a [Value]) -> Result<&'a [Value], ShapeError> {
    if items.len() > MAX_PARTS {
        return Err(ShapeError::new(key, "too many"));
    }
    Ok(items)
}

fn state(state: &Value) -> Result<NodeState, ShapeError> {
    let admin = member(state, "admin_state");
    let enabled = match admin.and_then(|admin| member(admin, "enabled").map(|_| admin)) {
        Some(admin) => boolean(admin, "enabled")?,
        // A node nobody disabled.
        None => true,
    };
    let preserved_models = match member(state, "preserved_models") {
        Some(Value::Object(models)) => models
            .iter()
            .filter(|(_, on)| **on != Value::Bool(false))
            .map(|(id, _)| id.clone())
            .collect(),
        None => BTreeSet::new(),
        Some(other) => return Err(ShapeError::new("preserved_models", &other.to_string())),
    };
    Ok(NodeState {
        current_status: text(state, "current_status")?,
        intended_status: text(state, "intended_status")?,
        poc_current_status: text(state, "poc_current_status")?,
        failure_reason: text(state, "failure_reason")?,
        enabled,
        preserved_models,
    })
}

/// `GET /admin/v1/setup/report`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SetupReport {
    /// Checks by id; `mlnode_<id>` for each node.
    pub checks: BTreeMap<String, Check>,
    /// Cold account this DAPI works for; empty when it does not say.
    pub account: String,
}

/// One check.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Check {
    /// Its result.
    pub status: CheckStatus,
    /// What DAPI says about it.
    pub message: String,
}

/// Result of a check.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum CheckStatus {
    /// In order.
    Pass,
    /// Not in order.
    Fail,
    /// DAPI could not tell, or said something this version does not know.
    #[default]
    Unavailable,
}

impl SetupReport {
    /// A check that was made.
    pub fn check(&self, id: &str) -> Option<&Check> {
        self.checks.get(id)
    }
}

/// Reads `GET /admin/v1/setup/report`.
pub fn setup_report(answer: &Value) -> Result<SetupReport, ShapeError> {
    let mut report = SetupReport::default();
    for entry in list(answer, "checks")?.iter().take(MAX_CHECKS) {
        let id = text(entry, "id")?;
        let status = match text(entry, "status")?.to_ascii_uppercase().as_str() {
            "PASS" => CheckStatus::Pass,
            "FAIL" => CheckStatus::Fail,
            _ => CheckStatus::Unavailable,
        };
        if id == "cold_key_configured"
            && let Some(details) = member(entry, "details")
        {
            report.account = text(details, "address")?;
        }
        report.checks.insert(
            id,
            Check {
                status,
                message: text(entry, "message")?,
            },
        );
    }
    Ok(report)
}

/// `GET /v1/epochs/latest`, as far as it tells something the chain does not: where DAPI itself stands.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Latest {
    /// Newest block DAPI has seen.
    pub block_height: i64,
    /// Newest epoch.
    pub epoch: i64,
    /// Start of its Sprint.
    pub poc_start_height: i64,
    /// DAPI's word for the phase.
    pub phase: String,
}

/// Reads `GET /v1/epochs/latest`.
pub fn latest(answer: &Value) -> Result<Latest, ShapeError> {
    let epoch = member(answer, "latest_epoch").unwrap_or(&Value::Null);
    Ok(Latest {
        block_height: integer(answer, "block_height")?,
        epoch: integer(epoch, "index")?,
        poc_start_height: integer(epoch, "poc_start_block_height")?,
        phase: text(answer, "phase")?,
    })
}

/// `GET /v1/poc/artifacts/state`: what DAPI accepted in one exam.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ArtifactState {
    /// Artifacts accepted.
    pub count: i64,
    /// Root of their tree, base64.
    pub root_hash: String,
}

/// Reads `GET /v1/poc/artifacts/state`.
pub fn artifact_state(answer: &Value) -> Result<ArtifactState, ShapeError> {
    Ok(ArtifactState {
        count: integer(answer, "count")?,
        root_hash: text(answer, "root_hash")?,
    })
}

/// Reads `GET /v1/identity`: the account this DAPI signs for; empty when it does not say.
pub fn identity(answer: &Value) -> Result<String, ShapeError> {
    text(member(answer, "data").unwrap_or(answer), "address")
}

/// What an error body says, shortened: `{"error":"text"}` or `{"error":{"message":"text"}}`, else the text itself.
pub fn said(body: &[u8]) -> String {
    const MAX: usize = 300;
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let error = parsed.as_ref().and_then(|value| member(value, "error"));
    let text = match error {
        Some(Value::String(text)) => text.clone(),
        Some(other) => member(other, "message")
            .and_then(Value::as_str)
            .map_or_else(|| other.to_string(), str::to_owned),
        None => String::from_utf8_lossy(body).into_owned(),
    };
    let printable: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(MAX)
        .collect();
    printable.trim().to_owned()
}

#[cfg(test)]
mod tests;
