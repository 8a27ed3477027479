//! Simulated hosts: they produce real artifacts at their rate, in small batches, and vote by what recomputation found.

use crate::{
    early,
    event::{Effect, Timer, Work},
    exam::{Entry, Exam, ExamNode},
    ledger::StartRequest,
    network::{Conduct, Network, Simulated},
    sample,
    scenario::{Delivery, Model, Voting},
};
use kernels::{nonces::Enumeration, scheme::Artifact, statistics::StatTest};

/// The ML node's own threshold: it ignores the one that DAPI sends.
pub const FRAUD_THRESHOLD: f64 = 0.01;

/// How artifacts of a model are compared.
pub fn stat_test(model: &Model) -> StatTest {
    StatTest {
        dist_threshold: f64::from(model.stat_test.dist_milli) / 1000.0,
        p_mismatch: f64::from(model.stat_test.p_mismatch_bp) / 10_000.0,
        fraud_threshold: FRAUD_THRESHOLD,
    }
}

/// The nodes of a simulated host: `<host>-<number from 0>`, numbered from 1 like everybody's.
pub fn exam_nodes(net: &Network, host: usize, conduct: Simulated) -> Vec<ExamNode> {
    let model = &net.scenario.models[conduct.model];
    (0..conduct.nodes)
        .map(|index| ExamNode {
            node_id: format!("{}-{index}", net.hosts[host].name),
            node_num: index + 1,
            node_count: conduct.nodes + 1,
            model: model.id.clone(),
            requests: Vec::new(),
            first_callback_ms: None,
            carried: 0,
        })
        .collect()
}

fn simulated(net: &Network, host: usize) -> Option<Simulated> {
    match net.hosts[host].conduct {
        Conduct::Simulated(conduct) => Some(conduct),
        Conduct::External => None,
    }
}

/// An exam starts: every node that is not preserved starts too, or so many blocks later.
pub fn begin(net: &mut Network, exam_id: u64) -> Vec<Effect> {
    let block_ms = net.scenario.network.block_millis;
    let conducts: Vec<Option<Simulated>> = (0..net.hosts.len()).map(|host| simulated(net, host)).collect();
    if let Some(exam) = &mut net.exam {
        for (entry, conduct) in exam.entries.iter_mut().zip(conducts) {
            let Some(conduct) = conduct else {
                continue;
            };
            let t_ms = u64::from(conduct.late_blocks) * block_ms;
            let preserved = entry.preserved.clone();
            for node in entry.nodes.iter_mut().filter(|node| !preserved.contains(&node.node_id)) {
                node.requests.push(StartRequest { t_ms, status: 200 });
            }
        }
    }
    vec![Effect::After {
        ms: block_ms,
        timer: Timer::Produce { exam: exam_id },
    }]
}

/// Time for another batch of every simulated node.
pub fn on_produce(net: &mut Network, exam_id: u64) -> Vec<Effect> {
    let (height, now_ms) = (net.height(), net.now_ms);
    let block_ms = net.scenario.network.block_millis;
    let Some(exam) = net
        .exam
        .as_ref()
        .filter(|exam| exam.id == exam_id && exam.window.generates(height))
    else {
        return Vec::new();
    };
    let mut effects = vec![Effect::After {
        ms: block_ms,
        timer: Timer::Produce { exam: exam_id },
    }];
    for host in 0..net.hosts.len() {
        let Some(conduct) = simulated(net, host) else {
            continue;
        };
        let entry = &exam.entries[host];
        for (index, node) in entry
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| !entry.preserved.contains(&node.node_id))
        {
            let late_ms = u64::from(conduct.late_blocks) * block_ms;
            let ran_ms = exam.since_start(now_ms).saturating_sub(late_ms);
            let due = ran_ms * u64::from(conduct.nonces_per_second) / 1000;
            effects.extend(batch(net, exam, (host, index), node, due));
        }
    }
    effects
}

/// The next nonces of a node, as many as its rate owes by now.
fn batch(net: &Network, exam: &Exam, place: (usize, usize), node: &ExamNode, due: u64) -> Option<Effect> {
    let (host, index) = place;
    let conduct = simulated(net, host)?;
    let done = delivered(&exam.entries[host], node);
    let model = net.model(&node.model)?;
    let enumeration = Enumeration::new(i64::from(node.node_num), i64::from(node.node_count), 0, 1).ok()?;
    let nonces: Vec<i64> = (done..due).filter_map(|at| enumeration.nonce(at)).collect();
    if nonces.is_empty() {
        return None;
    }
    Some(Effect::Compute(Work::Generate {
        exam: exam.id,
        host,
        node: index,
        model: model.id.clone(),
        round: exam.round(&net.hosts[host].public_key, model.seq_len, model.k_dim),
        nonces,
        random: conduct.delivery == Delivery::Random,
    }))
}

fn delivered(entry: &Entry, node: &ExamNode) -> u64 {
    entry.books.get(&node.model).map_or(0, |book| {
        book.accepted()
            .iter()
            .filter(|item| item.node_num == node.node_num)
            .count() as u64
    })
}

