//! CometBFT's RPC over HTTP: methods as GET paths and as JSON-RPC posts.

use super::{Content, Inbound, Outbound};
use crate::{
    driver::Shared,
    faults::Port,
    views::{View, rpc},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most calls of one JSON-RPC batch.
const MAX_BATCH: usize = 100;
const INTERNAL: i64 = -32603;

/// A failed call: code, message, details.
pub type Failure = (i64, &'static str, String);

pub fn answer(shared: &Shared, port: Port, inbound: &Inbound) -> Outbound {
    let name = inbound.path.trim_matches('/');
    if inbound.method == "POST" && name.is_empty() {
        return Outbound::json(200, post(shared, port, &inbound.body));
    }
    let params: BTreeMap<String, Value> = inbound
        .query
        .iter()
        .map(|(key, value)| (key.clone(), Value::String(value.trim_matches('"').to_owned())))
        .collect();
    let id = json!(-1);
    match shared.view(port, |view| call(view, name, &params)) {
        Some(Ok(result)) => Outbound::json(200, rpc::success(&id, &result)),
        Some(Err((code, message, data))) => Outbound::json(500, rpc::failure(&id, code, message, &data)),
        None if name.is_empty() => Outbound {
            status: 200,
            headers: Vec::new(),
            content: Content::Text(menu()),
        },
        None => Outbound::text(404, "404 page not found\n"),
    }
}

fn menu() -> String {
    const METHODS: [&str; 9] = [
        "abci_info",
        "block",
        "block_results",
        "block_search",
        "health",
        "net_info",
        "status",
        "validators",
        "websocket",
    ];
    METHODS.map(|name| format!("/{name}\n")).concat()
}

fn post(shared: &Shared, port: Port, body: &[u8]) -> Value {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Array(calls)) if calls.len() <= MAX_BATCH => {
            calls.iter().map(|request| one(shared, port, request)).collect()
        }
        Ok(request @ Value::Object(_)) => one(shared, port, &request),
        Ok(_) => rpc::failure(
            &Value::Null,
            -32600,
            "Invalid Request",
            "a call or a batch of at most 100 calls",
        ),
        Err(error) => rpc::failure(&Value::Null, -32700, "Parse error. Invalid JSON", &error.to_string()),
    }
}

fn one(shared: &Shared, port: Port, request: &Value) -> Value {
    let id = request.get("id").cloned().unwrap_or(Value::Null);
    let name = request["method"].as_str().unwrap_or_default();
    shared.view(port, |view| respond(view, &id, name, &named(name, &request["params"])))
}

/// The answer to a call with an id, also used over WebSocket.
pub fn respond(view: &View, id: &Value, name: &str, params: &BTreeMap<String, Value>) -> Value {
    match call(view, name, params) {
        Some(Ok(result)) => rpc::success(id, &result),
        Some(Err((code, message, data))) => rpc::failure(id, code, message, &data),
        None => rpc::failure(id, -32601, "Method not found", ""),
    }
}

/// Parameters by name, whether they came by name or by place.
pub fn named(method: &str, params: &Value) -> BTreeMap<String, Value> {
    match params {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        Value::Array(items) => {
            let first = if matches!(method, "subscribe" | "unsubscribe" | "block_search") {
                "query"
            } else {
                "height"
            };
            items
                .first()
                .map(|value| (first.to_owned(), value.clone()))
                .into_iter()
                .collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => BTreeMap::new(),
    }
}

fn call(view: &View, name: &str, params: &BTreeMap<String, Value>) -> Option<Result<Value, Failure>> {
    let result = match name {
        "status" => Ok(rpc::status(view)),
        "health" => Ok(json!({})),
        "net_info" => Ok(rpc::net_info()),
        "abci_info" => Ok(rpc::abci_info(view)),
        "validators" => Ok(rpc::validators(view)),
        "block" => height(view, params).and_then(|height| found(rpc::block(view, height), height)),
        "block_results" => height(view, params).and_then(|height| found(rpc::block_results(view, height), height)),
        "block_search" => Ok(search(view, params)),
        _ => return None,
    };
    Some(result)
}

fn found(block: Option<Value>, height: i64) -> Result<Value, Failure> {
    block.ok_or_else(|| (INTERNAL, "Internal error", format!("could not find block {height}")))
}

fn height(view: &View, params: &BTreeMap<String, Value>) -> Result<i64, Failure> {
    let Some(given) = params.get("height").filter(|value| !value.is_null()) else {
        return Ok(view.height());
    };
    let text = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
    let wrong = |data: String| (INTERNAL, "Internal error", data);
    let height: i64 = text
        .parse()
        .map_err(|_| (-32602, "Invalid params", format!("height {text} is no number")))?;
    if height <= 0 {
        return Err(wrong(format!("height must be greater than 0, but got {height}")));
    }
    let latest = view.height();
    if height > latest {
        return Err(wrong(format!(
            "height {height} must be less than or equal to the current blockchain height {latest}"
        )));
    }
    Ok(height)
}

/// `block_search` for one height, the only query anybody here makes.
fn search(view: &View, params: &BTreeMap<String, Value>) -> Value {
    let query = params.get("query").and_then(Value::as_str).unwrap_or_default();
    let block = query
        .trim_matches('"')
        .strip_prefix("block.height=")
        .and_then(|height| height.trim_matches('\'').parse().ok())
        .and_then(|height| rpc::block(view, height));
    let blocks: Vec<Value> = block.into_iter().collect();
    json!({"total_count": blocks.len().to_string(), "blocks": blocks})
}
