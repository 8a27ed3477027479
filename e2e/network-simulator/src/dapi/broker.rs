//! What each node should be doing at a height, and which job brings it there. Looked at every block.

use super::{
    Node, PocStatus, Status,
    job::{self, Purpose},
};
use crate::{
    event::{Effect, Timer},
    exam::{
        Exam, ExamNode,
        window::{Duty, Kind},
    },
    network::Network,
};

/// Blocks between two looks at nodes that are not where they should be, outside of exams.
const RECONCILE_BLOCKS: i64 = 5;
/// From `stop` to the first validation request, as recorded.
const DISPATCH_AFTER_MS: u64 = 40;

/// DAPI has seen a new block.
pub fn on_block(net: &mut Network) -> Vec<Effect> {
    if !net.dapi.up {
        return Vec::new();
    }
    read_preserved(net);
    let mut effects: Vec<Effect> = Vec::new();
    for place in 0..net.dapi.nodes.len() {
        effects.extend(steer(net, place));
    }
    let validates = net
        .exam
        .as_ref()
        .filter(|exam| exam.window.validation_start == net.height())
        .map(|exam| exam.id);
    if let Some(exam) = validates {
        effects.push(Effect::After {
            ms: DISPATCH_AFTER_MS,
            timer: Timer::Dispatch { exam },
        });
    }
    effects
}

/// DAPI reads the chain's draw when an exam begins: of a confirmation that is only announced it shows nothing yet.
fn read_preserved(net: &mut Network) {
    let height = net.height();
    if net.confirmation().is_none_or(|event| event.window.start <= height) {
        let chosen = net
            .preserved
            .nodes
            .get(&net.ours)
            .map(Vec::as_slice)
            .unwrap_or_default();
        if net.dapi.preserved != chosen {
            net.dapi.preserved = chosen.to_vec();
        }
    }
}

/// A fresh node is looked at when it is registered, not only at the next block.
pub fn look_at(net: &mut Network, id: &str) -> Vec<Effect> {
    let now_ms = net.now_ms;
    if let Some(node) = net.dapi.node_mut(id) {
        node.set_current((Status::Stopped, PocStatus::Idle), now_ms);
    }
    if net
        .exam
        .as_ref()
        .is_some_and(|exam| exam.window.duty(net.height()) == Duty::Start)
    {
        return Vec::new();
    }
    job::begin(net, id, Purpose::ToInference)
}

fn steer(net: &mut Network, place: usize) -> Vec<Effect> {
    let Some(node) = net.dapi.nodes.get(place) else {
        return Vec::new();
    };
    let intended = intended(net, node);
    let is_left_out = place >= net.started_nodes(net.ours, net.dapi.nodes.len());
    let purpose = purpose(net, node, intended).filter(|purpose| *purpose != Purpose::Start || !is_left_out);
    let (height, now_ms) = (net.height(), net.now_ms);
    let Some(node) = net.dapi.nodes.get_mut(place) else {
        return Vec::new();
    };
    node.intended = intended;
    if intended == (Status::Poc, PocStatus::Validating) && purpose != Some(Purpose::Halt) {
        follow_into_validation(node, now_ms);
    }
    let Some(purpose) = purpose else {
        return Vec::new();
    };
    let id = &node.spec.id.clone();
    if purpose == Purpose::Start {
        note_in_exam(net, id);
    }
    tracing::debug!(node = id, height, ?purpose, "job");
    job::begin(net, id, purpose)
}

/// Where DAPI wants a node. In a confirmation its view of the phase is one window behind: it shows a node generating
/// until one block after validation has begun.
fn intended(net: &Network, node: &Node) -> (Status, PocStatus) {
    if !is_operational(net, node) {
        return (Status::Stopped, PocStatus::Idle);
    }
    let height = net.height();
    if net.is_challenged(&node.spec.id) {
        let validates = net
            .exam
            .as_ref()
            .is_some_and(|exam| height > exam.window.validation_start);
        let doing = if validates {
            PocStatus::Validating
        } else {
            PocStatus::Generating
        };
        return (Status::Poc, doing);
    }
    match net.exam.as_ref().filter(|exam| takes_part(net, exam, node)) {
        Some(exam) if height < exam.window.validation_end => {
            let validates_from = match exam.window.kind {
                Kind::Sprint => exam.window.generation_end,
                Kind::Confirmation => exam.window.validation_start + 1,
            };
            if height < validates_from {
                (Status::Poc, PocStatus::Generating)
            } else {
                (Status::Poc, PocStatus::Validating)
            }
        }
        Some(_) | None => (Status::Inference, PocStatus::Idle),
    }
}

