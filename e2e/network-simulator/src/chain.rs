//! What happens on the chain with each block: exams open and close, commitments and votes get in, epochs are settled.

use crate::{
    challenge, confirmation, dapi,
    economy::{self, Fee},
    event::{Command, Effect, Timer},
    exam::{
        Entry, Exam, ExamNode,
        window::{Kind, Window},
    },
    identity,
    network::{Conduct, Network},
    preserved, rivals, tally,
};
use std::collections::{BTreeMap, BTreeSet};

/// The chain's clock is due: one block more, unless the chain stands.
pub fn on_block(net: &mut Network) -> Vec<Effect> {
    let height = net.height() + 1;
    if net.faults.chain_halts_at.is_some_and(|last| height > last) {
        return Vec::new();
    }
    if net.upgrades.stands_before(height, net.now_ms) {
        return Vec::new();
    }
    let hash = hash_of(net, height);
    net.blocks.push(net.now_ms, hash);
    let mut effects = due_steps(net);
    let lengths = *net.lengths();
    include_transactions(net);
    challenge::include(net);
    economy::on_block(net);
    if let Some(stage_height) = confirmation::on_block(net) {
        effects.push(Effect::Survey { stage_height });
    }
    let epoch = net.latest_epoch();
    let stages = lengths.stages(epoch);
    if epoch > 0 && height == stages.set_new_validators {
        economy::on_epoch(net);
    }
    if epoch > 0 && height == stages.poc_start {
        dapi::claims::make_seeds(net, epoch);
        preserved::pick(net, height);
        effects.push(Effect::Survey { stage_height: height });
        effects.extend(open(net, epoch, Window::sprint(&lengths, &stages)));
    }
    let starting = net
        .confirmation()
        .filter(|event| event.window.start == height)
        .map(|event| event.window);
    if let Some(window) = starting {
        effects.extend(open(net, epoch, window));
    }
    effects.extend(advance(net));
    effects.extend(challenge::on_block(net));
    if dapi::claims::on_block(net) {
        effects.push(Effect::Save);
    }
    effects.extend(dapi::broker::on_block(net));
    effects.extend(finish(net));
    effects
}

/// Hash of a block: forced by the scenario, or derived from chain, seed and height.
fn hash_of(net: &Network, height: i64) -> String {
    let network = &net.scenario.network;
    match network.force_block_hash.get(&height) {
        Some(forced) => forced.clone(),
        None => identity::upper_hash(&["block", &network.chain_id, &net.seed(), &height.to_string()]),
    }
}

fn due_steps(net: &Network) -> Vec<Effect> {
    let block_millis = net.scenario.network.block_millis;
    let due = |step: &crate::scenario::Step| {
        let ms = step.at.due(net.height(), net.lengths(), block_millis)?;
        let command = Command {
            verb: step.verb,
            arguments: step.arguments.clone(),
        };
        Some(Effect::After {
            ms,
            timer: Timer::Command(Box::new(command)),
        })
    };
    net.scenario.steps.iter().filter_map(due).collect()
}

/// Commitments and votes on their way get into this block, in their windows.
fn include_transactions(net: &mut Network) {
    let height = net.height();
    let Some(exam) = &mut net.exam else {
        return;
    };
    let takes_commits = exam.window.takes_commits(height);
    for entry in &mut exam.entries {
        for (model, book) in &mut entry.books {
            if takes_commits {
                book.include(model, height);
            } else {
                book.drop_pending();
            }
        }
        entry.ballot.include(&exam.powers);
    }
    if height == exam.window.generation_end {
        exam.generation_ended_ms = net.now_ms;
    }
    if height == exam.window.last_commit {
        exam.exchange_ended_ms = net.now_ms;
        distribute(net);
    }
}

/// With the last commitment our host says how its count is spread over its nodes: one transaction for each model.
fn distribute(net: &mut Network) {
    let ours = net.ours;
    let committed = |exam: &Exam| {
        let books = exam.entries[ours].books.iter();
        books
            .filter(|(_, book)| book.committed() > 0)
            .map(|(model, _)| model.clone())
            .collect()
    };
    let models: Vec<String> = net.exam.as_ref().map(committed).unwrap_or_default();
    for model in models {
        if !net.transacts(Fee::Duty)
            && let Some(exam) = &mut net.exam
        {
            exam.entries[ours].undistributed.insert(model);
        }
    }
}

/// An exam that starts at the block just made.
pub(crate) fn exam(net: &mut Network, epoch: u64, window: Window) -> Exam {
    let seed = match window.kind {
        Kind::Sprint => net.block(window.start).map(|block| block.hash.clone()),
        Kind::Confirmation => net.block(window.start - 1).map(|block| block.hash.to_lowercase()),
    };
    net.exams_started += 1;
    Exam {
        id: net.exams_started,
        epoch,
        window,
        seed: seed.unwrap_or_default(),
        started_ms: net.now_ms,
        asked_ms: None,
        generation_ended_ms: 0,
        exchange_ended_ms: 0,
        stronger_rng: net.scenario.parameters.poc_stronger_rng_enabled,
        proof: net.proof,
        entries: (0..net.hosts.len()).map(|index| entry(net, index)).collect(),
        powers: Vec::new(),
        snapshot_hash: String::new(),
    }
}

