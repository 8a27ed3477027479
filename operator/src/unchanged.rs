//! Whether an observed object already says what is desired. Pure: it is what makes a second reconcile write nothing.

mod stream;

pub use stream::says;

use serde_json::Value;

/// True when every field of `desired` is in `observed` with the same value. Fields only the API server or others set do
/// not count; lists must have the same length and order. `null` and empty containers mean "not set".
pub fn covers(observed: &Value, desired: &Value) -> bool {
    match (observed, desired) {
        (_, Value::Null) => true,
        (Value::Object(observed), Value::Object(desired)) => desired.iter().all(|(key, want)| {
            observed
                .get(key)
                .map_or_else(|| is_unset(want), |have| covers(have, want))
        }),
        (Value::Array(observed), Value::Array(desired)) => {
            observed.len() == desired.len() && observed.iter().zip(desired).all(|(have, want)| covers(have, want))
        }
        (observed, desired) => observed == desired,
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_unset),
        Value::Array(list) => list.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_of_the_api_server_are_no_change() {
        let desired = json!({"spec": {"ports": [{"port": 80}], "selector": null, "labels": {}}});
        let observed = json!({"metadata": {"uid": "x"}, "spec": {"ports": [{"port": 80, "protocol": "TCP"}], "type": "ClusterIP"}});
        assert!(covers(&observed, &desired));
    }

    #[test]
    fn a_changed_missing_or_extra_value_is_a_change() {
        let observed = json!({"a": 1, "list": [1, 2]});
        assert!(!covers(&observed, &json!({"a": 2})));
        assert!(!covers(&observed, &json!({"b": 1})));
        assert!(!covers(&observed, &json!({"list": [1]})));
        assert!(!covers(&observed, &json!({"list": [2, 1]})));
    }
}
