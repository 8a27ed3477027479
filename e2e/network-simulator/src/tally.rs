//! The end of an exam: votes counted, weights formed, the ledger's record written, an epoch settled.

use crate::{
    early::{self, Share},
    exam::{Entry, Exam, book::Book, window::Kind},
    ledger::{self, files::ArtifactsFile},
    network::{Network, Reward, Seat, SeatNode, Settlement},
    scenario::expect::Verdict,
    settlement::{self, Standing},
    votes,
};
use std::collections::BTreeMap;

/// Time normalisation is off in this network.
const TIME_NORM_BP: u64 = 10_000;

/// What an exam came to for one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    weight: u64,
    ratio_bp: u64,
    expected: Option<u64>,
    lost_ngonka: u64,
}

/// Counts the votes of the running exam and puts it behind us.
pub fn close(net: &mut Network) {
    let Some(exam) = net.exam.take() else {
        return;
    };
    for index in 0..net.hosts.len() {
        net.hosts[index].early_misses = early_misses(net, &exam, index);
    }
    let outcomes: Vec<Outcome> = match exam.window.kind {
        Kind::Sprint => sprint(net, &exam),
        Kind::Confirmation => confirmation(net, &exam),
    };
    let record = record(net, &exam, &outcomes);
    net.record.exams.push(record);
    for (index, entry) in exam.entries.iter().enumerate() {
        let lines = entry.books.values().flat_map(Book::lines).collect();
        net.record.artifacts.push(ArtifactsFile {
            name: file_name(net, &exam, index),
            lines,
        });
    }
    net.faults.vote_invalid.clear();
    for (host, outcome) in net.hosts.iter().zip(&outcomes) {
        tracing::info!(
            exam = exam.id,
            host = host.name,
            weight = outcome.weight,
            ratio_bp = outcome.ratio_bp,
            "exam ends"
        );
    }
    net.retire(exam);
}

fn file_name(net: &Network, exam: &Exam, index: usize) -> String {
    format!("exam-{}/{}.jsonl", exam.id, net.hosts[index].address)
}

fn shares(exam: &Exam) -> Vec<Share> {
    exam.entries
        .iter()
        .enumerate()
        .map(|(index, entry)| Share {
            early: entry.early.unwrap_or_default(),
            last: entry.committed(),
            power: exam.powers.get(index).copied().unwrap_or_default(),
        })
        .collect()
}

fn early_ratio(exam: &Exam, index: usize) -> Option<u64> {
    let shares = shares(exam);
    early::ratio_bp(shares[index], &shares)
}

/// Misses in a row of a host with this exam counted; only Sprints are photographed for the guard.
pub fn early_misses(net: &Network, exam: &Exam, index: usize) -> u32 {
    let before = net.hosts[index].early_misses;
    match exam.window.kind {
        Kind::Sprint => early::misses(before, early_ratio(exam, index)),
        Kind::Confirmation => before,
    }
}

fn verdict(net: &Network, exam: &Exam, entry: &Entry) -> Verdict {
    let power = |valid: bool| {
        entry
            .votes
            .iter()
            .filter(|vote| (vote.value > 0) == valid)
            .map(|vote| vote.power)
            .sum()
    };
    let threshold = net.scenario.parameters.validation_vote_threshold_bps;
    votes::decide(power(true), power(false), exam.total_power(), threshold)
}

/// Weight of committed and carried counts together, and of the carried ones' part in it.
fn weights(net: &Network, entry: &Entry) -> (u64, u64) {
    let mut carried: BTreeMap<&str, u64> = BTreeMap::new();
    for node in &entry.nodes {
        *carried.entry(node.model.as_str()).or_default() += node.carried;
    }
    let measured = |model: &str| entry.books.get(model).map_or(0, Book::committed) * TIME_NORM_BP / 10_000;
    let models = entry.books.keys().map(String::as_str).chain(carried.keys().copied());
    let models: std::collections::BTreeSet<&str> = models.collect();
    models.into_iter().fold((0, 0), |(whole, kept), model| {
        let Some(scale) = net.model(model).map(|model| model.weight_scale_factor) else {
            return (whole, kept);
        };
        let count = measured(model);
        let both = scale.floor_of(count + carried.get(model).copied().unwrap_or_default());
        (whole + both, kept + both - scale.floor_of(count))
    })
}

