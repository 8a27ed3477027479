use super::*;
use crate::testing;
use serde_json::{Value, json};

/// A network whose Sprint runs, with one registered node of number 1.
fn generating() -> Network {
    let mut net = testing::network();
    testing::register(&mut net, "a");
    let start = net.lengths().poc_start(1);
    testing::run_to(&mut net, start + 1);
    net
}

fn batch(net: &Network) -> Value {
    json!({
        "block_hash": "unchecked", "public_key": "unchecked", "node_id": 1,
        "block_height": net.exam.as_ref().map_or(0, |exam| exam.window.stage_height),
        "artifacts": [{"nonce": 1, "vector_b64": "5jCatAY0FTU7s7m2pjfhrkg0g6VqNnwx"}],
        "encoding": {"dtype": "f16", "k_dim": 12, "endian": "le"},
    })
}

fn status(net: &mut Network, body: &Value) -> u16 {
    generated(net, testing::MODEL, body.to_string().as_bytes()).status
}

#[test]
fn only_the_window_and_the_form_are_checked() {
    let mut net = generating();
    let good = batch(&net);
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    assert_eq!(status(&mut net, &good), 200);
    assert_eq!(status(&mut net, &good), 200, "duplicates are ignored");
    assert_eq!(status(&mut net, &with("artifacts", json!([]))), 200);
    assert_eq!(status(&mut net, &with("artifacts", Value::Null)), 200);
    assert_eq!(status(&mut net, &with("node_id", json!(0))), 400);
    assert_eq!(status(&mut net, &with("node_id", json!("1"))), 400);
    assert_eq!(status(&mut net, &with("block_height", json!(1))), 400);
    assert_eq!(
        status(&mut net, &with("artifacts", json!([{"nonce": 3, "vector_b64": ""}]))),
        400
    );
    assert_eq!(
        status(&mut net, &with("artifacts", json!([{"nonce": 3, "vector_b64": "?"}]))),
        400
    );
    assert_eq!(
        status(
            &mut net,
            &with("artifacts", json!([{"nonce": "3", "vector_b64": "AAAA"}]))
        ),
        400
    );
    let reply = generated(&mut net, testing::MODEL, b"{");
    assert!(
        reply.body.expect("a body")["error"]["message"].is_string(),
        "decode errors are nested"
    );
    let ours = net.ours;
    assert_eq!(
        net.exam.expect("running").entries[ours].books[testing::MODEL].accepted(),
        1
    );
}

#[test]
fn outside_the_window_everything_is_503() {
    let mut net = testing::network();
    testing::register(&mut net, "a");
    let body = batch(&net);
    let reply = generated(&mut net, testing::MODEL, body.to_string().as_bytes());
    assert_eq!(reply, Reply::error(503, "not in PoC generate phase"));
    let reply = validated(&mut net, testing::MODEL, b"{}");
    assert_eq!(reply, Reply::error(503, "not in PoC validate phase"));
    let end = net.lengths().stages(1).poc_generation_end;
    testing::run_to(&mut net, end);
    let body = batch(&net);
    assert_eq!(status(&mut net, &body), 503);
}
