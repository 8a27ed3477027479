//! Bodies of `init/generate`, good and bad, against the recording.

use super::*;
use crate::slot::serve::chain::answers::Content;

const RECORDED: &str = include_str!("../../../../../tests/recorded/init_generate.json");

fn recorded() -> Value {
    let call: Value = serde_json::from_str(RECORDED).unwrap();
    call["body"].clone()
}

fn read(body: &Value) -> Result<RoundRequest, Answer> {
    parse(body.to_string().as_bytes(), "prefill_v2")
}

/// Status, and the places of what is wrong.
fn refusal(body: &Value) -> (u16, Vec<String>) {
    let answer = read(body).unwrap_err();
    let Content::Json(told) = answer.body else {
        panic!("errors are JSON");
    };
    let places = told["detail"]
        .as_array()
        .map(|wrong| wrong.iter().map(|w| format!("{} {}", w["type"], w["loc"])).collect())
        .unwrap_or_default();
    (answer.status.as_u16(), places)
}

#[test]
fn the_recorded_request_is_read_as_it_was_meant() {
    let request = read(&recorded()).unwrap();
    assert_eq!(request.height, 145);
    assert_eq!(
        request.seed,
        "052955F4FA24D67FFB668574D16E01BE10CCA90036791C0DD1B286B6162A943A"
    );
    assert_eq!((request.node_num, request.node_count), (1, 4));
    assert_eq!((request.seq_len, request.k_dim, request.batch_size), (1_024, 12, 32));
    assert!(!request.stronger_rng);
    assert_eq!(
        request.callback_url,
        "http://127.0.0.1:9100/v2/poc-batches/Qwen%252FQwen2.5-7B-Instruct"
    );
}

#[test]
fn numbers_as_text_nulls_and_unknown_fields_are_tolerated() {
    let mut body = recorded();
    body["block_height"] = json!("145");
    body["node_id"] = json!("1");
    body["batch_size"] = Value::Null;
    body["url"] = Value::Null;
    body["params"]["k_dim"] = json!("8");
    body["group_id"] = json!(0);
    body["news"] = json!({"any": ["thing"]});
    let request = read(&body).unwrap();
    assert_eq!((request.height, request.node_num, request.k_dim), (145, 1, 8));
    assert_eq!((request.batch_size, request.callback_url.as_str()), (32, ""));
}

#[test]
fn unknown_keys_in_params_are_refused_with_422() {
    let mut body = recorded();
    body["params"]["decode"] = json!(true);
    assert_eq!(
        refusal(&body),
        (422, vec![r#""extra_forbidden" ["body","params","decode"]"#.to_owned()])
    );
}

#[test]
fn everything_that_is_missing_is_told_at_once() {
    let (status, places) = refusal(&json!({"block_height": "high"}));
    assert_eq!(status, 422);
    assert_eq!(
        places,
        [
            r#""missing" ["body","params"]"#,
            r#""int_parsing" ["body","block_height"]"#,
            r#""missing" ["body","block_hash"]"#,
            r#""missing" ["body","public_key"]"#,
            r#""missing" ["body","node_id"]"#,
            r#""missing" ["body","node_count"]"#,
        ]
    );
}

#[test]
fn a_round_without_sense_is_refused_with_400_and_an_unsafe_address_with_422() {
    for (field, value) in [
        ("node_count", json!(0)),
        ("node_id", json!(-1)),
        ("block_hash", json!("")),
    ] {
        let mut body = recorded();
        body[field] = value;
        assert_eq!(refusal(&body).0, 400, "{field}");
    }
    let mut body = recorded();
    body["url"] = json!("file:///etc/passwd");
    assert_eq!(refusal(&body).0, 422);
    assert_eq!(
        parse(b"{\"block_hash\":", "prefill_v2").unwrap_err().status.as_u16(),
        422
    );
}