/// Weight that the network grants: all of it to who was accepted, what was carried to everybody.
fn granted(net: &Network, exam: &Exam, entry: &Entry) -> u64 {
    let (whole, carried) = weights(net, entry);
    match verdict(net, exam, entry) {
        Verdict::Accepted => whole,
        Verdict::Rejected | Verdict::Undecided => carried,
    }
}

/// What the accepted artifacts would have weighed.
fn available(net: &Network, entry: &Entry) -> u64 {
    entry
        .books
        .iter()
        .filter_map(|(model, book)| {
            Some(
                net.model(model)?
                    .weight_scale_factor
                    .floor_of(book.accepted().len() as u64),
            )
        })
        .sum()
}

fn sprint(net: &mut Network, exam: &Exam) -> Vec<Outcome> {
    let height = net.height();
    if let Some(before) = exam.epoch.checked_sub(1) {
        settle(net, before);
    }
    let weights: Vec<u64> = exam.entries.iter().map(|entry| granted(net, exam, entry)).collect();
    let seats = exam
        .entries
        .iter()
        .enumerate()
        .map(|(index, entry)| (index, seat(entry, weights[index])))
        .collect();
    let total: u64 = weights.iter().sum();
    let reward = reward_of(net, exam.epoch);
    let epoch = net.epoch_mut(exam.epoch);
    epoch.formed_height = height;
    epoch.seats = seats;
    exam.entries
        .iter()
        .zip(weights)
        .map(|(entry, weight)| {
            let carried = self::weights(net, entry).1;
            let missed = (available(net, entry) + carried).saturating_sub(weight);
            let lost_ngonka = settlement::share(reward, missed, total + missed);
            Outcome {
                weight,
                ratio_bp: 10_000,
                expected: None,
                lost_ngonka,
            }
        })
        .collect()
}

fn reward_of(net: &Network, epoch: u64) -> u64 {
    let parameters = &net.scenario.parameters;
    settlement::epoch_reward(
        parameters.initial_epoch_reward,
        parameters.decay_rate,
        epoch,
        parameters.genesis_epoch,
    )
}

/// A place in the coming epoch. Nodes bring their committed counts, preserved ones what they carried.
fn seat(entry: &Entry, weight: u64) -> Seat {
    let nodes = entry
        .nodes
        .iter()
        .map(|node| {
            let counts = entry.books.get(&node.model).map(Book::counts).unwrap_or_default();
            let committed = counts.get(&node.node_num).map_or(0, |(_, committed)| *committed);
            SeatNode {
                node_id: node.node_id.clone(),
                model: node.model.clone(),
                poc_weight: if weight == 0 { 0 } else { committed + node.carried },
            }
        })
        .filter(|node| node.poc_weight > 0)
        .collect();
    Seat {
        weight,
        ratio_bp: 10_000,
        confirmation_weight: weight,
        nodes,
    }
}

fn confirmation(net: &mut Network, exam: &Exam) -> Vec<Outcome> {
    let height = net.height();
    let alpha_bp = net.scenario.parameters.alpha_threshold.basis_points();
    let readings: Vec<u64> = exam.entries.iter().map(|entry| granted(net, exam, entry)).collect();
    let reward = reward_of(net, exam.epoch);
    let epoch = net.epoch_mut(exam.epoch);
    let total: u64 = epoch.seats.values().map(|seat| seat.weight).sum();
    let mut outcomes = Vec::new();
    for (index, weight) in readings.into_iter().enumerate() {
        let Some(seat) = epoch.seats.get_mut(&index) else {
            outcomes.push(Outcome {
                weight,
                ratio_bp: 10_000,
                expected: Some(0),
                lost_ngonka: 0,
            });
            continue;
        };
        let ratio_bp = settlement::ratio_bp(weight, seat.weight);
        let worth = |ratio_bp| {
            settlement::effective_weight(
                Standing {
                    weight: seat.weight,
                    ratio_bp,
                },
                alpha_bp,
            )
        };
        let lost = worth(seat.ratio_bp).saturating_sub(worth(ratio_bp.min(seat.ratio_bp)));
        seat.ratio_bp = seat.ratio_bp.min(ratio_bp);
        seat.confirmation_weight = seat.confirmation_weight.min(weight);
        let expected = Some(seat.weight);
        if seat.ratio_bp < alpha_bp {
            epoch.excluded.entry(index).or_insert(height);
        }
        outcomes.push(Outcome {
            weight,
            ratio_bp,
            expected,
            lost_ngonka: settlement::share(reward, lost, total),
        });
    }
    outcomes
}

