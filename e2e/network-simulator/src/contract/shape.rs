//! What differs between two answers in shape: keys, and kinds of values. Values are not looked at; elements of a list
//! are put together first, so that a key of one element counts as a key of all.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Keys whose objects are maps: their keys are data.
const MAPS: [&str; 6] = [
    "models",
    "epoch_models",
    "epoch_ml_nodes",
    "preserved_models",
    "details",
    "events",
];

/// What kind of value it is.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// What either has; of two values one that is not null, of two lists both.
fn together(one: Value, other: &Value) -> Value {
    match (one, other) {
        (Value::Null, other) => other.clone(),
        (Value::Object(mut one), Value::Object(other)) => {
            for (key, value) in other {
                let known = one.remove(key).unwrap_or_default();
                one.insert(key.clone(), together(known, value));
            }
            Value::Object(one)
        }
        (Value::Array(mut one), Value::Array(other)) => {
            one.extend(other.iter().cloned());
            Value::Array(one)
        }
        (one, _) => one,
    }
}

fn element(list: &[Value]) -> Option<Value> {
    list.iter().cloned().reduce(|one, other| together(one, &other))
}

fn any_member(map: &Map<String, Value>) -> Option<Value> {
    map.values().cloned().reduce(|one, other| together(one, &other))
}

/// Differences as lines that begin with a path.
pub fn differences(recorded: &Value, served: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", recorded, served, &mut found);
    found
}

fn compare(path: &str, recorded: &Value, served: &Value, found: &mut Vec<String>) {
    match (recorded, served) {
        (Value::Object(recorded), Value::Object(served)) => {
            let is_map = MAPS.iter().any(|name| path.ends_with(&format!(".{name}")));
            if is_map {
                if let (Some(one), Some(other)) = (any_member(recorded), any_member(served)) {
                    compare(&format!("{path}.*"), &one, &other, found);
                }
                return;
            }
            let keys: BTreeSet<&String> = recorded.keys().chain(served.keys()).collect();
            for key in keys {
                let path = format!("{path}.{key}");
                match (recorded.get(key), served.get(key)) {
                    (Some(one), Some(other)) => compare(&path, one, other, found),
                    (Some(_), None) => found.push(format!("{path} is missing")),
                    (None, _) => found.push(format!("{path} is not recorded")),
                }
            }
        }
        (Value::Array(recorded), Value::Array(served)) => match (element(recorded), element(served)) {
            (Some(one), Some(other)) => compare(&format!("{path}[]"), &one, &other, found),
            (Some(_), None) => found.push(format!("{path} is empty, recorded is not")),
            (None, _) => {}
        },
        // A recorded null tells nothing of what it would be.
        (Value::Null, _) => {}
        (one, other) if kind(one) != kind(other) => {
            found.push(format!("{path} is a {}, recorded is a {}", kind(other), kind(one)));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!({"a": "1"}), json!({"a": "2"}), &[])]
    #[case(json!({"a": "1"}), json!({"a": 1}), &[".a is a number, recorded is a string"])]
    #[case(json!({"a": "1"}), json!({}), &[".a is missing"])]
    #[case(json!({}), json!({"a": 0}), &[".a is not recorded"])]
    #[case(json!([{"a": 1}, {"b": 1}]), json!([{"b": 1}]), &["[].a is missing"])]
    #[case(json!([{"a": [{"b": 1}]}, {"a": [{"c": 1}]}]), json!([{"a": [{"b": 1, "c": "1"}]}]), &["[].a[].c is a string, recorded is a number"])]
    #[case(json!({"models": {"x": {"a": 1}}}), json!({"models": {"y": {"a": 2}}}), &[])]
    #[case(json!({"a": null}), json!({"a": {"b": 1}}), &[])]
    #[case(json!({"a": {"b": 1}}), json!({"a": null}), &[".a is a null, recorded is a object"])]
    #[case(json!([1]), json!([]), &[" is empty, recorded is not"])]
    #[case(json!([]), json!([1]), &[])]
    fn a_difference_says_where_and_what(#[case] recorded: Value, #[case] served: Value, #[case] expected: &[&str]) {
        assert_eq!(differences(&recorded, &served), expected);
    }
}
