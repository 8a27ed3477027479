//! An exam as the ledger has it.

use super::{Available, Outcome, TIME_NORM_BP, early_ratios, file_name, model_counts, of_node};
use crate::{
    exam::{Entry, Exam, ExamNode, book::Book, window::Kind},
    ledger,
    network::{Epoch, Network},
};
use std::collections::BTreeMap;

/// Votes on a host that are in blocks, by address.
pub fn votes(net: &Network, entry: &Entry) -> Vec<ledger::Vote> {
    let votes = entry.ballot.counted().iter();
    votes
        .map(|vote| ledger::Vote {
            validator: net.hosts[vote.validator].address.clone(),
            value: vote.value,
            power: vote.power,
        })
        .collect()
}

pub(super) fn exam(net: &Network, exam: &Exam, outcomes: &[Outcome], available: &[Available]) -> ledger::Exam {
    let ratios = early_ratios(exam);
    let hosts = exam.entries.iter().enumerate().map(|(index, entry)| ledger::Host {
        early_median_ratio_bp: ratios[index],
        ..host(net, exam, (index, entry), outcomes[index], &available[index])
    });
    ledger::Exam {
        kind: match exam.window.kind {
            Kind::Sprint => "Sprint",
            Kind::Confirmation => "Confirmation",
        },
        epoch: exam.epoch,
        start_height: exam.window.start,
        trigger_height: match exam.window.kind {
            Kind::Sprint => 0,
            Kind::Confirmation => exam.window.stage_height,
        },
        seed: exam.seed.clone(),
        photo_height: exam.window.photo,
        stronger_rng: exam.stronger_rng,
        time_norm_bp: TIME_NORM_BP,
        total_voting_power: exam.total_power(),
        weight_scales: net.epoch(exam.epoch).map(scales).unwrap_or_default(),
        hosts: hosts.collect(),
    }
}

fn scales(epoch: &Epoch) -> BTreeMap<String, serde_json::Value> {
    let scales = epoch.scales.iter();
    scales
        .map(|(model, scale)| (model.clone(), scale.effective.rest()))
        .collect()
}

fn host(
    net: &Network,
    exam: &Exam,
    (index, entry): (usize, &Entry),
    outcome: Outcome,
    available: &Available,
) -> ledger::Host {
    let host = &net.hosts[index];
    ledger::Host {
        name: host.name.clone(),
        address: host.address.clone(),
        public_key: host.public_key.clone(),
        preserved: entry.preserved.iter().cloned().collect(),
        nodes: nodes(net, exam.epoch, entry, available),
        commits: entry
            .books
            .values()
            .flat_map(|book| book.commits().iter().cloned())
            .collect(),
        early_count: entry.early.unwrap_or_default(),
        early_median_ratio_bp: None,
        artifacts_file: file_name(net, exam, index),
        votes: votes(net, entry),
        voting_power: exam.powers.get(index).copied().unwrap_or_default(),
        expected_weight: outcome.expected,
        ratio_bp: outcome.ratio_bp,
        weight: outcome.weight,
        physically_available_weight: available.weight,
        attainable_weight: available.attainable_weight,
        lost_ngonka: outcome.lost_ngonka.to_string(),
    }
}

/// Node rows; what preserved nodes carry is dealt out in order, so that the rows add up to the weight.
fn nodes(net: &Network, epoch: u64, entry: &Entry, available: &Available) -> Vec<ledger::Node> {
    let mut counted: BTreeMap<&str, u64> = entry
        .books
        .iter()
        .map(|(model, book)| (model.as_str(), Book::committed(book)))
        .collect();
    let counts = model_counts(entry);
    let mut rows = Vec::with_capacity(entry.nodes.len());
    for node in &entry.nodes {
        let counted = counted.entry(node.model.as_str()).or_default();
        let scale = net.scale(epoch, &node.model);
        let worth = |count| scale.map_or(0, |scale| scale.floor_of(count));
        let before = worth(*counted);
        *counted += node.carried;
        let carried_weight = worth(*counted) - before;
        let (accepted, committed) = of_node(&counts, node);
        let there = match &available.nodes {
            Some(nodes) => nodes.get(&node.node_id).copied().unwrap_or_default(),
            None => accepted,
        };
        rows.push(row(node, (accepted, committed), (carried_weight, worth(there))));
    }
    rows
}

fn row(
    node: &ExamNode,
    (accepted, committed): (u64, u64),
    (carried_weight, physically_available_weight): (u64, u64),
) -> ledger::Node {
    ledger::Node {
        node_id: node.node_id.clone(),
        node_num: node.node_num,
        node_count: node.node_count,
        model: node.model.clone(),
        requests: node.requests.clone(),
        first_callback_ms: node.first_callback_ms,
        accepted,
        committed,
        carried_weight,
        physically_available_weight,
    }
}
