//! Whether a slot would pass an exam that began now, from evidence. Pure.

use std::str::FromStr as _;

use crds::conditions::{ConditionStatus, Reason};
use crds::model_deployment::{SlotState, SpareState};

use super::rehearsal::Proof;
use super::world::{Assignment, Health, World};
use crate::model_deployment::observed::{Link, Phase, PodSeen};

/// Reasons that only say that something is not known.
const NOT_KNOWN: [Reason; 4] = [
    Reason::NoGolden,
    Reason::SampleStale,
    Reason::ChainUnknown,
    Reason::NotObserved,
];

/// Verdict over one slot.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// What it can do.
    pub state: SlotState,
    /// Why it is not SprintReady; empty when it is.
    pub reasons: Vec<Reason>,
}

impl Judgement {
    /// True, False, or Unknown when nothing speaks against it but something is not known.
    pub fn status(&self) -> ConditionStatus {
        if self.reasons.is_empty() {
            ConditionStatus::True
        } else if self.reasons.iter().all(|reason| NOT_KNOWN.contains(reason)) {
            ConditionStatus::Unknown
        } else {
            ConditionStatus::False
        }
    }
}

/// Judges one slot as its slice says it is held.
pub fn judge(world: &World<'_>, slot: i32, assignment: &Assignment) -> Judgement {
    let held = assignment
        .holder
        .as_ref()
        .and_then(|holder| Some((holder.name.as_str(), world.pod_of(holder)?)));
    let Some((name, pod)) = held else {
        return Judgement {
            state: SlotState::Unassigned,
            reasons: vec![Reason::SlotUnassigned],
        };
    };
    let reasons = reasons(world, slot, assignment, name, pod);
    let round = world.live(pod).and_then(|live| live.round.as_ref());
    let state = match world.health(pod) {
        Health::Usable if round.is_some_and(|round| round.active) => SlotState::Generating,
        Health::Usable if reasons.is_empty() => SlotState::SprintReady,
        Health::Usable => SlotState::Assigned,
        Health::Starting if is_coming_up(world, pod) => SlotState::Starting,
        Health::Starting | Health::Lost | Health::Dead | Health::Leaving => SlotState::Unreachable,
    };
    Judgement { state, reasons }
}

fn is_coming_up(world: &World<'_>, pod: &PodSeen) -> bool {
    pod.phase == Phase::Pending || world.live(pod).is_none_or(|live| live.link == Link::Connecting)
}

fn reasons(world: &World<'_>, slot: i32, assignment: &Assignment, name: &str, pod: &PodSeen) -> Vec<Reason> {
    let Some(live) = world.live(pod).filter(|_| world.connected(pod)) else {
        return vec![Reason::Unreachable];
    };
    let mut reasons = Vec::new();
    if live.slot != slot || live.generation != assignment.generation || !live.door_open {
        reasons.push(Reason::InProgress);
    }
    if !live.loaded_model.is_empty() && live.loaded_model != world.seen.deployment.spec.model.id {
        reasons.push(Reason::WrongModel);
    } else if !world.loaded(pod) {
        reasons.push(Reason::BackendsMissing);
    }
    match world.proof(name) {
        Proof::Missing => reasons.push(Reason::NotRehearsed),
        Proof::Failed(_) => reasons.push(Reason::RehearsalFailed),
        Proof::Uncompared => reasons.push(Reason::NoGolden),
        Proof::Passed => {}
    }
    if world.seen.deployment.spec.gpus_per_replica > 0 {
        let machine = world.machine(pod);
        if world.gpu_finding(pod) || machine.is_some_and(|machine| machine.gpus_healthy == Some(false)) {
            reasons.push(Reason::GpuFinding);
        } else if machine.is_none_or(|machine| machine.gpus_healthy.is_none()) {
            reasons.push(Reason::SampleStale);
        }
    }
    // What the pod says of itself is foreign: only names we know are passed on.
    for reason in live.not_ready.iter().filter_map(|name| Reason::from_str(name).ok()) {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons.truncate(16);
    reasons
}

/// What a pod without a slot can do.
pub fn spare_state(world: &World<'_>, name: &str, pod: &PodSeen) -> SpareState {
    match world.health(pod) {
        Health::Usable if world.loaded(pod) && world.proof(name).ran() => SpareState::Ready,
        Health::Usable => SpareState::NotRehearsed,
        Health::Starting if is_coming_up(world, pod) => SpareState::Starting,
        Health::Starting | Health::Lost | Health::Dead | Health::Leaving => SpareState::Unreachable,
    }
}
