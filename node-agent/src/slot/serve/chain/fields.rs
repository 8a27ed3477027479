//! Foreign JSON, read field by field: a number may come as text, a missing value as null, an unknown field as noise.
//! Everything that is wrong is collected, in the shape upstream's framework gives it.

use super::answers::Answer;
use http::StatusCode;
use serde_json::{Map, Value, json};

/// One JSON object and what is wrong with it.
#[derive(Debug)]
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    at: Vec<Value>,
    wrong: &'a mut Vec<Value>,
}

/// Parses a body that must be an object; an absent one counts as empty where that is allowed.
pub fn parse(body: &[u8]) -> Result<Map<String, Value>, Answer> {
    let invalid = |kind: &str, message: String| {
        unprocessable(&[json!({ "type": kind, "loc": ["body"], "msg": message, "input": null })])
    };
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(invalid(
            "model_attributes_type",
            "Input should be a valid dictionary".to_owned(),
        )),
        Err(error) => Err(invalid("json_invalid", format!("JSON decode error: {error}"))),
    }
}

/// 422 with everything that is wrong.
pub fn unprocessable(wrong: &[Value]) -> Answer {
    Answer::json(StatusCode::UNPROCESSABLE_ENTITY, json!({ "detail": wrong }))
}

impl<'a> Fields<'a> {
    /// The fields of a body.
    pub fn new(object: &'a Map<String, Value>, wrong: &'a mut Vec<Value>) -> Self {
        Self {
            object,
            at: vec!["body".into()],
            wrong,
        }
    }

    /// Notes something wrong with a field.
    pub fn complain(&mut self, name: &str, kind: &str, message: &str) {
        let mut at = self.at.clone();
        at.push(name.into());
        self.wrong
            .push(json!({ "type": kind, "loc": at, "msg": message, "input": self.object.get(name) }));
    }

    /// A value that is there and not null.
    fn present(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// Text that must be there.
    pub fn text(&mut self, name: &str) -> String {
        match self.present(name) {
            Some(Value::String(text)) => text.clone(),
            Some(_) => self.complained(name, "string_type", "Input should be a valid string"),
            None => self.complained(name, "missing", "Field required"),
        }
    }

    /// Text that may be absent.
    pub fn optional_text(&mut self, name: &str) -> Option<String> {
        self.present(name)?;
        Some(self.text(name))
    }

    /// An integer that must be there, within bounds.
    pub fn integer<T: TryFrom<i64> + Default>(&mut self, name: &str) -> T {
        match self.present(name) {
            None => self.complained(name, "missing", "Field required"),
            Some(value) => match lax_integer(value).map(T::try_from) {
                Some(Ok(number)) => number,
                Some(Err(_)) => self.complained(name, "int_range", "Input is too large or too small"),
                None => self.complained(name, "int_parsing", "Input should be a valid integer"),
            },
        }
    }

    /// An integer that may be absent.
    pub fn integer_or<T: TryFrom<i64> + Default>(&mut self, name: &str, default: T) -> T {
        if self.present(name).is_some() {
            self.integer(name)
        } else {
            default
        }
    }

    /// A number that may be absent.
    pub fn number_or(&mut self, name: &str, default: f64) -> f64 {
        let read = match self.present(name) {
            None => return default,
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(value) => value.as_f64(),
        };
        match read {
            Some(number) => number,
            None => self.complained(name, "float_parsing", "Input should be a valid number"),
        }
    }

    /// A switch that is off when absent.
    pub fn switch(&mut self, name: &str) -> bool {
        match self.present(name) {
            None => false,
            Some(Value::Bool(on)) => *on,
            Some(Value::String(text)) if text == "true" || text == "false" => text == "true",
            Some(_) => self.complained(name, "bool_parsing", "Input should be a valid boolean"),
        }
    }

    /// A list that may be absent.
    pub fn list(&mut self, name: &str) -> &'a [Value] {
        match self.present(name) {
            None => &[],
            Some(Value::Array(items)) => items,
            Some(_) => self.complained(name, "list_type", "Input should be a valid list"),
        }
    }

    /// An object inside this one.
    pub fn inner<R>(&mut self, name: &str, required: bool, read: impl FnOnce(&mut Fields<'_>) -> R) -> Option<R> {
        let mut at = self.at.clone();
        at.push(name.into());
        match self.present(name) {
            Some(Value::Object(object)) => Some(read(&mut Fields {
                object,
                at,
                wrong: self.wrong,
            })),
            Some(_) => {
                self.complain(name, "model_attributes_type", "Input should be a valid dictionary");
                None
            }
            None => {
                if required {
                    self.complain(name, "missing", "Field required");
                }
                None
            }
        }
    }

    /// Complains about every field that is not named here.
    pub fn forbid_others(&mut self, known: &[&str]) {
        let others: Vec<&String> = self
            .object
            .keys()
            .filter(|key| !known.contains(&key.as_str()))
            .collect();
        for name in others {
            self.complain(name, "extra_forbidden", "Extra inputs are not permitted");
        }
    }

    fn complained<T: Default>(&mut self, name: &str, kind: &str, message: &str) -> T {
        self.complain(name, kind, message);
        T::default()
    }
}

/// A number, a number without fraction written as one, or text of digits.
pub fn lax_integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            number
                .as_f64()
                .filter(|float| float.fract() == 0.0 && float.abs() < 9.0e15)
                .map(|float| float as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_come_as_text_and_what_is_absent_has_its_default() {
        let Value::Object(object) = json!({"a": "12", "b": 3.0, "c": null, "d": "true", "e": "0.5"}) else {
            panic!("an object");
        };
        let mut wrong = Vec::new();
        let mut fields = Fields::new(&object, &mut wrong);
        assert_eq!(fields.integer::<i32>("a"), 12);
        assert_eq!(fields.integer::<i64>("b"), 3);
        assert_eq!(fields.integer_or("c", 7_i32), 7);
        assert!(fields.switch("d") && !fields.switch("nothing"));
        assert!((fields.number_or("e", 1.0) - 0.5).abs() < 1e-12);
        assert_eq!(fields.optional_text("c"), None);
        assert!(wrong.is_empty());
    }

    #[test]
    fn everything_wrong_is_told_with_its_place() {
        let Value::Object(object) = json!({"n": "x", "big": 3_000_000_000_i64, "params": {"extra": 1}}) else {
            panic!("an object");
        };
        let mut wrong = Vec::new();
        let mut fields = Fields::new(&object, &mut wrong);
        fields.text("missing");
        fields.integer::<i32>("n");
        fields.integer::<i32>("big");
        fields.inner("params", true, |params| params.forbid_others(&["model"]));
        let told: Vec<_> = wrong.iter().map(|w| (w["type"].clone(), w["loc"].clone())).collect();
        assert_eq!(
            told,
            [
                (json!("missing"), json!(["body", "missing"])),
                (json!("int_parsing"), json!(["body", "n"])),
                (json!("int_range"), json!(["body", "big"])),
                (json!("extra_forbidden"), json!(["body", "params", "extra"])),
            ]
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in [&b"{"[..], b"[]", b"", b"null"] {
            assert_eq!(parse(body).unwrap_err().status, StatusCode::UNPROCESSABLE_ENTITY);
        }
    }
}
