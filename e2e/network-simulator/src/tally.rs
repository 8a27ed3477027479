//! The end of an exam: votes counted, weights formed, an epoch settled; [`record`] writes it down.

pub mod record;
mod scales;

use crate::{
    challenge,
    early::{self, Share},
    economy,
    exam::{
        Entry, Exam, ExamNode,
        book::{Book, Counts, Proof},
        window::Kind,
    },
    ledger::files::ArtifactsFile,
    network::{Network, Reward, Seat, SeatNode, Settlement},
    scenario::expect::Verdict,
    settlement::{self, Standing},
    truth, votes,
};
use std::collections::BTreeMap;

pub use record::votes;

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
    challenge::decide(net, exam.window.kind);
    if exam.window.kind == Kind::Sprint {
        scales::fix(net, &exam);
    }
    let misses = early_misses(net, &exam);
    for (host, misses) in net.hosts.iter_mut().zip(misses) {
        host.early_misses = misses;
    }
    let available: Vec<Available> = (0..exam.entries.len())
        .map(|index| available(net, &exam, index))
        .collect();
    let outcomes: Vec<Outcome> = match exam.window.kind {
        Kind::Sprint => sprint(net, &exam, &available),
        Kind::Confirmation => confirmation(net, &exam),
    };
    let record = record::exam(net, &exam, &outcomes, &available);
    net.record.exams.push(record);
    if exam.proof == Proof::Computed {
        for (index, entry) in exam.entries.iter().enumerate() {
            let lines = entry.books.values().flat_map(Book::lines).collect();
            net.record.artifacts.push(ArtifactsFile {
                name: file_name(net, &exam, index),
                lines,
            });
        }
    }
    net.faults.vote_invalid.clear();
    net.faults.partial_starts.clear();
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

