//! Foreign JSON to values: number or string, missing or null, snake or camel case. An unknown shape is an error, never a guess.

use serde_json::{Map, Value};

/// Largest magnitude of a whole number that is believed: heights, durations and counts stay far below it.
const MAX_INTEGER: i64 = 1 << 53;
/// Longest text that is kept.
const MAX_TEXT: usize = 1024;
/// Largest exponent of a decimal, either way.
const MAX_EXPONENT: i64 = 40;

/// A member has a shape this version does not know.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field} has an unknown shape: {found}")]
pub struct ShapeError {
    /// Name of the member.
    pub field: String,
    /// What was found, shortened.
    pub found: String,
}

impl ShapeError {
    /// An error about `field`.
    pub fn new(field: &str, found: &str) -> Self {
        let mut found = found.to_owned();
        if found.len() > 80 {
            let end = (0..=80).rev().find(|end| found.is_char_boundary(*end)).unwrap_or(0);
            found.truncate(end);
            found.push('…');
        }
        Self {
            field: field.to_owned(),
            found,
        }
    }

    fn of(field: &str, value: &Value) -> Self {
        match value {
            Value::Object(_) => Self::new(field, "an object"),
            Value::Array(_) => Self::new(field, "a list"),
            other => Self::new(field, &other.to_string()),
        }
    }
}

/// A member by its snake-case name, also in camel case; null counts as missing.
pub fn member<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    let map = object.as_object()?;
    map.get(key)
        .or_else(|| map.get(&camel(key)))
        .filter(|value| !value.is_null())
}

/// A member of what has to be an object, or is not there at all.
pub fn known<'a>(object: &'a Value, key: &str) -> Result<Option<&'a Value>, ShapeError> {
    match object {
        Value::Object(_) | Value::Null => Ok(member(object, key)),
        other => Err(ShapeError::of(key, other)),
    }
}

fn camel(key: &str) -> String {
    let mut parts = key.split('_');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        if let Some(first) = letters.next() {
            name.extend(first.to_uppercase());
            name.push_str(letters.as_str());
        }
    }
    name
}

/// A whole number, as number or string; missing, null and "" are 0.
pub fn integer(object: &Value, key: &str) -> Result<i64, ShapeError> {
    known(object, key)?.map_or(Ok(0), |value| whole(key, value))
}

/// A whole number that must be there.
pub fn required_integer(object: &Value, key: &str) -> Result<i64, ShapeError> {
    known(object, key)?.map_or_else(|| Err(ShapeError::new(key, "nothing")), |value| whole(key, value))
}

fn whole(field: &str, value: &Value) -> Result<i64, ShapeError> {
    let number = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) if text.is_empty() => Some(0),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number
        .filter(|number| number.abs() <= MAX_INTEGER)
        .ok_or_else(|| ShapeError::of(field, value))
}

/// A text; missing and null are empty.
pub fn text(object: &Value, key: &str) -> Result<String, ShapeError> {
    match known(object, key)? {
        None => Ok(String::new()),
        Some(Value::String(text)) if text.len() <= MAX_TEXT => Ok(text.clone()),
        Some(other) => Err(ShapeError::of(key, other)),
    }
}

/// A boolean, as such or as "true"/"false"; missing and null are false.
pub fn boolean(object: &Value, key: &str) -> Result<bool, ShapeError> {
    match known(object, key)? {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text == "true" => Ok(true),
        Some(Value::String(text)) if text == "false" || text.is_empty() => Ok(false),
        Some(other) => Err(ShapeError::of(key, other)),
    }
}

/// A list; missing and null are empty.
pub fn list<'a>(object: &'a Value, key: &str) -> Result<&'a [Value], ShapeError> {
    match known(object, key)? {
        None => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(other) => Err(ShapeError::of(key, other)),
    }
}

