//! The registry behind the admin API: upsert by body id, numbers that are never given twice, and the recorded oddities
//! (the id in the path of a PUT is ignored, deleting nobody is a success that says `false`).

use super::{AdminState, Node, PocStatus, Status, broker, reply::Reply};
use crate::{event::Effect, network::Network};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most nodes one host may have.
const MAX_NODES: usize = 8192;
const MAX_ID: usize = 253;

/// A node as the admin API takes and shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    #[serde(default)]
    pub host: String,
    #[serde(default)]
    pub inference_segment: String,
    #[serde(default)]
    pub inference_port: u16,
    #[serde(default)]
    pub poc_segment: String,
    #[serde(default)]
    pub poc_port: u16,
    #[serde(default)]
    pub models: BTreeMap<String, ModelArgs>,
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub max_concurrent: u32,
    #[serde(default, deserialize_with = "null_as_empty")]
    pub hardware: Vec<Hardware>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelArgs {
    #[serde(default, deserialize_with = "null_as_empty")]
    pub args: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub count: u32,
}

fn null_as_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

impl NodeSpec {
    fn problems(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.id.is_empty() || self.id.len() > MAX_ID {
            wrong.push("node id is required".to_owned());
        }
        if self.host.is_empty() || self.host.contains(['/', ' ', '\r', '\n', '@', '?', '#']) {
            wrong.push("host is required, without a scheme".to_owned());
        }
        if self.inference_port == 0 || self.poc_port == 0 {
            wrong.push("inference_port and poc_port must be between 1 and 65535".to_owned());
        }
        if self.max_concurrent == 0 {
            wrong.push("max_concurrent must be greater than 0".to_owned());
        }
        if self.models.is_empty() {
            wrong.push("at least one model is required".to_owned());
        }
        for segment in [&self.inference_segment, &self.poc_segment] {
            if segment.contains(['\r', '\n', ' ']) {
                wrong.push("a segment must not contain spaces".to_owned());
            }
        }
        wrong
    }
}

/// `POST nodes` and `PUT nodes/:id` alike: the id in the body decides.
pub fn upsert(net: &mut Network, body: &[u8]) -> (Reply, Vec<Effect>) {
    match serde_json::from_slice::<NodeSpec>(body) {
        Err(error) => (Reply::error(400, &error.to_string()), Vec::new()),
        Ok(spec) => upsert_spec(net, spec),
    }
}

/// The same with the node as a value.
pub fn upsert_spec(net: &mut Network, spec: NodeSpec) -> (Reply, Vec<Effect>) {
    match upsert_one(net, spec) {
        Ok((shown, effects)) => (Reply::json(200, shown), effects),
        Err((status, message)) => (Reply::error(status, &message), Vec::new()),
    }
}

/// `POST nodes/batch`: 201 when all went in, 206 when some did, 400 when none did.
pub fn upsert_batch(net: &mut Network, body: &[u8]) -> (Reply, Vec<Effect>) {
    let specs = match serde_json::from_slice::<Vec<NodeSpec>>(body) {
        Ok(specs) => specs,
        Err(error) => return (Reply::error(400, &error.to_string()), Vec::new()),
    };
    let (mut shown, mut errors, mut effects) = (Vec::new(), Vec::new(), Vec::new());
    for spec in specs {
        let id = spec.id.clone();
        match upsert_one(net, spec) {
            Ok((node, more)) => {
                shown.push(node);
                effects.extend(more);
            }
            Err((_, message)) => errors.push(format!("{id}: {message}")),
        }
    }
    let reply = match (shown.is_empty(), errors.is_empty()) {
        (_, true) => Reply::json(201, shown.into()),
        (false, false) => Reply::json(206, json!({"nodes": shown, "errors": errors})),
        (true, false) => Reply::json(400, json!({"errors": errors})),
    };
    (reply, effects)
}

fn upsert_one(net: &mut Network, mut spec: NodeSpec) -> Result<(Value, Vec<Effect>), (u16, String)> {
    let wrong = spec.problems();
    if !wrong.is_empty() {
        return Err((400, wrong.join("; ")));
    }
    let known = net.dapi.node(&spec.id).is_some();
    let foreign: Vec<String> = spec
        .models
        .keys()
        .filter(|id| net.model(id).is_none())
        .cloned()
        .collect();
    if known && !foreign.is_empty() {
        return Err((500, format!("model {} is not a governance model", foreign.join(", "))));
    }
    spec.models.retain(|id, _| !foreign.contains(id));
    if spec.models.is_empty() {
        return Err((500, "no governance models found for node".to_owned()));
    }
    for other in net.dapi.nodes.iter().filter(|node| node.spec.id != spec.id) {
        if other.spec.host == spec.host
            && (other.spec.inference_port == spec.inference_port || other.spec.poc_port == spec.poc_port)
        {
            return Err((400, format!("host and port are already used by node {}", other.spec.id)));
        }
    }
    if !known && net.dapi.nodes.len() >= MAX_NODES {
        return Err((500, format!("{MAX_NODES} nodes are registered already")));
    }
    let shown = json!(spec);
    let id = spec.id.clone();
    if known {
        if let Some(node) = net.dapi.node_mut(&id) {
            node.spec = spec;
        }
        return Ok((shown, Vec::new()));
    }
    register(net, spec);
    Ok((shown, broker::look_at(net, &id)))
}

fn register(net: &mut Network, spec: NodeSpec) {
    net.dapi.highest_num += 1;
    let node = Node {
        spec,
        node_num: net.dapi.highest_num,
        intended: (Status::Inference, PocStatus::Idle),
        current: (Status::Unknown, PocStatus::Idle),
        failure_reason: String::new(),
        status_ms: net.now_ms,
        admin: AdminState {
            enabled: true,
            epoch: net.latest_epoch(),
        },
        version: String::new(),
        poc_validation_inference: false,
        job: None,
    };
    net.dapi.add(node);
}

/// `DELETE nodes/:id`: whether there was such a node. Its number stays used.
pub fn delete(net: &mut Network, id: &str) -> Reply {
    Reply::json(200, net.dapi.remove(id).into())
}

/// `POST nodes/:id/enable` and `/disable`: kept in memory only.
pub fn set_enabled(net: &mut Network, id: &str, enabled: bool) -> Reply {
    let epoch = net.latest_epoch();
    let word = if enabled { "enabled" } else { "disabled" };
    match net.dapi.node_mut(id) {
        None => Reply::error(404, &format!("node not found: {id}")),
        Some(node) => {
            node.admin = AdminState { enabled, epoch };
            Reply::json(
                200,
                json!({"message": format!("node {word} successfully"), "node_id": id}),
            )
        }
    }
}

#[cfg(test)]
mod tests;