/// Where a host's artifacts are; nowhere when they were only counted.
fn file_name(net: &Network, exam: &Exam, index: usize) -> String {
    match exam.proof {
        Proof::Computed => format!("exam-{}/{}.jsonl", exam.id, net.hosts[index].address),
        Proof::Counted => String::new(),
    }
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

/// Every host's early share against the median.
fn early_ratios(exam: &Exam) -> Vec<Option<u64>> {
    let shares = shares(exam);
    early::ratios_bp(&shares)
}

/// Misses in a row of every host with this exam counted; only Sprints are photographed for the guard.
pub fn early_misses(net: &Network, exam: &Exam) -> Vec<u32> {
    let before = net.hosts.iter().map(|host| host.early_misses);
    match exam.window.kind {
        Kind::Sprint => before
            .zip(early_ratios(exam))
            .map(|(before, ratio)| early::misses(before, ratio))
            .collect(),
        Kind::Confirmation => before.collect(),
    }
}

fn verdict(net: &Network, exam: &Exam, entry: &Entry) -> Verdict {
    let threshold = net.scenario.parameters.validation_vote_threshold_bps;
    let ballot = &entry.ballot;
    votes::decide(ballot.power(true), ballot.power(false), exam.total_power(), threshold)
}

/// Committed artifacts of a model, as they count.
fn book_count(entry: &Entry, model: &str) -> u64 {
    entry.books.get(model).map_or(0, Book::committed) * TIME_NORM_BP / 10_000
}

/// Weight of committed and carried counts together, and of the carried ones' part in it.
fn weights(net: &Network, epoch: u64, entry: &Entry) -> (u64, u64) {
    let mut carried: BTreeMap<&str, u64> = BTreeMap::new();
    for node in &entry.nodes {
        *carried.entry(node.model.as_str()).or_default() += node.carried;
    }
    let models = entry.books.keys().map(String::as_str).chain(carried.keys().copied());
    let models: std::collections::BTreeSet<&str> = models.collect();
    models.into_iter().fold((0, 0), |(whole, kept), model| {
        let Some(scale) = net.scale(epoch, model) else {
            return (whole, kept);
        };
        let count = book_count(entry, model);
        let both = scale.floor_of(count + carried.get(model).copied().unwrap_or_default());
        (whole + both, kept + both - scale.floor_of(count))
    })
}

/// Weight that the network grants: all of it to who was accepted, what was carried to everybody.
fn granted(net: &Network, exam: &Exam, entry: &Entry) -> u64 {
    let (whole, carried) = weights(net, exam.epoch, entry);
    match verdict(net, exam, entry) {
        Verdict::Accepted => whole,
        Verdict::Rejected | Verdict::Undecided => carried,
    }
}

/// Nonces that a host could have had: per node id where that is known, and the weight of all of them.
#[derive(Debug, Clone, Default)]
struct Available {
    nodes: Option<BTreeMap<String, u64>>,
    weight: u64,
    /// With what happened in generation.
    attainable_weight: u64,
}

/// What was physically there where that is known ([`truth`]), else what was delivered in time.
fn available(net: &Network, exam: &Exam, index: usize) -> Available {
    if net.challenges.excuses(index, &exam.window) {
        return Available::default();
    }
    let known = match exam.proof {
        Proof::Computed => None,
        Proof::Counted => truth::available(net, exam, index),
    };
    let mut models: BTreeMap<&str, u64> = BTreeMap::new();
    if let Some(nodes) = &known {
        for (model, count) in nodes.values() {
            *models.entry(model).or_default() += count;
        }
    } else {
        let books = exam.entries[index].books.iter();
        models.extend(books.map(|(model, book)| (model.as_str(), book.accepted())));
    }
    let worth = |(model, count)| Some(net.scale(exam.epoch, model)?.floor_of(count));
    let weight = models.into_iter().filter_map(worth).sum();
    let attained = known.as_ref().and_then(|_| truth::attainable::of(net, exam, index));
    let attainable_weight = attained.map_or(weight, |models| models.into_iter().filter_map(worth).sum());
    let nodes = known.map(|nodes| nodes.into_iter().map(|(id, (_, count))| (id, count)).collect());
    Available {
        nodes,
        weight,
        attainable_weight,
    }
}

fn sprint(net: &mut Network, exam: &Exam, available: &[Available]) -> Vec<Outcome> {
    let height = net.height();
    if let Some(before) = exam.epoch.checked_sub(1) {
        settle(net, before);
        challenge::pay(net, before);
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
        .zip(available)
        .map(|((entry, weight), available)| {
            let carried = self::weights(net, exam.epoch, entry).1;
            let missed = (available.weight + carried).saturating_sub(weight);
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

pub fn reward_of(net: &Network, epoch: u64) -> u64 {
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
    let counts = model_counts(entry);
    let nodes = entry
        .nodes
        .iter()
        .map(|node| {
            let (_, committed) = of_node(&counts, node);
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
    let excused = |host: &usize| net.challenges.excuses(*host, &exam.window);
    let excused: Vec<usize> = (0..net.hosts.len()).filter(excused).collect();
    let epoch = net.epoch_mut(exam.epoch);
    let total: u64 = epoch.seats.values().map(|seat| seat.weight).sum();
    let mut outcomes = Vec::new();
    for (index, weight) in readings.into_iter().enumerate() {
        let seat = epoch.seats.get_mut(&index).filter(|_| !excused.contains(&index));
        let Some(seat) = seat else {
            outcomes.push(Outcome {
                weight,
                ratio_bp: 10_000,
                expected: (!excused.contains(&index)).then_some(0),
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
    let Some(epoch) = net.epochs.get(&index).filter(|epoch| !epoch.seats.is_empty()) else {
        return;
    };
    let whole: u64 = epoch.seats.values().map(|seat| seat.weight).sum();
    let confirmed: Vec<(usize, Standing)> = epoch
        .seats
        .iter()
        .map(|(host, seat)| {
            let standing = Standing {
                weight: seat.weight,
                ratio_bp: seat.ratio_bp,
            };
            (*host, standing)
        })
        .collect();
    let standings: BTreeMap<usize, Standing> = confirmed
        .into_iter()
        .map(|(host, standing)| (host, economy::standing(net, host, index, standing)))
        .collect();
    let Some(epoch) = net.epochs.get_mut(&index) else {
        return;
    };
    let rewards = settlement::settle(reward, whole, &standings, alpha_bp)
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
        total_weight: whole,
        rewards,
    });
}

fn model_counts(entry: &Entry) -> BTreeMap<&str, Counts> {
    let counts = entry.books.iter().map(|(model, book)| (model.as_str(), book.counts()));
    counts.collect()
}

/// Accepted and committed artifacts of a node.
fn of_node(counts: &BTreeMap<&str, Counts>, node: &ExamNode) -> (u64, u64) {
    let model = counts.get(node.model.as_str());
    model
        .and_then(|counts| counts.get(&node.node_num))
        .copied()
        .unwrap_or_default()
}