/// A decimal as text: `{value, exponent}`, number or string. Missing and null are absent.
pub fn decimal(object: &Value, key: &str) -> Result<Option<String>, ShapeError> {
    let Some(value) = known(object, key)? else {
        return Ok(None);
    };
    let unknown = || ShapeError::of(key, value);
    match value {
        Value::Object(parts) => scaled(parts).map(Some).ok_or_else(unknown),
        Value::Number(number) => plain(&number.to_string()).map(Some).ok_or_else(unknown),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => plain(text).map(Some).ok_or_else(unknown),
        _ => Err(unknown()),
    }
}

/// `value × 10^exponent` without floating point.
fn scaled(parts: &Map<String, Value>) -> Option<String> {
    if parts.keys().any(|key| key != "value" && key != "exponent") {
        return None;
    }
    let parts = Value::Object(parts.clone());
    let value = integer(&parts, "value").ok()?;
    let exponent = integer(&parts, "exponent").ok()?;
    if exponent.abs() > MAX_EXPONENT {
        return None;
    }
    let sign = if value < 0 { "-" } else { "" };
    let digits = value.unsigned_abs().to_string();
    if exponent >= 0 {
        let zeros = if value == 0 { 0 } else { exponent as usize };
        return Some(format!("{sign}{digits}{}", "0".repeat(zeros)));
    }
    let places = exponent.unsigned_abs() as usize;
    let padded = format!("{digits:0>width$}", width = places + 1);
    let (whole, fraction) = padded.split_at(padded.len() - places);
    Some(trimmed(sign, whole, fraction))
}

/// A decimal text in its shortest form; exponents and anything else are not a decimal.
fn plain(text: &str) -> Option<String> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || digits.len() > 64 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    Some(trimmed(sign, whole, fraction))
}

fn trimmed(sign: &str, whole: &str, fraction: &str) -> String {
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        let sign = if whole == "0" { "" } else { sign };
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!({"a": 5}), Ok(5))]
    #[case(json!({"a": "5"}), Ok(5))]
    #[case(json!({"a": ""}), Ok(0))]
    #[case(json!({"a": null}), Ok(0))]
    #[case(json!({}), Ok(0))]
    #[case(json!({"a": 1.5}), Err(ShapeError::new("a", "1.5")))]
    #[case(json!({"a": "9223372036854775808"}), Err(ShapeError::new("a", "\"9223372036854775808\"")))]
    #[case(json!({"a": [1]}), Err(ShapeError::new("a", "a list")))]
    fn whole_numbers_come_in_several_shapes(#[case] object: Value, #[case] expected: Result<i64, ShapeError>) {
        assert_eq!(integer(&object, "a"), expected);
    }

    #[rstest]
    #[case(json!({"value": "3024", "exponent": -4}), Some("0.3024"))]
    #[case(json!({"value": 1, "exponent": -1}), Some("0.1"))]
    #[case(json!({"value": "-475", "exponent": "-6"}), Some("-0.000475"))]
    #[case(json!({"value": "5", "exponent": 2}), Some("500"))]
    #[case(json!({"value": "10", "exponent": -2}), Some("0.1"))]
    #[case(json!({"value": "0", "exponent": 0}), Some("0"))]
    #[case(json!({}), Some("0"))]
    #[case(json!(0.25), Some("0.25"))]
    #[case(json!("0.50"), Some("0.5"))]
    #[case(json!(null), None)]
    #[case(json!(""), None)]
    fn decimals_come_in_several_shapes(#[case] value: Value, #[case] expected: Option<&str>) {
        assert_eq!(
            decimal(&json!({ "a": value }), "a").expect("known"),
            expected.map(str::to_owned)
        );
    }

    #[rstest]
    #[case(json!({"value": "1", "exponent": 400}))]
    #[case(json!({"mantissa": "1"}))]
    #[case(json!("1e9"))]
    #[case(json!("abc"))]
    #[case(json!([1]))]
    fn other_decimals_are_unknown(#[case] value: Value) {
        assert!(decimal(&json!({ "a": value }), "a").is_err());
    }

    #[test]
    fn members_are_found_in_camel_case_too() {
        assert_eq!(
            integer(&json!({"pocStageDuration": "35"}), "poc_stage_duration"),
            Ok(35)
        );
    }
}