/// Pays out an epoch to those who held it. The epoch before the first Sprint has nobody to pay.
fn settle(net: &mut Network, index: u64) {
    let alpha_bp = net.scenario.parameters.alpha_threshold.basis_points();
    let (height, reward) = (net.height(), reward_of(net, index));
    let Some(epoch) = net.epochs.get_mut(&index).filter(|epoch| !epoch.seats.is_empty()) else {
        return;
    };
    let standing = |seat: &Seat| Standing {
        weight: seat.weight,
        ratio_bp: seat.ratio_bp,
    };
    let standings: BTreeMap<usize, Standing> = epoch.seats.iter().map(|(host, seat)| (*host, standing(seat))).collect();
    let rewards = settlement::settle(reward, &standings, alpha_bp)
        .into_iter()
        .map(|(host, (weight, ngonka))| {
            (
                host,
                Reward {
                    weight,
                    ngonka,
                    claimed_height: 0,
                },
            )
        })
        .collect();
    epoch.settlement = Some(Settlement {
        height,
        total_ngonka: reward,
        total_weight: standings.values().map(|standing| standing.weight).sum(),
        rewards,
    });
}

fn record(net: &Network, exam: &Exam, outcomes: &[Outcome]) -> ledger::Exam {
    let hosts = exam
        .entries
        .iter()
        .enumerate()
        .map(|(index, entry)| host_record(net, exam, (index, entry), outcomes[index]));
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
        hosts: hosts.collect(),
    }
}

fn host_record(net: &Network, exam: &Exam, (index, entry): (usize, &Entry), outcome: Outcome) -> ledger::Host {
    let host = &net.hosts[index];
    ledger::Host {
        name: host.name.clone(),
        address: host.address.clone(),
        public_key: host.public_key.clone(),
        preserved: entry.preserved.clone(),
        nodes: node_records(net, entry),
        commits: entry
            .books
            .values()
            .flat_map(|book| book.commits().iter().cloned())
            .collect(),
        early_count: entry.early.unwrap_or_default(),
        early_median_ratio_bp: early_ratio(exam, index),
        artifacts_file: file_name(net, exam, index),
        votes: entry.votes.clone(),
        voting_power: exam.powers.get(index).copied().unwrap_or_default(),
        expected_weight: outcome.expected,
        ratio_bp: outcome.ratio_bp,
        weight: outcome.weight,
        lost_ngonka: outcome.lost_ngonka.to_string(),
    }
}

/// Node rows; what preserved nodes carry is dealt out in order, so that the rows add up to the weight.
fn node_records(net: &Network, entry: &Entry) -> Vec<ledger::Node> {
    let mut counted: BTreeMap<&str, u64> = entry
        .books
        .iter()
        .map(|(model, book)| (model.as_str(), book.committed()))
        .collect();
    let record = |node: &crate::exam::ExamNode, counted: &mut u64| {
        let counts = entry.books.get(&node.model).map(Book::counts).unwrap_or_default();
        let (accepted, committed) = counts.get(&node.node_num).copied().unwrap_or_default();
        let scale = net.model(&node.model).map(|model| model.weight_scale_factor);
        let worth = |count| scale.map_or(0, |scale| scale.floor_of(count));
        let before = worth(*counted);
        *counted += node.carried;
        ledger::Node {
            node_id: node.node_id.clone(),
            node_num: node.node_num,
            node_count: node.node_count,
            model: node.model.clone(),
            requests: node.requests.clone(),
            first_callback_ms: node.first_callback_ms,
            accepted,
            committed,
            carried_weight: worth(*counted) - before,
            physically_available_weight: worth(accepted),
        }
    };
    entry
        .nodes
        .iter()
        .map(|node| record(node, counted.entry(node.model.as_str()).or_default()))
        .collect()
}
