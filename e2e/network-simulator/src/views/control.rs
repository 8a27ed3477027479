//! What the control API and the ledger show.

use crate::{
    challenge::Challenge,
    exam::{Exam, book::Proof, window::Kind},
    ledger::{self, Ledger, Physical},
    network::Network,
    rivals,
};
use serde_json::{Value, json};

/// The record so far: finished exams, settled epochs, requests from outside.
pub fn ledger(net: &Network) -> Ledger {
    Ledger {
        exams: net.record.exams.clone(),
        epochs: net
            .epochs
            .iter()
            .filter_map(|(index, epoch)| ledger_epoch(net, *index, epoch))
            .collect(),
        external_requests: net.record.requests.clone(),
        external_requests_left_out: net.record.requests_left_out,
        ..ledger_frame(net)
    }
}

/// The record without what happened.
pub fn ledger_frame(net: &Network) -> Ledger {
    let network = &net.scenario.network;
    Ledger {
        version: 1,
        seed: network.seed,
        chain_id: network.chain_id.clone(),
        network_version: network.version.to_string(),
        physical: match net.proof {
            Proof::Computed => Physical::Delivered,
            Proof::Counted => Physical::Capacity,
        },
        parameters: net.scenario.parameters.json.clone(),
        models: net
            .scenario
            .models
            .iter()
            .map(|model| (model.id.clone(), ledger_model(model)))
            .collect(),
        exams: Vec::new(),
        epochs: Vec::new(),
        external_requests: Vec::new(),
        external_requests_left_out: 0,
    }
}

fn ledger_model(model: &crate::scenario::Model) -> ledger::Model {
    let test = rivals::stat_test(model);
    ledger::Model {
        recipe: model.recipe.name(),
        tag: model.tag.clone(),
        seq_len: model.seq_len,
        k_dim: model.k_dim,
        dtype: model.dtype.to_string(),
        stat_test: ledger::StatTest {
            dist_threshold: test.dist_threshold,
            p_mismatch: test.p_mismatch,
            fraud_threshold: test.fraud_threshold,
        },
        weight_scale_factor: match model.dynamic {
            // No number is right for all exams: each has its own.
            Some(_) => "moves".into(),
            None => json!({
                "value": model.weight_scale_factor.value,
                "exponent": model.weight_scale_factor.exponent,
            }),
        },
    }
}

/// What the ledger has of an epoch; nothing before it is settled.
pub fn ledger_epoch(net: &Network, index: u64, epoch: &crate::network::Epoch) -> Option<ledger::Epoch> {
    let settlement = epoch.settlement.as_ref()?;
    let rewards = settlement
        .rewards
        .iter()
        .map(|(host, reward)| ledger::Reward {
            address: net.hosts[*host].address.clone(),
            ngonka: reward.ngonka.to_string(),
            weight: reward.weight,
            claimed_height: reward.claimed_height,
        })
        .collect();
    Some(ledger::Epoch {
        index,
        settled_height: settlement.height,
        total_ngonka: settlement.total_ngonka.to_string(),
        total_weight: settlement.total_weight,
        rewards,
    })
}

/// Everything a test or a person wants to know at a glance.
pub fn state(net: &Network) -> Value {
    let stages = net.stages();
    let hosts: Vec<Value> = (0..net.hosts.len()).map(|host| host_row(net, host)).collect();
    let nodes: Vec<Value> = net
        .dapi
        .nodes
        .iter()
        .map(|node| {
            json!({
                "id": node.spec.id,
                "node_num": node.node_num,
                "host": node.spec.host,
                "current": [node.current.0.to_string(), node.current.1.to_string()],
                "intended": [node.intended.0.to_string(), node.intended.1.to_string()],
                "failure_reason": node.failure_reason,
            })
        })
        .collect();
    let commands: Vec<Value> = net
        .commands
        .iter()
        .map(|(height, command)| json!({"height": height, "verb": command.verb, "arguments": command.arguments}))
        .collect();
    json!({
        "chain_id": net.scenario.network.chain_id,
        "height": net.height(),
        "unix_ms": net.now_ms,
        "latest_epoch": net.latest_epoch(),
        "effective_epoch": net.effective_epoch(),
        "phase": net.lengths().phase(net.height()).as_ref(),
        "poc_start": stages.poc_start,
        "next_poc_start": stages.next_poc_start,
        "confirmation": net.confirmation().map(|event| json!({
            "trigger_height": event.window.stage_height,
            "generation_start_height": event.window.start,
            "cleared_height": event.cleared,
        })),
        "hosts": hosts,
        "nodes": nodes,
        "dapi_up": net.dapi.up,
        "exam": net.exam.as_ref().map(|exam| running(net, exam)),
        "challenges": challenges(net),
        "exams_done": net.record.exams.len(),
        "faults": net.faults.shown(),
        "chain_halts_at": net.faults.chain_halts_at,
        "commands": commands,
        "requests": net.record.requests.len(),
        "finished": net.finished,
    })
}

fn challenges(net: &Network) -> Vec<Value> {
    let all = net.challenges.past.iter().chain(&net.challenges.live);
    let row = |challenge: &Challenge| {
        let segment = net.challenges.segment(challenge.target);
        let open = segment.filter(|segment| segment.epoch == challenge.epoch);
        json!({
            "target": net.hosts[challenge.target].name,
            "epoch": challenge.epoch,
            "start": challenge.start,
            "segment": open.map(|segment| segment.window.start),
            "generating_end": challenge.generating_end,
            "bounty_ngonka": challenge.bounty_ngonka.to_string(),
            "outcome": challenge.outcome.map(|outcome| outcome.as_ref().to_owned()),
            "to_challenger_ngonka": challenge.to_challenger_ngonka.to_string(),
        })
    };
    all.map(row).collect()
}

fn host_row(net: &Network, host: usize) -> Value {
    let seat = net
        .epoch(net.effective_epoch())
        .and_then(|epoch| epoch.seats.get(&host));
    let known = &net.hosts[host];
    json!({
        "name": known.name,
        "address": known.address,
        "public_key": known.public_key,
        "external": host == net.ours,
        "weight": seat.map_or(0, |seat| seat.weight),
        "balance_ngonka": known.balance.to_string(),
        "early_misses": known.early_misses,
    })
}

fn running(net: &Network, exam: &Exam) -> Value {
    let hosts: Vec<Value> = net
        .hosts
        .iter()
        .zip(&exam.entries)
        .map(|(host, entry)| {
            let accepted: u64 = entry.books.values().map(crate::exam::book::Book::accepted).sum();
            json!({
                "name": host.name,
                "accepted": accepted,
                "committed": entry.committed(),
                "early_count": entry.early,
                "votes": crate::tally::votes(net, entry),
                "preserved": entry.preserved,
            })
        })
        .collect();
    json!({
        "id": exam.id,
        "kind": match exam.window.kind { Kind::Sprint => "Sprint", Kind::Confirmation => "Confirmation" },
        "stage_height": exam.window.stage_height,
        "start": exam.window.start,
        "generation_end": exam.window.generation_end,
        "validation_start": exam.window.validation_start,
        "validation_end": exam.window.validation_end,
        "seed": exam.seed,
        "hosts": hosts,
    })
}
