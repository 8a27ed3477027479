//! Simulated hosts: they produce artifacts at their rate, in small batches, and vote by what recomputation found. In
//! real time the artifacts are real; where artifacts are counted, so are theirs.

use crate::{
    early,
    event::{Effect, Timer, Work},
    exam::{
        Entry, Exam, ExamNode,
        book::{Book, Proof, counted::Batch},
    },
    ledger::StartRequest,
    network::{Conduct, Host, Network, Simulated},
    noise, sample,
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
    let (seed, exam) = (net.seed(), (net.exams_started).to_string());
    let usual = u64::from(conduct.nonces_per_second) * 10 * u64::from(net.hosts[host].speed_percent);
    (0..conduct.nodes)
        .map(|index| {
            let node_id = format!("{}-{index}", net.hosts[host].name);
            let rate_milli = noise::vary(usual, conduct.noise_permille, &[&seed, &exam, &node_id]);
            ExamNode {
                rate_milli,
                ..ExamNode::new(node_id, index + 1, conduct.nodes + 1, model.id.clone())
            }
        })
        .collect()
}

fn simulated(net: &Network, host: usize) -> Option<Simulated> {
    conduct_of(&net.hosts[host])
}

fn conduct_of(host: &Host) -> Option<Simulated> {
    match host.conduct {
        Conduct::Simulated(conduct) => Some(conduct),
        Conduct::External => None,
    }
}