/// A disabled node works until its epoch is over; one enabled during an epoch's exam joins afterwards.
pub fn is_operational(net: &Network, node: &Node) -> bool {
    let latest = net.latest_epoch();
    if node.admin.enabled {
        latest > node.admin.epoch || net.exam.is_none() || is_confirmation(net)
    } else {
        latest <= node.admin.epoch
    }
}

fn is_confirmation(net: &Network) -> bool {
    net.exam
        .as_ref()
        .is_some_and(|exam| exam.window.kind == Kind::Confirmation)
}

fn takes_part(net: &Network, exam: &Exam, node: &Node) -> bool {
    let excused = net.challenges.excuses(net.ours, &exam.window);
    node.model().is_some() && !excused && !exam.entries[net.ours].preserved.contains(&node.spec.id)
}

fn purpose(net: &Network, node: &Node, intended: (Status, PocStatus)) -> Option<Purpose> {
    let height = net.height();
    let running = node.job.as_ref().map(|job| job.purpose);
    let reconciles = height % RECONCILE_BLOCKS == 0;
    let window = net.exam.as_ref().map(|exam| exam.window);
    let wanted = match (intended, window) {
        // The challenge is over: generation ends before anything else begins.
        _ if node.is_generating() && net.challenges.ends(net.ours, height) => Some(Purpose::Halt),
        ((Status::Poc, _), Some(window)) if window.validation_start == height => {
            (node.current.0 == Status::Poc).then_some(Purpose::Halt)
        }
        ((Status::Poc, PocStatus::Generating), _) if net.is_challenged(&node.spec.id) => {
            let due = net.challenges.segment(net.ours).is_some() && !node.is_generating();
            due.then_some(Purpose::Start)
        }
        ((Status::Poc, PocStatus::Generating), Some(window)) => {
            let awake = is_active(net) || window.kind == Kind::Sprint || reconciles;
            let due = window.duty(height) == Duty::Start && !node.is_generating() && awake;
            due.then_some(Purpose::Start)
        }
        ((Status::Poc, _), _) => None,
        ((Status::Stopped, _), _) => (node.current.0 != Status::Stopped && reconciles).then_some(Purpose::StopAll),
        _ => {
            let returns = node.current.0 == Status::Poc;
            let astray = node.current.0 != Status::Inference && reconciles;
            (returns || astray).then_some(Purpose::ToInference)
        }
    };
    if let Some(purpose) = wanted {
        return (running != Some(purpose)).then_some(purpose);
    }
    let silent = net.now_ms.saturating_sub(node.status_ms) >= net.dapi.timing.idle_poll_ms;
    (running.is_none() && silent).then_some(Purpose::Poll)
}

/// A host without weight in the ruling epoch learns of a confirmation only at its own pace.
fn is_active(net: &Network) -> bool {
    let epoch = net.epoch(net.effective_epoch());
    epoch.is_none_or(|epoch| epoch.index == 0 || epoch.seats.get(&net.ours).is_some_and(|seat| seat.weight > 0))
}

fn follow_into_validation(node: &mut Node, now_ms: u64) {
    match node.current {
        (Status::Failed | Status::Stopped | Status::Unknown, _) => {
            node.failure_reason = format!("cannot transition to POC/Validating: node is {}", node.current.0);
        }
        (Status::Poc, PocStatus::Validating) => {}
        _ => node.set_current((Status::Poc, PocStatus::Validating), now_ms),
    }
}

/// The exam's record of a node that is about to be asked.
fn note_in_exam(net: &mut Network, id: &str) {
    let node_count = net.dapi.node_count();
    let Some((node_num, model)) = net
        .dapi
        .node(id)
        .and_then(|node| Some((node.node_num, node.model()?.clone())))
    else {
        return;
    };
    let (ours, now_ms) = (net.ours, net.now_ms);
    if let Some(exam) = net.generated_mut() {
        exam.asked_ms.get_or_insert(now_ms);
        exam.entries[ours].upsert(ExamNode::new(id.to_owned(), node_num, node_count, model));
    }
}
