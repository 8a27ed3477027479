//! Whatever stood there before is there again afterwards.

use proptest::prelude::*;

use super::*;
use crate::machine::observed::Machine;

fn node(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> NodeSeen {
    let map = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    NodeSeen {
        uid: "u1".to_owned(),
        resource_version: "7".to_owned(),
        labels: map(labels),
        annotations: map(annotations),
        ..NodeSeen::default()
    }
}

/// The node after a patch, as an API server would merge it.
fn patched(node: &NodeSeen, change: Option<Change>) -> NodeSeen {
    let mut node = node.clone();
    let Some(Change::Merge(object)) = change else {
        return node;
    };
    for (place, values) in [("labels", &mut node.labels), ("annotations", &mut node.annotations)] {
        for (key, value) in object.value["metadata"][place].as_object().into_iter().flatten() {
            match value.as_str() {
                Some(value) => {
                    values.insert(key.clone(), value.to_owned());
                }
                None => {
                    values.remove(key);
                }
            }
        }
    }
    node
}

#[test]
fn a_patch_is_of_the_node_that_was_seen_and_says_what_was_there() {
    let before = node(&[("nvidia.com/gpu-driver-upgrade.skip", "false"), ("theirs", "x")], &[]);
    let Some(Change::Merge(object)) = hold("n1", &before) else {
        panic!("a patch")
    };
    let metadata = &object.value["metadata"];
    assert_eq!(
        (metadata["uid"].as_str(), metadata["resourceVersion"].as_str()),
        (Some("u1"), Some("7"))
    );
    let journal = metadata["annotations"][labels::PREVIOUS_VALUES]
        .as_str()
        .expect("a journal");
    let journal: Value = serde_json::from_str(journal).expect("JSON");
    assert_eq!(journal["labels"]["nvidia.com/gpu-driver-upgrade.skip"], "false");
    assert_eq!(journal["labels"]["nvsentinel.dgxc.nvidia.com/managed"], Value::Null);
    assert!(metadata["labels"].get("theirs").is_none(), "nothing else is touched");
}

#[test]
fn what_is_held_is_not_written_again_and_a_quarrel_does_not_change_the_journal() {
    let before = node(&[("nvidia.com/gpu-driver-upgrade.skip", "false")], &[]);
    let mut held = patched(&before, hold("n1", &before));
    assert_eq!(hold("n1", &held), None);
    held.labels
        .insert("nvidia.com/gpu-driver-upgrade.skip".to_owned(), "never".to_owned());
    let again = patched(&held, hold("n1", &held));
    assert_eq!(again.labels["nvidia.com/gpu-driver-upgrade.skip"], "true");
    let restored = patched(&again, restore("n1", &again));
    assert_eq!(restored, before);
}

#[test]
fn a_value_that_somebody_changed_while_it_was_held_stays_theirs() {
    let before = node(&[], &[]);
    let mut held = patched(&before, hold("n1", &before));
    held.labels
        .insert("nvsentinel.dgxc.nvidia.com/managed".to_owned(), "true".to_owned());
    let restored = patched(&held, restore("n1", &held));
    assert_eq!(
        restored
            .labels
            .get("nvsentinel.dgxc.nvidia.com/managed")
            .map(String::as_str),
        Some("true")
    );
    assert_eq!(restored.labels.len(), 1);
}

#[test]
fn nothing_is_restored_where_nothing_was_held_and_a_spoilt_journal_takes_ours_off() {
    let untouched = node(&[(labels::PROTECTED, "true")], &[]);
    assert_eq!(restore("n1", &untouched), None);
    let spoilt = node(&[(labels::PROTECTED, "true")], &[(labels::PREVIOUS_VALUES, "{]")]);
    let restored = patched(&spoilt, restore("n1", &spoilt));
    assert!(restored.labels.is_empty() && restored.annotations.is_empty());
}

#[test]
fn a_check_is_paused_while_a_machine_of_its_own_is_held_and_other_requests_stay() {
    let mut observed = Observed::default();
    for (name, pool) in [("n1", "gpu"), ("n2", "web")] {
        let machine = Machine {
            node: Some(node(&[("pool", pool)], &[])),
            ..Machine::default()
        };
        observed.machines.insert(name.to_owned(), machine);
    }
    let check = |requests: &[&str]| HealthCheck {
        name: "gpus".to_owned(),
        match_labels: Some(BTreeMap::from([("pool".to_owned(), "gpu".to_owned())])),
        pause_requests: requests.iter().map(|request| (*request).to_owned()).collect(),
        ..HealthCheck::default()
    };
    let requests = |change: Option<Change>| match change {
        Some(Change::Merge(object)) => Some(object.value["spec"]["pauseRequests"].clone()),
        _ => None,
    };
    let held = |name: &str| name == "n1";
    assert_eq!(
        requests(pause(&observed, &check(&["theirs"]), held)),
        Some(json!(["theirs", PAUSE]))
    );
    assert_eq!(pause(&observed, &check(&[PAUSE]), held), None);
    let none = |name: &str| name == "n2";
    assert_eq!(
        requests(pause(&observed, &check(&["theirs", PAUSE]), none)),
        Some(json!(["theirs"]))
    );
    assert_eq!(pause(&observed, &check(&["theirs"]), none), None);
}

proptest! {
    /// However often it is held and restored, and whatever stood there: after a restore the Node is as before.
    #[test]
    fn holding_and_restoring_leaves_no_trace(
        values in proptest::collection::vec(proptest::option::of("(true|false|x)"), SWITCHES.len()), rounds in 1..4_usize,
    ) {
        let mut before = node(&[("theirs", "x")], &[("theirs", "y")]);
        for (switch, value) in SWITCHES.iter().zip(values) {
            if let Some(value) = value {
                match switch.place {
                    Place::Label => before.labels.insert(switch.key.to_owned(), value),
                    Place::Annotation => before.annotations.insert(switch.key.to_owned(), value),
                };
            }
        }
        let mut now = before.clone();
        for _ in 0..rounds {
            now = patched(&now, hold("n1", &now));
            for switch in &SWITCHES {
                prop_assert_eq!(present(&now, switch).map(String::as_str), Some(switch.held));
            }
            now = patched(&now, restore("n1", &now));
            prop_assert_eq!(&now, &before);
        }
    }
}
