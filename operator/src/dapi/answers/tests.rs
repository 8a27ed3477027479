//! Hostile and odd answers. The recorded ones are in `tests/dapi_recorded.rs`.

use rstest::rstest;
use serde_json::json;

use super::*;

#[test]
fn numbers_may_be_strings_and_zeros_may_be_left_out() {
    let answer = json!([{"node": {"id": "a", "host": "h", "poc_port": "8080", "models": null, "hardware": null}, "state": null}]);
    let nodes = nodes(&answer).expect("known shape");
    assert_eq!(nodes[0].node.poc_port, 8080);
    assert_eq!(nodes[0].node.inference_port, 0);
    assert_eq!(nodes[0].node_num, 0);
    assert_eq!(nodes[0].state, None);
}

#[test]
fn order_does_not_matter() {
    let node = |id: &str| json!({"node": {"id": id, "node_num": 1}});
    assert_eq!(
        nodes(&json!([node("b"), node("a")])),
        nodes(&json!([node("a"), node("b")]))
    );
}

#[test]
fn members_of_newer_versions_are_kept_for_the_next_put() {
    let answer = json!([{"node": {"id": "a", "model_override": {"hf_repo": "x"}, "node_num": 3}}]);
    let node = &nodes(&answer).expect("known shape")[0];
    assert_eq!(node.node_num, 3);
    let body = serde_json::to_value(&node.node).expect("serialises");
    assert_eq!(body["model_override"], json!({"hf_repo": "x"}));
    assert!(body.get("node_num").is_none(), "a number is DAPI's to give");
}

#[rstest]
#[case(json!({"nodes": []}))]
#[case(json!([{"state": {}}]))]
#[case(json!([{"node": {"id": ""}}]))]
#[case(json!([{"node": {"id": "a"}}, {"node": {"id": "a"}}]))]
#[case(json!([{"node": {"id": "a", "node_num": -1}}]))]
#[case(json!([{"node": {"id": "a", "poc_port": [1]}}]))]
#[case(json!([{"node": {"id": "a", "models": ["m"]}}]))]
#[case(json!([{"node": {"id": "a", "models": {"m": {"args": [1]}}}}]))]
fn an_unknown_shape_is_an_error_and_never_an_empty_list(#[case] answer: Value) {
    assert!(nodes(&answer).is_err());
}

#[test]
fn a_disabled_node_says_so_and_a_silent_one_is_enabled() {
    let answer = json!([
        {"node": {"id": "a"}, "state": {"admin_state": {"enabled": false, "epoch": 0}}},
        {"node": {"id": "b"}, "state": {}},
    ]);
    let enabled: Vec<bool> = nodes(&answer)
        .expect("known shape")
        .into_iter()
        .filter_map(|node| Some(node.state?.enabled))
        .collect();
    assert_eq!(enabled, [false, true]);
}

#[rstest]
#[case(br#"{"error":"host is required"}"#, "host is required")]
#[case(br#"{"error":{"message":"bad\nbody"}}"#, "bad body")]
#[case(b"plain text", "plain text")]
#[case(b"", "")]
fn error_bodies_come_in_two_forms(#[case] body: &[u8], #[case] expected: &str) {
    assert_eq!(said(body), expected);
}

#[test]
fn a_long_error_body_is_cut() {
    assert_eq!(said(&[b'x'; 5000]).len(), 300);
}

#[test]
fn a_check_of_an_unknown_word_is_unavailable() {
    let report = setup_report(&json!({"checks": [{"id": "a", "status": "WARN"}, {"id": "b", "status": "pass"}]}))
        .expect("known");
    assert_eq!(
        report.check("a").map(|check| check.status),
        Some(CheckStatus::Unavailable)
    );
    assert_eq!(report.check("b").map(|check| check.status), Some(CheckStatus::Pass));
}