/// An exam starts: every node that is not preserved starts too, or so many blocks later.
pub fn begin(net: &mut Network, exam_id: u64) -> Vec<Effect> {
    let block_ms = net.scenario.network.block_millis;
    let conducts: Vec<Option<(Simulated, usize)>> = (0..net.hosts.len())
        .map(|host| {
            let conduct = simulated(net, host)?;
            Some((conduct, net.started_nodes(host, conduct.nodes as usize)))
        })
        .collect();
    if let Some(exam) = &mut net.exam {
        for (entry, conduct) in exam.entries.iter_mut().zip(conducts) {
            let Some((conduct, started)) = conduct else {
                continue;
            };
            let t_ms = u64::from(conduct.late_blocks) * block_ms;
            let preserved = entry.preserved.clone();
            let asked = entry.nodes.iter_mut().take(started);
            for node in asked.filter(|node| !preserved.contains(&node.node_id)) {
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
    let again = Effect::After {
        ms: block_ms,
        timer: Timer::Produce { exam: exam_id },
    };
    if exam.proof == Proof::Counted {
        count(net, block_ms);
        return vec![again];
    }
    let mut effects = vec![again];
    for host in 0..net.hosts.len() {
        let Some(conduct) = simulated(net, host) else {
            continue;
        };
        let entry = &exam.entries[host];
        let ran_ms = ran(exam, conduct, block_ms, now_ms);
        for (index, node) in entry.nodes.iter().enumerate().filter(|(_, node)| works(entry, node)) {
            let due = noise::nonces(node.rate_milli, ran_ms);
            effects.extend(batch(net, exam, (host, index), node, due));
        }
    }
    effects
}

/// Milliseconds that a host's nodes have generated.
fn ran(exam: &Exam, conduct: Simulated, block_ms: u64, now_ms: u64) -> u64 {
    let late_ms = u64::from(conduct.late_blocks) * block_ms;
    exam.since_start(now_ms).saturating_sub(late_ms)
}

/// Whether a node was started: whoever is left on inference, or left out of a partial start, was not.
fn works(entry: &Entry, node: &ExamNode) -> bool {
    !node.requests.is_empty() && !entry.preserved.contains(&node.node_id)
}

/// What every node owes by now is there at once: there is nothing to compute.
fn count(net: &mut Network, block_ms: u64) {
    let now_ms = net.now_ms;
    let Some(exam) = &mut net.exam else {
        return;
    };
    for (host, index) in net.hosts.iter().zip(0..) {
        let Some(conduct) = conduct_of(host) else {
            continue;
        };
        let since = exam.since_start(now_ms);
        let ran_ms = ran(exam, conduct, block_ms, now_ms);
        let entry: &mut Entry = &mut exam.entries[index];
        let model = entry.nodes.first().map(|node| node.model.clone()).unwrap_or_default();
        let book = entry.books.entry(model).or_insert_with(|| Book::new(Proof::Counted));
        for node in &mut entry.nodes {
            if node.requests.is_empty() || entry.preserved.contains(&node.node_id) {
                continue;
            }
            let batch = Batch {
                node_num: node.node_num,
                group: 0,
                places: 0..noise::nonces(node.rate_milli, ran_ms),
            };
            if book.count(&batch) > 0 {
                node.first_callback_ms.get_or_insert(since);
            }
        }
    }
}

/// The next nonces of a node, as many as its rate owes by now.
fn batch(net: &Network, exam: &Exam, place: (usize, usize), node: &ExamNode, due: u64) -> Option<Effect> {
    let (host, index) = place;
    let conduct = simulated(net, host)?;
    let done = delivered(&exam.entries[host], node);
    let model = net.model(&node.model)?;
    let enumeration = Enumeration::new(i64::from(node.node_num), i64::from(node.node_count), 0, 1).ok()?;
    let places = done..due.min(enumeration.len());
    if places.is_empty() {
        return None;
    }
    Some(Effect::Compute(Work::Generate {
        exam: exam.id,
        host,
        node: index,
        model: model.id.clone(),
        round: exam.round(&net.hosts[host].public_key, model.seq_len, model.k_dim),
        enumeration,
        places,
        random: conduct.delivery == Delivery::Random,
    }))
}

fn delivered(entry: &Entry, node: &ExamNode) -> u64 {
    entry
        .books
        .get(&node.model)
        .map_or(0, |book| book.delivered(node.node_num))
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
    let most = net.scenario.parameters.validation_sample_size;
    let mut effects = Vec::new();
    for (host, entry) in exam.entries.iter().enumerate() {
        for (model_id, book) in entry.books.iter().filter(|(_, book)| book.committed() > 0) {
            let Some(model) = net.model(model_id) else {
                continue;
            };
            if exam.proof == Proof::Counted {
                effects.push(Effect::Compute(Work::Count {
                    exam: exam.id,
                    host,
                    model: model_id.clone(),
                    total: sample::size(book, most),
                    fraud: is_fraud(net, host),
                }));
                continue;
            }
            effects.push(Effect::Compute(Work::Judge {
                exam: exam.id,
                host,
                model: model_id.clone(),
                round: exam.round(&net.hosts[host].public_key, model.seq_len, model.k_dim),
                sample: sample::draw(book, most, &format!("{}/rivals/{}", exam.id, net.hosts[host].address)),
                test: stat_test(model),
            }));
        }
    }
    effects
}

/// What recomputing a host's artifacts finds where they are only counted.
pub fn is_fraud(net: &Network, host: usize) -> bool {
    simulated(net, host).is_some_and(|conduct| conduct.delivery == Delivery::Random)
}

/// Votes of simulated hosts that can be given by now.
pub fn vote(net: &mut Network) {
    let Some(exam) = net.exam.as_ref() else {
        return;
    };
    let late = std::cell::OnceCell::new();
    let all_given_up = net.height() >= exam.window.validation_wind_down;
    let mut votes = Vec::new();
    for subject in 0..net.hosts.len() {
        let entry = &exam.entries[subject];
        let open: Vec<usize> = (0..net.hosts.len())
            .filter(|validator| !entry.ballot.has(*validator))
            .collect();
        if open.is_empty() || entry.committed() == 0 {
            continue;
        }
        // A validator fetches the proofs from the host itself.
        let reachable = subject != net.ours || (net.dapi.up && !is_closed(net));
        let fair = match (entry.is_judged() && reachable, all_given_up) {
            (true, _) => {
                let misses = late.get_or_init(|| crate::tally::early_misses(net, exam));
                Some(fair_value(entry, misses[subject]))
            }
            (false, true) => Some(-1),
            (false, false) => None,
        };
        let against = Conspiracy::against(net, exam, subject);
        for validator in open {
            if let Some(value) = value(net, (validator, subject), fair, &against) {
                votes.push((subject, validator, value));
            }
        }
    }
    if let Some(exam) = &mut net.exam {
        for (subject, validator, value) in votes {
            exam.entries[subject].ballot.cast(validator, value);
        }
    }
}

fn is_closed(net: &Network) -> bool {
    let public = net.faults.port(crate::faults::Port::DapiPublic);
    public.stopped || public.stalled || public.status.is_some_and(|status| status >= 400)
}

/// Recomputation found no fraud and the host was not late twice: the size of the sample; else a refusal.
fn fair_value(entry: &Entry, early_misses: u32) -> i64 {
    let fraud = entry.judged.values().any(|judged| judged.fraud);
    let total: u32 = entry.judged.values().map(|judged| judged.total).sum();
    if fraud || early::is_voted_down(early_misses) {
        -1
    } else {
        i64::from(total)
    }
}

fn value(net: &Network, (validator, subject): (usize, usize), fair: Option<i64>, against: &Conspiracy) -> Option<i64> {
    let conduct = simulated(net, validator)?;
    if against.has(validator) {
        return Some(-1);
    }
    match net.hosts[validator].votes.unwrap_or(conduct.votes) {
        Voting::Honest => fair,
        Voting::Invalid if validator == subject => fair,
        Voting::Invalid => Some(-1),
        Voting::Absent => None,
    }
}

/// Those that a verb has turned against a host: the first ones that together hold the share asked for.
#[derive(Debug, Default)]
struct Conspiracy(Vec<usize>);

impl Conspiracy {
    fn against(net: &Network, exam: &Exam, subject: usize) -> Self {
        let Some(share) = net.faults.vote_invalid.get(&subject) else {
            return Self::default();
        };
        let wanted = exam.total_power() as f64 * share;
        let mut held = 0_u64;
        let others = (0..net.hosts.len()).filter(|index| simulated(net, *index).is_some() && *index != subject);
        let turned = others.take_while(|index| {
            let enough = held as f64 >= wanted;
            held += exam.powers.get(*index).copied().unwrap_or_default();
            !enough
        });
        Self(turned.collect())
    }

    fn has(&self, validator: usize) -> bool {
        self.0.contains(&validator)
    }
}
