//! The recorded answers: one file per endpoint and height, from version 0.2.14.

use super::directory;
use serde_json::Value;
use std::{fs, path::PathBuf};

/// One recorded answer.
#[derive(Debug)]
pub struct Recording {
    /// The file's name: `<door>-<endpoint>__<height>`.
    pub name: String,
    pub door: String,
    /// The name without its height.
    pub endpoint: String,
    pub height: i64,
    pub method: String,
    /// With its query, as asked.
    pub path: String,
    pub request: Option<Value>,
    /// Absent where no request was answered: an event of a subscription.
    pub status: Option<u64>,
    pub body: Value,
}

/// A text that is no JSON was kept under a name of the recorder's own.
fn body(kept: &Value) -> Value {
    match kept.get("_text") {
        Some(Value::String(text)) if text.is_empty() => Value::Null,
        Some(text) => text.clone(),
        None => kept.clone(),
    }
}

fn read(path: &PathBuf) -> Recording {
    let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
    let file: Value = serde_json::from_str(&fs::read_to_string(path).expect("a recording")).expect("JSON");
    let text = |key: &str| file[key].as_str().unwrap_or_default().to_owned();
    let (endpoint, _) = name.rsplit_once("__").expect("a name with a height");
    Recording {
        door: name.split('-').next().unwrap_or_default().to_owned(),
        endpoint: endpoint.to_owned(),
        height: file["height"].as_i64().expect("a height"),
        method: text("method"),
        path: text("path"),
        request: file.get("request_body").cloned(),
        status: file["status"].as_u64(),
        body: body(&file["body"]),
        name,
    }
}

/// All of them, by name.
pub fn all() -> Vec<Recording> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory())
        .expect("recordings")
        .map(|entry| entry.expect("entry").path())
        .collect();
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.extension().is_some_and(|extension| extension == "json") && !name.starts_with("sequence-")
    });
    files.sort();
    files.iter().map(read).collect()
}
