//! Recordings of the real network, and the comparison of shapes.

use serde_json::{Value, json};
use std::path::Path;

/// One recorded call.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: String,
    /// With the version prefix DAPI used.
    pub path: String,
    pub body: Value,
    pub status: u16,
    pub response: Value,
}

pub fn call(name: &str) -> Call {
    let value = file(name);
    Call {
        method: value["method"].as_str().unwrap().to_owned(),
        path: value["path"].as_str().unwrap().to_owned(),
        body: value["body"].clone(),
        status: value["status"].as_u64().unwrap() as u16,
        response: value["response"].clone(),
    }
}

pub fn file(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/recorded/{name}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Keys and types, values left out; a list is the shape of its first element.
pub fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        Value::Array(items) => items.first().map_or(json!([]), |first| json!([shape(first)])),
        Value::String(_) => json!("text"),
        Value::Number(_) => json!("number"),
        Value::Bool(_) => json!("switch"),
        Value::Null => Value::Null,
    }
}
