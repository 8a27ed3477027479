//! The chain's REST on exams: commitments, weight distributions, votes, snapshots, preserved nodes.

use super::View;
use crate::{exam::Exam, exam::book::Book};
use serde_json::{Value, json};

fn exam<'a>(view: &View<'a>, stage_height: i64) -> Option<&'a Exam> {
    view.net.exam_at(stage_height)
}

pub fn all_poc_v2_store_commits(view: &View, stage_height: i64) -> Value {
    let mut rows = Vec::new();
    if let Some(exam) = exam(view, stage_height) {
        for (host, entry) in view.net.hosts.iter().zip(&exam.entries) {
            for (model, book) in &entry.books {
                let Some(commit) = book.commits().iter().rfind(|commit| commit.height <= view.height()) else {
                    continue;
                };
                rows.push(json!({
                    "participant_address": host.address,
                    "count": commit.count,
                    "root_hash": kernels::artifact::to_base64(&hex::decode(&commit.root).unwrap_or_default()),
                    "hex_pub_key": host.public_key,
                    "model_id": model,
                }));
            }
        }
    }
    json!({"commits": rows})
}

/// One host's commitment to one model. Ids with a slash never get here as such: encoded twice they name no model, and
/// the chain says so with a success.
pub fn poc_v2_store_commit(view: &View, stage_height: i64, address: &str, model: &str) -> Value {
    let commit = view.net.host_index(address).and_then(|index| {
        let book = exam(view, stage_height)?.entries.get(index)?.books.get(model)?;
        book.commits().last().cloned()
    });
    match commit {
        Some(commit) => json!({
            "found": true,
            "count": commit.count,
            "root_hash": kernels::artifact::to_base64(&hex::decode(&commit.root).unwrap_or_default()),
        }),
        None => json!({"found": false, "count": 0, "root_hash": null}),
    }
}

fn node_weights(view: &View, exam: &Exam, index: usize, model: &str) -> Vec<Value> {
    // The distribution is sent with the last commitment, when generation is over.
    if view.height() < exam.window.last_commit {
        return Vec::new();
    }
    let entry = &exam.entries[index];
    let counts = entry.books.get(model).map(Book::counts).unwrap_or_default();
    let rows = entry
        .nodes
        .iter()
        .filter(|node| node.model == model)
        .filter_map(|node| {
            let (_, committed) = counts.get(&node.node_num)?;
            (*committed > 0).then(|| json!({"node_id": node.node_id, "weight": committed}))
        });
    rows.collect()
}

pub fn all_mlnode_weight_distributions(view: &View, stage_height: i64) -> Value {
    let mut rows = Vec::new();
    if let Some(exam) = exam(view, stage_height) {
        for (index, host) in view.net.hosts.iter().enumerate() {
            for model in exam.entries[index].books.keys() {
                let weights = node_weights(view, exam, index, model);
                if !weights.is_empty() {
                    rows.push(json!({"participant_address": host.address, "weights": weights, "model_id": model}));
                }
            }
        }
    }
    json!({"distributions": rows})
}

pub fn mlnode_weight_distribution(view: &View, stage_height: i64, address: &str, model: &str) -> Value {
    let weights = view
        .net
        .host_index(address)
        .and_then(|index| Some(node_weights(view, exam(view, stage_height)?, index, model)))
        .unwrap_or_default();
    json!({"found": !weights.is_empty(), "weights": weights})
}

pub fn poc_v2_validations_for_stage(view: &View, stage_height: i64) -> Value {
    let mut rows = Vec::new();
    if let Some(exam) = exam(view, stage_height) {
        for (host, entry) in view.net.hosts.iter().zip(&exam.entries) {
            let validations: Vec<Value> = entry
                .ballot
                .counted()
                .iter()
                .map(|vote| {
                    json!({
                        "participant_address": host.address,
                        "validator_participant_address": view.net.hosts[vote.validator].address,
                        "poc_stage_start_block_height": stage_height.to_string(),
                        "validated_weight": vote.value.to_string(),
                        "model_id": entry.books.keys().next(),
                    })
                })
                .collect();
            if !validations.is_empty() {
                rows.push(json!({
                    "participant": host.address,
                    "hex_pub_key": host.public_key,
                    "poc_validation": validations,
                }));
            }
        }
    }
    json!({"poc_validation": rows})
}

pub fn poc_validation_snapshot(view: &View, stage_height: i64) -> Value {
    let Some(exam) = exam(view, stage_height) else {
        return json!({"snapshot": null, "found": false});
    };
    let taken = !exam.powers.is_empty() && view.height() >= exam.window.validation_start;
    let voters: Vec<Value> = view
        .net
        .hosts
        .iter()
        .zip(&exam.powers)
        .filter(|(_, power)| **power > 0)
        .map(|(host, power)| json!({"address": host.address, "voting_power": power.to_string()}))
        .collect();
    let powers: Vec<Value> = view
        .net
        .scenario
        .models
        .iter()
        .filter(|_| taken)
        .map(|model| json!({"model_id": model.id, "voting_powers": voters}))
        .collect();
    let taken_or = |value: i64| if taken { value } else { 0 }.to_string();
    json!({
        "snapshot": {
            "poc_stage_start_height": stage_height.to_string(),
            "snapshot_height": taken_or(exam.window.validation_start),
            "app_hash": if taken { exam.snapshot_hash.as_str() } else { "" },
            "generation_start_timestamp": (exam.started_ms / 1000).to_string(),
            "exchange_end_timestamp": (exam.exchange_ended_ms / 1000).to_string(),
            "model_voting_powers": powers,
            "total_network_weight": taken_or(exam.total_power() as i64),
        },
        "found": true,
    })
}

pub fn preserved_nodes_snapshot(view: &View) -> Value {
    let preserved = &view.net.preserved;
    if preserved.anchor_height == 0 {
        return json!({"snapshot": null, "found": false});
    }
    let mut rows = Vec::new();
    for model in &view.net.scenario.models {
        let mut participants = Vec::new();
        for (host, ids) in &preserved.nodes {
            let of_model: Vec<&String> = ids.iter().filter(|id| serves(view, *host, id, &model.id)).collect();
            if !of_model.is_empty() {
                participants.push(json!({"participant_id": view.net.hosts[*host].address, "node_ids": of_model}));
            }
        }
        if !participants.is_empty() {
            rows.push(json!({"model_id": model.id, "participants": participants}));
        }
    }
    json!({
        "snapshot": {"episode_anchor_height": preserved.anchor_height.to_string(), "model_preserved_nodes": rows},
        "found": true,
    })
}

fn serves(view: &View, host: usize, node_id: &str, model: &str) -> bool {
    view.net.epochs.values().any(|epoch| {
        let seat = epoch.seats.get(&host);
        seat.is_some_and(|seat| {
            seat.nodes
                .iter()
                .any(|node| node.node_id == node_id && node.model == model)
        })
    })
}
