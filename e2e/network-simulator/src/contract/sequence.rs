//! One recorded epoch with a Sprint and a confirmation, from five blocks before its start to the next cutoff: what
//! DAPI asks of ML nodes, what it answers to them, what it shows of them.
//!
//! Made equal before they are compared: block hashes (their case is kept), sampled nonces and vectors (their number
//! and form are), the order between nodes within a block; per node the order is that of the recording. Everything
//! else is compared as it is: height, node, port, method, path with its version prefix, keys and values of bodies.

use super::{advance, directory, twin};
use crate::{
    dapi::callbacks,
    faults::Port,
    testing::Sent,
    views::{View, admin, dapi},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs};

fn recorded() -> Value {
    let text = fs::read_to_string(directory().join("sequence-epoch-2.json")).expect("the recorded epoch");
    serde_json::from_str(&text).expect("JSON")
}

fn rows<'a>(recorded: &'a Value, name: &str) -> &'a [Value] {
    recorded[name].as_array().expect("a list")
}

fn height(row: &Value) -> i64 {
    row["height"].as_i64().expect("a height")
}

/// A value without what chance decides.
fn settled(key: &str, value: &Value) -> Value {
    match (key, value) {
        ("block_hash", Value::String(hash)) => {
            assert!(
                hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{hash}"
            );
            let upper = hash.bytes().any(|byte| byte.is_ascii_uppercase());
            json!(if upper { "HASH" } else { "hash" })
        }
        ("nonce", Value::Number(_)) => json!("a nonce"),
        ("vector_b64", Value::String(vector)) => json!(format!("{} letters", vector.len())),
        ("nonces", Value::Array(nonces)) => {
            assert!(!nonces.is_empty() && nonces.iter().all(Value::is_u64), "{nonces:?}");
            json!("nonces")
        }
        (_, Value::Array(list)) => list.iter().take(1).map(|item| settled("", item)).collect(),
        (_, Value::Object(map)) => map
            .iter()
            .map(|(key, value)| (key.clone(), settled(key, value)))
            .collect(),
        (_, other) => other.clone(),
    }
}

/// One line per request; equal lines are equal requests.
fn line(height: i64, node: &str, port: &str, request: &str, body: Option<&Value>) -> String {
    let body = body.map_or_else(String::new, |body| format!(" {}", settled("", body)));
    format!("{height} {node} {port} {request}{body}")
}

fn recorded_lines(recorded: &Value) -> Vec<String> {
    let text = |row: &Value, name: &str| row[name].as_str().expect("a text").to_owned();
    let of = |row: &Value| {
        let request = format!("{} {}", text(row, "method"), text(row, "path"));
        line(
            height(row),
            &text(row, "node"),
            &text(row, "listener"),
            &request,
            row.get("body"),
        )
    };
    rows(recorded, "requests").iter().map(of).collect()
}

fn simulated_lines(sent: &[Sent], from: i64) -> Vec<String> {
    let of = |sent: &Sent| {
        let port = if sent.inference { "inference" } else { "mgmt" };
        let request = format!("{} {}", sent.method, sent.path);
        line(sent.height, &sent.node, port, &request, sent.body.as_ref())
    };
    sent.iter().filter(|sent| sent.height >= from).map(of).collect()
}

/// What differs, and why it may. Each pattern must match, and everything that differs must be matched by one.
struct Divergence {
    why: &'static str,
    /// True: only recorded; false: only simulated.
    recorded: bool,
    heights: &'static [i64],
    nodes: &'static [&'static str],
    requests: &'static [&'static str],
}

const DIVERGENCES: [Divergence; 3] = [
    Divergence {
        why: "somebody read /v1/mlnodes/metrics of the recorded DAPI, which asks the nodes at most every ten seconds; nobody does here",
        recorded: true,
        heights: &[145, 154, 172, 182, 196, 212],
        nodes: &["ml-a", "ml-b"],
        requests: &["mgmt GET /api/v1/metrics"],
    },
    Divergence {
        why: "somebody read the recorded DAPI's setup report, which asks the nodes at most once a minute; nobody does here",
        recorded: true,
        heights: &[145, 196],
        nodes: &["ml-a", "ml-b"],
        requests: &["mgmt GET /v3.0.8/health", "mgmt GET /v3.0.8/api/v1/gpu/devices"],
    },
    Divergence {
        why: "sixty seconds after 176 ml-b had been silent long enough for a look and got none until the recording ends: \
              the real look comes with a clock of DAPI's own whose phase nothing shows; here it comes with the next block",
        recorded: false,
        heights: &[225],
        nodes: &["ml-b"],
        requests: &[
            "mgmt GET /v3.0.8/api/v1/state",
            "mgmt GET /v3.0.8/api/v1/inference/pow/status",
            "inference GET /v3.0.8/health",
            "inference GET /v3.0.8/v1/models",
        ],
    },
];

