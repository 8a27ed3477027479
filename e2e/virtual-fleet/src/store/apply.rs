//! Server-side apply as far as our writes need it: a manager owns what it applied last; what it leaves out is taken away
//! unless nobody ever said it was its own. Pure.

use serde_json::{Map, Value};

/// Lists whose items are known by a member; all others are replaced whole.
fn key_of(list: &str) -> Option<&'static str> {
    match list {
        "conditions" => Some("type"),
        "ownerReferences" => Some("uid"),
        _ => None,
    }
}

/// `null` means "not set", wherever it stands.
pub fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), without_nulls(value)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// The object once `wanted` was applied by a manager whose last apply was `before`.
pub fn apply(object: &mut Value, before: Option<&Value>, wanted: &Value) {
    member(object, before, wanted, "");
}

/// The object after a JSON merge patch (RFC 7386).
pub fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(object) = object.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn member(have: &mut Value, before: Option<&Value>, wanted: &Value, name: &str) {
    match wanted {
        Value::Object(wanted) => {
            if !have.is_object() {
                *have = Value::Object(Map::new());
            }
            if let Some(have) = have.as_object_mut() {
                members(have, before.and_then(Value::as_object), wanted);
            }
        }
        Value::Array(list) => match key_of(name) {
            Some(key) => items(have, before, list, key),
            None if have == wanted => {}
            None => *have = without_nulls(wanted),
        },
        other if have == other => {}
        other => *have = other.clone(),
    }
}

fn members(have: &mut Map<String, Value>, before: Option<&Map<String, Value>>, wanted: &Map<String, Value>) {
    for (key, value) in wanted.iter().filter(|(_, value)| !value.is_null()) {
        let before = before.and_then(|before| before.get(key));
        match have.get_mut(key) {
            Some(have) => member(have, before, value, key),
            None => {
                have.insert(key.clone(), without_nulls(value));
            }
        }
    }
    let set = |map: &Map<String, Value>, key: &String| map.get(key).is_some_and(|value| !value.is_null());
    if let Some(before) = before {
        for key in before.keys().filter(|key| set(before, key) && !set(wanted, key)) {
            have.remove(key);
        }
    }
}

fn items(have: &mut Value, before: Option<&Value>, wanted: &[Value], key: &str) {
    let same = |item: &Value, other: &Value| item.get(key) == other.get(key);
    let mut list = match have.take() {
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    let known = before.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let gone = |item: &Value| known.iter().any(|old| same(old, item)) && !wanted.iter().any(|new| same(new, item));
    list.retain(|item| !gone(item));
    for item in wanted {
        let old = known.iter().find(|old| same(old, item));
        match list.iter_mut().find(|have| same(have, item)) {
            Some(have) => member(have, old, item, ""),
            None => list.push(without_nulls(item)),
        }
    }
    *have = Value::Array(list);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_manager_leaves_out_goes_and_what_others_wrote_stays() {
        let before = json!({"metadata": {"labels": {"a": "1", "b": "1"}}});
        let mut object = json!({"metadata": {"labels": {"a": "1", "b": "1", "theirs": "x"}}});
        apply(&mut object, Some(&before), &json!({"metadata": {"labels": {"a": "2"}}}));
        assert_eq!(object, json!({"metadata": {"labels": {"a": "2", "theirs": "x"}}}));
    }

    #[test]
    fn conditions_are_merged_by_type_and_other_lists_are_replaced() {
        let before = json!({"conditions": [{"type": "Ready", "status": "False"}, {"type": "Old"}], "slots": [1]});
        let mut object = json!({"conditions": [
            {"type": "Ready", "status": "False"}, {"type": "Old"}, {"type": "Theirs"},
        ], "slots": [1, 2]});
        let wanted = json!({"conditions": [{"type": "Ready", "status": "True"}], "slots": [3]});
        apply(&mut object, Some(&before), &wanted);
        assert_eq!(
            object,
            json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "Theirs"}], "slots": [3]})
        );
    }

    #[test]
    fn a_merge_patch_takes_away_what_is_null_and_leaves_the_rest() {
        let mut object = json!({"metadata": {"labels": {"a": "1", "b": "1"}}, "spec": {"list": [1, 2]}});
        merge(
            &mut object,
            &json!({"metadata": {"labels": {"a": null, "c": "2"}}, "spec": {"list": [3]}}),
        );
        assert_eq!(
            object,
            json!({"metadata": {"labels": {"b": "1", "c": "2"}}, "spec": {"list": [3]}})
        );
    }

    #[test]
    fn null_is_not_set_wherever_it_stands_and_takes_nothing_from_others() {
        let mut object = json!({"theirs": 1});
        let wanted = json!({"theirs": null, "mine": {"a": null, "b": [{"c": null}]}});
        apply(&mut object, None, &wanted);
        assert_eq!(object, json!({"theirs": 1, "mine": {"b": [{}]}}));
        apply(&mut object, Some(&wanted), &json!({}));
        assert_eq!(object, json!({"theirs": 1}));
    }

    #[test]
    fn a_member_of_an_item_that_is_left_out_goes_too() {
        let before = json!({"conditions": [{"type": "Ready", "message": "x"}]});
        let mut object = before.clone();
        apply(&mut object, Some(&before), &json!({"conditions": [{"type": "Ready"}]}));
        assert_eq!(object, json!({"conditions": [{"type": "Ready"}]}));
    }
}