/// A batch is ready; it counts if generation still runs.
pub fn on_produced(net: &mut Network, exam_id: u64, place: (usize, usize), artifacts: Vec<Artifact>) {
    let (height, now_ms) = (net.height(), net.now_ms);
    let Some(exam) = net
        .exam
        .as_mut()
        .filter(|exam| exam.id == exam_id && exam.window.generates(height))
    else {
        return;
    };
    let since = exam.since_start(now_ms);
    let entry = &mut exam.entries[place.0];
    let Some(node) = entry.nodes.get_mut(place.1) else {
        return;
    };
    node.first_callback_ms.get_or_insert(since);
    let (model, node_num) = (node.model.clone(), node.node_num);
    let book = entry.books.entry(model).or_default();
    for artifact in artifacts {
        if let Ok(nonce) = i32::try_from(artifact.nonce) {
            book.accept(nonce, node_num, artifact.vector, height);
        }
    }
}

/// Validation starts: one sample of every host and model is recomputed; all honest simulated hosts vote by it.
pub fn judge(net: &Network) -> Vec<Effect> {
    let Some(exam) = &net.exam else {
        return Vec::new();
    };
    let size = net.scenario.parameters.validation_sample_size;
    let mut effects = Vec::new();
    for (host, entry) in exam.entries.iter().enumerate() {
        for (model_id, book) in entry.books.iter().filter(|(_, book)| book.committed() > 0) {
            let Some(model) = net.model(model_id) else {
                continue;
            };
            effects.push(Effect::Compute(Work::Judge {
                exam: exam.id,
                host,
                model: model_id.clone(),
                round: exam.round(&net.hosts[host].public_key, model.seq_len, model.k_dim),
                sample: sample::draw(book, size, &format!("{}/rivals/{}", exam.id, net.hosts[host].address)),
                test: stat_test(model),
            }));
        }
    }
    effects
}

/// Votes of simulated hosts that can be given by now.
pub fn vote(net: &mut Network) {
    let Some(exam) = net.exam.as_ref() else {
        return;
    };
    let all_given_up = net.height() >= exam.window.validation_wind_down;
    let mut votes = Vec::new();
    for subject in 0..net.hosts.len() {
        let entry = &exam.entries[subject];
        if entry.committed() == 0 {
            continue;
        }
        // A validator fetches the proofs from the host itself.
        let reachable = subject != net.ours || (net.dapi.up && !is_closed(net));
        let fair = match (entry.is_judged() && reachable, all_given_up) {
            (true, _) => Some(fair_value(net, exam, subject)),
            (false, true) => Some(-1),
            (false, false) => None,
        };
        for validator in 0..net.hosts.len() {
            let fresh = !has_voted(net, entry, validator);
            if let Some(value) = fresh.then(|| value(net, exam, (validator, subject), fair)).flatten() {
                votes.push((subject, validator, value));
            }
        }
    }
    if let Some(exam) = &mut net.exam {
        for (subject, validator, value) in votes {
            exam.entries[subject].votes_pending.push((validator, value));
        }
    }
}

fn is_closed(net: &Network) -> bool {
    let public = net.faults.port(crate::faults::Port::DapiPublic);
    public.stopped || public.stalled || public.status.is_some_and(|status| status >= 400)
}

fn has_voted(net: &Network, entry: &Entry, validator: usize) -> bool {
    let address = &net.hosts[validator].address;
    entry.votes.iter().any(|vote| vote.validator == *address)
        || entry.votes_pending.iter().any(|(who, _)| *who == validator)
}

/// Recomputation found no fraud and the host was not late twice: the size of the sample; else a refusal.
fn fair_value(net: &Network, exam: &Exam, subject: usize) -> i64 {
    let entry = &exam.entries[subject];
    let fraud = entry.judged.values().any(|judged| judged.fraud);
    let total: u32 = entry.judged.values().map(|judged| judged.total).sum();
    let late = early::is_voted_down(crate::tally::early_misses(net, exam, subject));
    if fraud || late { -1 } else { i64::from(total) }
}

fn value(net: &Network, exam: &Exam, (validator, subject): (usize, usize), fair: Option<i64>) -> Option<i64> {
    let conduct = simulated(net, validator)?;
    if conspires(net, exam, validator, subject) {
        return Some(-1);
    }
    match conduct.votes {
        Voting::Honest => fair,
        Voting::Invalid if validator == subject => fair,
        Voting::Invalid => Some(-1),
        Voting::Absent => None,
    }
}

/// Whether this validator is among those that a verb has turned against the subject: the first ones that together hold
/// the share asked for.
fn conspires(net: &Network, exam: &Exam, validator: usize, subject: usize) -> bool {
    let Some(share) = net.faults.vote_invalid.get(&subject) else {
        return false;
    };
    let wanted = exam.total_power() as f64 * share;
    let before: u64 = (0..validator)
        .filter(|index| simulated(net, *index).is_some() && *index != subject)
        .filter_map(|index| exam.powers.get(index))
        .sum();
    validator != subject && (before as f64) < wanted
}
