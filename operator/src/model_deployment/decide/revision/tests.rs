//! What of a spec reaches the pods, and what a pod of before keeps.

use super::*;

fn seen() -> Observed {
    let base = include_str!("../../../../tests/golden/model_deployment/base.yaml");
    let base: Value = serde_yaml::from_str(base).expect("YAML");
    serde_json::from_value(base).expect("a snapshot")
}

#[test]
fn starts_are_staggered_only_where_somebody_wants_it() {
    let plain = seen();
    assert!(!command(&plain).iter().any(|word| word == "--start-stagger"));
    let mut spread = seen();
    spread.deployment.spec.start_stagger_millis = 500;
    let words = command(&spread);
    let flag = words
        .iter()
        .position(|word| word == "--start-stagger")
        .expect("the flag");
    assert_eq!(words[flag + 1], "500ms");
    assert_ne!(of(&plain), of(&spread), "pods are rolled out");
}

#[test]
fn a_deployment_that_is_made_again_wants_the_pods_it_has() {
    let before = seen();
    let mut again = seen();
    again.deployment.metadata.uid = Some("another".to_owned());
    assert_eq!(of(&before), of(&again));
    let Change::Create(object) = create(&again, &template(&again), "r") else {
        panic!("a pod is made")
    };
    assert_eq!(object.value["metadata"]["ownerReferences"][0]["uid"], "another");
    let env = object.value["spec"]["containers"][0]["env"]
        .as_array()
        .expect("an environment");
    let uids: Vec<&Value> = env
        .iter()
        .filter(|variable| variable["name"] == DEPLOYMENT_UID)
        .collect();
    assert_eq!(uids, [&json!({"name": DEPLOYMENT_UID, "value": "another"})]);
}
