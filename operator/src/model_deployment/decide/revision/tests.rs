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
