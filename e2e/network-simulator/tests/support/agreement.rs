//! What two ledgers of one scenario must have in common although one was made by sockets and a clock and the other in
//! virtual time: everything but how much was delivered when, and what follows from that.

use network_simulator::{
    ledger::Ledger,
    scenario,
    views::control,
    virtual_time::{BEGINNING_MS, counting::CountingNodes},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// How far counts of simulated hosts may be apart, in percent: real blocks are late by some milliseconds.
const APART: u64 = 25;

/// The same scenario in virtual time.
pub fn in_virtual_time(text: &str) -> Ledger {
    let scenario = Arc::new(scenario::parse(text).expect("valid"));
    let (mut driver, mut nodes) = CountingNodes::registered(&scenario, BEGINNING_MS);
    assert!(driver.run(&mut nodes), "the scenario has an end");
    control::ledger(driver.net())
}

/// A ledger without what depends on the wall clock.
pub fn course(ledger: &Ledger) -> Value {
    let all = json!(ledger);
    let exams: Vec<Value> = items(&all["exams"]).map(exam).collect();
    let epochs: Vec<Value> = items(&all["epochs"]).map(epoch).collect();
    let of_ledger = pick(
        &all,
        &["version", "seed", "chain_id", "network_version", "parameters", "models"],
    );
    json!({"ledger": of_ledger, "exams": exams, "epochs": epochs})
}

fn exam(exam: &Value) -> Value {
    let fields = [
        "kind",
        "epoch",
        "start_height",
        "trigger_height",
        "seed",
        "photo_height",
        "stronger_rng",
        "time_norm_bp",
    ];
    let hosts: Vec<Value> = items(&exam["hosts"]).map(host).collect();
    json!({"exam": pick(exam, &fields), "hosts": hosts})
}

fn host(host: &Value) -> Value {
    let nodes: Vec<Value> = items(&host["nodes"])
        .map(|node| {
            let started = items(&node["requests"]).any(|request| request["status"] == 200);
            let fields = pick(node, &["node_id", "node_num", "node_count", "model", "carried_weight"]);
            json!({"node": fields, "started": started, "delivered": node["first_callback_ms"].is_u64()})
        })
        .collect();
    let mut votes: Vec<(String, bool)> = items(&host["votes"])
        .map(|vote| (vote["validator"].to_string(), vote["value"].as_i64() > Some(0)))
        .collect();
    votes.sort();
    json!({
        "host": pick(host, &["name", "address", "public_key", "preserved"]),
        "nodes": nodes,
        "votes": votes,
        "commits": items(&host["commits"]).next().is_some(),
        "weight": host["weight"].as_u64() > Some(0),
        // Nothing is lost in generation: in both drivers the one number is the other.
        "attainable": host["attainable_weight"] == host["physically_available_weight"],
    })
}

fn epoch(epoch: &Value) -> Value {
    let rewards: Vec<Value> = items(&epoch["rewards"])
        .map(|reward| pick(reward, &["address", "claimed_height"]))
        .collect();
    json!({"epoch": pick(epoch, &["index", "settled_height", "total_ngonka"]), "rewards": rewards})
}

/// Simulated hosts have a rate in both: their counts must be close, the external one's are its own affair.
pub fn assert_close_counts(real: &Ledger, counted: &Ledger) {
    for (one, other) in real.exams.iter().zip(&counted.exams) {
        for (one, other) in one.hosts.iter().zip(&other.hosts).skip(1) {
            for (one, other) in one.nodes.iter().zip(&other.nodes) {
                let (least, most) = (one.accepted.min(other.accepted), one.accepted.max(other.accepted));
                assert!(
                    most * (100 - APART) <= least * 100,
                    "{}: {} in real time, {} in virtual",
                    one.node_id,
                    one.accepted,
                    other.accepted
                );
            }
        }
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn pick(value: &Value, names: &[&str]) -> Value {
    names
        .iter()
        .map(|name| ((*name).to_owned(), value[name].clone()))
        .collect()
}
