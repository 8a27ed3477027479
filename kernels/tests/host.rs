//! `poc-host` as a user calls it.

#![expect(clippy::disallowed_methods, reason = "a short-lived command without async around it")]

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

fn poc_host(order: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_poc-host"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(order.as_bytes())
        .expect("it reads");
    child.wait_with_output().expect("it ends")
}

const ORDER: &str = r#"{"recipe": "tiny_llama_dense", "tag": "public-tiny-v1", "dtype": "F32",
    "round": {"block_hash": "AB", "public_key": "02", "seq_len": 4, "k_dim": 12},
    "share": {"node_id": 1, "node_count": 3, "group": 0, "groups": 1}, "count": 3}"#;

#[test]
fn delivers_the_first_nonces_of_a_share_with_their_proofs() {
    let output = poc_host(ORDER);
    assert!(output.status.success());
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let artifacts = made["artifacts"].as_array().expect("a list");
    let nonces: Vec<_> = artifacts.iter().filter_map(|made| made["nonce"].as_i64()).collect();
    assert_eq!(nonces, [1, 4, 7]);
    for made in artifacts {
        assert_eq!(made["vector_b64"].as_str().map(str::len), Some(32));
        assert_eq!(made["proof"].as_array().map(Vec::len), Some(24));
    }
    assert_eq!(made["root"].as_str().map(str::len), Some(64));
}

#[test]
fn an_order_that_cannot_be_carried_out_is_refused_by_name() {
    for (from, to, named) in [
        ("tiny_llama_dense", "huge", "huge"),
        (r#""node_count": 3"#, r#""node_count": 0"#, "node_count is 0"),
        (r#""seq_len": 4"#, r#""seq_len": 0"#, "seq_len is 0"),
        (r#""count": 3"#, r#""count": 3, "speed": 9"#, "speed"),
    ] {
        let output = poc_host(&ORDER.replace(from, to));
        assert_eq!(output.status.code(), Some(1), "{to}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(named), "{to}: {said}");
    }
}
