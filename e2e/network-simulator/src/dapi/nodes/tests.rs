use super::*;
use crate::testing;

fn body(id: &str, port: u16) -> Vec<u8> {
    let spec = json!({
        "id": id, "host": "10.0.0.1", "inference_port": port, "poc_port": port + 1, "max_concurrent": 500,
        "models": {testing::MODEL: {"args": []}}, "hardware": null,
    });
    spec.to_string().into_bytes()
}

fn numbers(net: &Network) -> Vec<(&str, u32)> {
    net.dapi
        .nodes
        .iter()
        .map(|node| (node.spec.id.as_str(), node.node_num))
        .collect()
}

#[test]
fn numbers_follow_registration_and_are_never_given_twice() {
    let mut net = testing::network();
    for (id, port) in [("a", 5000), ("b", 5010), ("c", 5020)] {
        assert_eq!(upsert(&mut net, &body(id, port)).0.status, 200);
    }
    assert_eq!(delete(&mut net, "b"), Reply::json(200, true.into()));
    upsert(&mut net, &body("d", 5030));
    assert_eq!(numbers(&net), [("a", 1), ("c", 3), ("d", 4)]);
    assert_eq!(net.dapi.node_count(), 5, "the highest number ever given, plus one");
    net.dapi.restart(0);
    assert_eq!(numbers(&net), [("a", 1), ("c", 2), ("d", 3)]);
    assert_eq!(net.dapi.node_count(), 4);
}

#[test]
fn an_update_keeps_the_number_and_answers_without_number_and_state() {
    let mut net = testing::network();
    upsert(&mut net, &body("a", 5000));
    let (reply, effects) = upsert(&mut net, &body("a", 6000));
    assert_eq!(reply.status, 200);
    assert!(effects.is_empty(), "an update alone sends nothing to the node");
    let shown = reply.body.expect("a body");
    assert!(shown.get("node_num").is_none() && shown.get("state").is_none());
    assert_eq!(numbers(&net), [("a", 1)]);
    assert_eq!(net.dapi.nodes[0].spec.inference_port, 6000);
}

#[test]
fn deleting_nobody_is_a_success_that_says_false() {
    let mut net = testing::network();
    assert_eq!(delete(&mut net, "nobody"), Reply::json(200, false.into()));
}

#[test]
fn foreign_models_are_dropped_from_new_nodes_and_refused_in_updates() {
    let mut net = testing::network();
    let mut spec: Value = serde_json::from_slice(&body("a", 5000)).expect("json");
    spec["models"]["other/model"] = json!({});
    let (reply, _) = upsert(&mut net, spec.to_string().as_bytes());
    assert_eq!(reply.status, 200);
    assert_eq!(net.dapi.nodes[0].spec.models.len(), 1);
    assert_eq!(upsert(&mut net, spec.to_string().as_bytes()).0.status, 500);
    spec["id"] = "b".into();
    spec["models"] = json!({"other/model": {}});
    assert_eq!(upsert(&mut net, spec.to_string().as_bytes()).0.status, 500);
}

#[test]
fn a_batch_tells_all_some_and_none_apart() {
    let mut net = testing::network();
    let node = |id: &str, port: u16| -> Value { serde_json::from_slice(&body(id, port)).expect("json") };
    let broken = json!({"id": "x"});
    let status = |net: &mut Network, batch: Value| upsert_batch(net, batch.to_string().as_bytes()).0.status;
    assert_eq!(status(&mut net, json!([node("a", 5000), node("b", 5010)])), 201);
    assert_eq!(status(&mut net, json!([node("c", 5020), broken])), 206);
    assert_eq!(status(&mut net, json!([broken])), 400);
    assert_eq!(status(&mut net, json!({"id": "a"})), 400);
}

#[test]
fn two_nodes_may_not_share_a_port_of_a_host() {
    let mut net = testing::network();
    upsert(&mut net, &body("a", 5000));
    assert_eq!(upsert(&mut net, &body("b", 5000)).0.status, 400);
    assert_eq!(upsert(&mut net, &body("b", 5001)).0.status, 200);
}

#[test]
fn a_restart_forgets_who_was_disabled() {
    let mut net = testing::network();
    upsert(&mut net, &body("a", 5000));
    assert_eq!(set_enabled(&mut net, "a", false).status, 200);
    assert!(!net.dapi.nodes[0].admin.enabled);
    net.dapi.restart(0);
    assert_eq!(
        net.dapi.nodes[0].admin,
        AdminState {
            enabled: true,
            epoch: 0
        }
    );
    assert_eq!(set_enabled(&mut net, "nobody", true).status, 404);
}
