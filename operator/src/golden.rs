//! Golden tests: each folder under `tests/golden/<kind>` is one behaviour, `observed.yaml` in, `desired.yaml` out.
//! `UPDATE_GENERATED=1 cargo test` writes the outputs anew; the diff is reviewed as code.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

#[expect(clippy::disallowed_methods, reason = "a test asks whether to write its expectations")]
fn updating() -> bool {
    std::env::var_os("UPDATE_GENERATED").is_some()
}

fn folders(kind: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(kind);
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&root)
        .unwrap_or_else(|error| panic!("{}: {error}", root.display()))
        .map(|entry| entry.expect("a folder entry").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// `base.yaml` of the kind, overlaid with the case: objects merge, null removes, everything else replaces.
fn input(kind: &str, folder: &Path) -> Value {
    let read = |path: PathBuf| -> Value {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let base = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(kind)
        .join("base.yaml");
    let mut value = read(base);
    merge(&mut value, read(folder.join("observed.yaml")));
    value
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from,
    }
}

/// Runs every case of a kind and returns how many there were.
pub fn check<I, O>(kind: &str, decide: impl Fn(&I) -> O) -> usize
where
    I: DeserializeOwned,
    O: Serialize,
{
    let folders = folders(kind);
    let mut wrong = Vec::new();
    for folder in &folders {
        let observed: I =
            serde_json::from_value(input(kind, folder)).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let desired = serde_yaml::to_string(&decide(&observed)).expect("serialises");
        let path = folder.join("desired.yaml");
        if updating() {
            std::fs::write(&path, &desired).expect("the expectation is written");
            continue;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if expected != desired {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            wrong.push(format!("{name}\n--- expected\n{expected}\n+++ decided\n{desired}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases differ:\n{}",
        wrong.len(),
        folders.len(),
        wrong.join("\n")
    );
    folders.len()
}