/// Starts an exam at the block just made.
fn open(net: &mut Network, epoch: u64, window: Window) -> Vec<Effect> {
    let exam = exam(net, epoch, window);
    tracing::info!(
        exam = exam.id,
        kind = exam.window.kind.as_ref(),
        epoch,
        height = window.start,
        "exam starts"
    );
    let id = exam.id;
    net.exam = Some(exam);
    let commit_ms = net.dapi.timing.commit_interval_ms;
    let mut effects = vec![Effect::After {
        ms: commit_ms,
        timer: Timer::Commit { exam: id },
    }];
    effects.extend(rivals::begin(net, id));
    effects
}

/// A host's nodes as they stand when the exam opens.
fn entry(net: &Network, index: usize) -> Entry {
    let preserved: BTreeSet<String> = net.preserved.nodes.get(&index).into_iter().flatten().cloned().collect();
    let seat = net
        .epoch(net.effective_epoch())
        .and_then(|epoch| epoch.seats.get(&index));
    let carried: BTreeMap<&str, u64> = seat
        .iter()
        .flat_map(|seat| &seat.nodes)
        .filter(|node| preserved.contains(&node.node_id))
        .map(|node| (node.node_id.as_str(), node.poc_weight))
        .collect();
    let nodes = match net.hosts[index].conduct {
        Conduct::Simulated(conduct) => rivals::exam_nodes(net, index, conduct),
        Conduct::External => {
            let registered = net.dapi.nodes.iter().filter_map(|node| {
                let (id, count) = (node.spec.id.clone(), net.dapi.node_count());
                Some(ExamNode::new(id, node.node_num, count, node.model()?.clone()))
            });
            registered.collect()
        }
    };
    let nodes = nodes
        .into_iter()
        .map(|node| ExamNode {
            carried: carried.get(node.node_id.as_str()).copied().unwrap_or_default(),
            ..node
        })
        .collect();
    Entry {
        preserved,
        nodes,
        ..Entry::default()
    }
}

/// Photo, snapshot, votes and tally of the running exam.
fn advance(net: &mut Network) -> Vec<Effect> {
    let height = net.height();
    let mut effects = Vec::new();
    let Some(window) = net.exam.as_ref().map(|exam| exam.window) else {
        return effects;
    };
    if let Some(exam) = net.exam.as_mut().filter(|_| height == window.photo) {
        for entry in &mut exam.entries {
            entry.early = Some(entry.committed());
        }
    }
    if height == window.validation_start {
        let powers = net.voting_powers();
        let app_hash = identity::digest(&["app", &net.seed(), &height.to_string()]);
        if let Some(exam) = &mut net.exam {
            exam.powers = powers;
            exam.snapshot_hash = hex::encode(app_hash);
        }
        effects.extend(rivals::judge(net));
    }
    if window.validates(height) {
        rivals::vote(net);
    }
    if height == window.validation_end {
        tally::close(net);
        effects.push(Effect::Save);
    }
    effects
}

/// The scenario is over when its last epoch rules, its exams and claims are done and no step is left.
fn finish(net: &mut Network) -> Vec<Effect> {
    let last = net.scenario.network.epochs;
    let height = net.height();
    let stages = net.lengths().stages(last);
    let is_over = height >= stages.next_poc_start - 1 || (height > stages.claim_money && is_done(net, last));
    if net.finished || !is_over {
        return Vec::new();
    }
    net.finished = true;
    tracing::info!(height, "scenario is over");
    vec![Effect::Save, Effect::Finish]
}

fn is_done(net: &Network, last: u64) -> bool {
    let height = net.height();
    let stages = net.lengths().stages(last);
    let claim_time = stages.claim_money + dapi::claims::longest_wait(net.lengths().epoch_length) + 2;
    let exams_left = net.exam.is_some() || net.confirmation().is_some() || net.confirmation_requested;
    let claimed = claims_done(net, last) || height > claim_time;
    let block_millis = net.scenario.network.block_millis;
    let is_left = |step: &crate::scenario::Step| {
        let last_due = step.at.last_before(stages.next_poc_start, net.lengths(), block_millis);
        last_due.is_some_and(|due| due >= height)
    };
    !exams_left && claimed && !awaits_chance(net, last) && !net.scenario.steps.iter().any(is_left)
}

/// Whether the chain may still announce a confirmation that the scenario expects.
fn awaits_chance(net: &Network, epoch: u64) -> bool {
    let expected = net.scenario.parameters.expected_confirmations_per_epoch;
    let had = net.epoch(epoch).map_or(0, |epoch| epoch.confirmations.len() as u64);
    had < expected && net.height() <= net.lengths().confirmation_triggers(epoch).1
}

fn claims_done(net: &Network, ruling: u64) -> bool {
    let settlement = ruling
        .checked_sub(1)
        .and_then(|epoch| net.epoch(epoch))
        .and_then(|epoch| epoch.settlement.as_ref());
    settlement.is_none_or(|settlement| {
        settlement
            .rewards
            .values()
            .all(|reward| reward.ngonka == 0 || reward.claimed_height > 0)
    })
}