fn known(recorded: bool) -> BTreeSet<String> {
    let lines = |divergence: &Divergence| -> Vec<String> {
        assert!(!divergence.why.is_empty());
        let Divergence {
            heights,
            nodes,
            requests,
            ..
        } = divergence;
        let of = move |height: &'static i64| {
            nodes
                .iter()
                .flat_map(move |node| requests.iter().map(move |request| format!("{height} {node} {request}")))
        };
        heights.iter().flat_map(of).collect()
    };
    DIVERGENCES
        .iter()
        .filter(|divergence| divergence.recorded == recorded)
        .flat_map(lines)
        .collect()
}

#[test]
fn dapi_asks_what_was_recorded_of_whom_it_was_recorded_when_it_was_recorded() {
    let recorded = recorded();
    let mut world = twin();
    advance(&mut world, recorded["last_height"].as_i64().expect("a height"));
    let from = recorded["first_height"].as_i64().expect("a height");
    let told = recorded_lines(&recorded);
    let made = simulated_lines(&world.sent, from);
    let only = |of: &[String], other: &[String]| -> BTreeSet<String> {
        let other: BTreeSet<&String> = other.iter().collect();
        of.iter().filter(|line| !other.contains(line)).cloned().collect()
    };
    assert_eq!(
        only(&told, &made),
        known(true),
        "recorded and not made, against the named divergences"
    );
    assert_eq!(
        only(&made, &told),
        known(false),
        "made and not recorded, against the named divergences"
    );
    let shared = |of: &[String], node: &str| -> Vec<String> {
        let unknown = |line: &&String| !known(true).contains(*line) && !known(false).contains(*line);
        let of_node = |line: &&String| line.split(' ').nth(1) == Some(node);
        of.iter().filter(of_node).filter(unknown).cloned().collect()
    };
    for node in ["ml-a", "ml-b"] {
        assert_eq!(shared(&made, node), shared(&told, node), "in this order, none twice");
    }
    assert_eq!(told.len(), 47, "the recording is whole");
}

#[test]
fn dapi_answers_callbacks_as_recorded() {
    let recorded = recorded();
    let mut world = twin();
    for row in rows(&recorded, "callbacks") {
        advance(&mut world, height(row));
        let mut body = json!({
            "block_height": row["block_height"], "node_id": row["node_id"], "public_key": "", "n_total": 1,
            "artifacts": [{"nonce": 1, "vector_b64": "5jCatAY0FTU7s7m2pjfhrkg0g6VqNnwx"}],
        });
        let net = world.net();
        let reply = if row["kind"] == "generated" {
            callbacks::generated(net, super::MODEL, body.to_string().as_bytes())
        } else {
            body["public_key"] = json!(net.hosts[net.ours].public_key);
            callbacks::validated(net, super::MODEL, body.to_string().as_bytes())
        };
        assert_eq!(json!(reply.status), row["status"], "{row}");
    }
}

/// What DAPI shows of its nodes at each of the recorded blocks.
#[test]
fn dapi_shows_its_nodes_as_recorded_at_every_block() {
    let recorded = recorded();
    let (views, mut world) = (rows(&recorded, "views"), twin());
    let at = |height: i64| views.iter().rfind(|row| self::height(row) <= height).expect("a view");
    let mut wrong = Vec::new();
    for height in
        recorded["first_height"].as_i64().expect("a height")..=recorded["last_height"].as_i64().expect("a height")
    {
        advance(&mut world, height);
        let net = world.net.as_ref().expect("a network");
        let (nodes, latest) = (
            admin::nodes(&View::new(net, Port::DapiAdmin), 0),
            dapi::epochs_latest(&View::new(net, Port::DapiPublic)),
        );
        let told = at(height);
        for row in nodes.as_array().expect("a list") {
            let (id, state) = (row["node"]["id"].as_str().expect("an id"), &row["state"]);
            let pair = |of: &str| {
                format!(
                    "{}/{}",
                    state[format!("{of}_status")].as_str().unwrap_or_default(),
                    state[format!("poc_{of}_status")].as_str().unwrap_or_default()
                )
            };
            let preserved = state["preserved_models"]
                .as_object()
                .is_some_and(|models| !models.is_empty());
            let shown = json!({"intended": pair("intended"), "current": pair("current"), "preserved": preserved});
            if shown != told["nodes"][id] {
                wrong.push(format!("{height} {id}: {shown}, recorded {}", told["nodes"][id]));
            }
        }
        // The recorder's own names stand for a confirmation's phases, which the answers of REST show.
        let phase = told["phase"].as_str().expect("a phase");
        if !phase.starts_with("cPoC") && latest["phase"] != phase {
            wrong.push(format!("{height}: {}, recorded {phase}", latest["phase"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
