//! The status people read: who holds which slot, who could, and what keeps the deployment from being ready. Pure; equal to
//! the last one when nothing changed.

use std::collections::BTreeSet;

use crds::conditions::{ConditionStatus, ConditionType, Reason};
use crds::model_deployment::{ModelDeploymentStatus, SlotState, SlotStatus, SpareState, SpareStatus};
use crds::references::UidReference;
use crds::{ModelDeployment, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::planner::{Plan, Rollout};
use super::power;
use super::readiness::{self, Judgement};
use super::rehearsal::Proof;
use super::rollout_status;
use super::services;
use super::spec::Problem;
use super::world::{Assignment, Health, World};
use crate::change::{Change, Object};
use crate::conditions::Conditions;
use crate::few::few;
use crate::gate::{ActionKind, Verdict};
use crate::model_deployment::observed::{PodSeen, Rehearsed};

/// Pods without a slot that the status has room for.
const MAX_SPARES: usize = 640;

/// The status's write, when it differs. `plan` is absent when the spec is not acted upon.
pub fn change(world: &World<'_>, plan: Option<&Plan>, problems: &[Problem]) -> Option<Change> {
    let status = status(world, plan, problems);
    (world.seen.deployment.status.as_ref() != Some(&status))
        .then(|| Change::Status(Object::status_of(&world.seen.deployment, &status)))
}

fn status(world: &World<'_>, plan: Option<&Plan>, problems: &[Problem]) -> ModelDeploymentStatus {
    let seen = world.seen;
    let previous = seen.deployment.status.clone().unwrap_or_default();
    // A slot that is not wanted any more is examined for as long as a pod holds it.
    let shown = |slot: i32, assignment: &Assignment| slot < seen.deployment.spec.slots || assignment.holder.is_some();
    let judged: Vec<(i32, Judgement)> = world
        .slots
        .iter()
        .filter(|(slot, assignment)| shown(**slot, assignment))
        .map(|(slot, assignment)| (*slot, readiness::judge(world, *slot, assignment)))
        .collect();
    let slots: Vec<SlotStatus> = judged
        .iter()
        .map(|(slot, judgement)| slot_status(world, *slot, judgement))
        .collect();
    let spares = spares(world);
    let conditions = conditions(world, plan, problems, &judged, &spares);
    let now = Time(Timestamp::from_millisecond(seen.now_ms).unwrap_or_default());
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    ModelDeploymentStatus {
        observed_generation: seen.deployment.metadata.generation,
        revision: if plan.is_some() {
            Some(world.revision.clone())
        } else {
            previous.revision
        },
        rollout: match plan {
            Some(plan) => rollout_status::status(world, plan),
            None => previous.rollout,
        },
        load_seconds: rollout_status::load_seconds(world),
        power: power::above(world),
        assigned_slots: count(slots.iter().filter(|slot| slot.pod_ref.is_some()).count()),
        sprint_ready_slots: count(
            judged
                .iter()
                .filter(|(_, judgement)| judgement.status() == ConditionStatus::True)
                .count(),
        ),
        ready_spares: count(spares.iter().filter(|spare| spare.state == SpareState::Ready).count()),
        selector: Some(format!(
            "{}={},{}={}",
            labels::DEPLOYMENT,
            seen.name(),
            labels::ROLE,
            labels::ROLE_SLOT_POD
        )),
        slots,
        spares,
        conditions: conditions.render(seen.deployment.metadata.generation, &now, &previous.conditions),
    }
}

fn slot_status(world: &World<'_>, slot: i32, judgement: &Judgement) -> SlotStatus {
    let assignment = world.slots.get(&slot).cloned().unwrap_or_default();
    let held = assignment
        .holder
        .as_ref()
        .and_then(|holder| Some((holder, world.pod_of(holder)?)));
    let rehearsed = held.and_then(|(holder, pod)| proven(world, &holder.name, pod));
    SlotStatus {
        index: slot,
        node_id: world.seen.node_id(slot),
        node_num: world.node_num(slot),
        address: services::address(world.seen, slot),
        pod_ref: held.map(|(holder, _)| UidReference {
            name: holder.name.clone(),
            uid: holder.uid.clone(),
        }),
        node_name: held
            .map(|(_, pod)| pod.node_name.clone())
            .filter(|name| !name.is_empty()),
        revision: held.map(|(_, pod)| pod.revision.clone()),
        generation: assignment.generation,
        state: judgement.state,
        reasons: judgement.reasons.iter().map(ToString::to_string).collect(),
        rehearsed_time: rehearsed.and_then(rehearsed_time),
        // What a slot without a pod brought last decides who gets a scarce spare.
        nonces_per_minute: rehearsed
            .map(nonces_per_minute)
            .or_else(|| Some(world.last_rate(slot)).filter(|rate| *rate > 0)),
    }
}

/// The pod's rehearsal, when it ran and nothing speaks against it.
fn proven<'a>(world: &World<'a>, name: &str, pod: &PodSeen) -> Option<&'a Rehearsed> {
    let ran = world.proof(name).ran();
    world.live(pod)?.rehearsal.as_ref().filter(|_| ran)
}

fn rehearsed_time(rehearsed: &Rehearsed) -> Option<Time> {
    // Whole seconds, as the API stores them: a finer time would differ from what is read back.
    Timestamp::from_second(rehearsed.time_ms / 1000).ok().map(Time)
}

fn nonces_per_minute(rehearsed: &Rehearsed) -> i64 {
    i64::try_from(rehearsed.rate_milli.saturating_mul(60) / 1000).unwrap_or(i64::MAX)
}

fn spares(world: &World<'_>) -> Vec<SpareStatus> {
    let held: BTreeSet<&String> = world
        .slots
        .values()
        .filter_map(|slot| slot.holder.as_ref())
        .map(|holder| &holder.name)
        .collect();
    world
        .seen
        .pods
        .iter()
        .filter(|(name, pod)| !held.contains(name) && !matches!(world.health(pod), Health::Dead | Health::Leaving))
        .take(MAX_SPARES)
        .map(|(name, pod)| {
            let rehearsed = proven(world, name, pod);
            SpareStatus {
                pod_name: name.clone(),
                pod_uid: pod.uid.clone(),
                node_name: Some(pod.node_name.clone()).filter(|name| !name.is_empty()),
                state: readiness::spare_state(world, name, pod),
                rehearsed_time: rehearsed.and_then(rehearsed_time),
                nonces_per_minute: rehearsed.map(nonces_per_minute),
            }
        })
        .collect()
}

fn conditions(
    world: &World<'_>,
    plan: Option<&Plan>,
    problems: &[Problem],
    judged: &[(i32, Judgement)],
    spares: &[SpareStatus],
) -> Conditions {
    let mut conditions = Conditions::unknown(&ModelDeployment::CONDITIONS);
    accepted(&mut conditions, problems);
    ready(&mut conditions, judged);
    sprint_ready(&mut conditions, judged);
    weights(&mut conditions, world);
    arguments(&mut conditions, world);
    match plan {
        None => {
            conditions.set(
                ConditionType::Reconciling,
                ConditionStatus::False,
                Reason::InvalidSpec,
                "the spec is not acted upon",
            );
            conditions.set(
                ConditionType::Stalled,
                ConditionStatus::True,
                problems.first().map_or(Reason::InvalidSpec, |problem| problem.reason),
                "the spec must be put right; what runs is left alone",
            );
            conditions.set(
                ConditionType::RolledOut,
                ConditionStatus::Unknown,
                Reason::InvalidSpec,
                "no revision follows from the spec",
            );
        }
        Some(plan) => {
            progress(&mut conditions, world, plan, spares);
            rollout_status::condition(&mut conditions, world, plan);
        }
    }
    conditions
}

fn accepted(conditions: &mut Conditions, problems: &[Problem]) {
    let Some(first) = problems.first() else {
        conditions.set_true(ConditionType::Accepted, "the spec is valid");
        return;
    };
    let all: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
    conditions.set_false(ConditionType::Accepted, first.reason, all.join("; "));
}

fn ready(conditions: &mut Conditions, judged: &[(i32, Judgement)]) {
    let wrong: Vec<(i32, Reason)> = judged
        .iter()
        .filter_map(|(slot, judgement)| {
            let reason = match judgement.state {
                SlotState::Unassigned => Reason::SlotUnassigned,
                SlotState::Starting => Reason::InProgress,
                SlotState::Unreachable => Reason::Unreachable,
                SlotState::Assigned | SlotState::SprintReady | SlotState::Generating | SlotState::Unknown => {
                    let closed = judgement.reasons.contains(&Reason::InProgress);
                    return closed.then_some((*slot, Reason::InProgress));
                }
            };
            Some((*slot, reason))
        })
        .collect();
    match wrong.first() {
        None => conditions.set_true(
            ConditionType::Ready,
            format!("{} slots are held by pods that answer", judged.len()),
        ),
        Some((_, reason)) => {
            let named: Vec<(i32, Vec<Reason>)> = wrong.iter().map(|(slot, reason)| (*slot, vec![*reason])).collect();
            conditions.set_false(ConditionType::Ready, *reason, naming(&named));
        }
    }
}

fn sprint_ready(conditions: &mut Conditions, judged: &[(i32, Judgement)]) {
    let wrong: Vec<&(i32, Judgement)> = judged
        .iter()
        .filter(|(_, judgement)| judgement.status() != ConditionStatus::True)
        .collect();
    let first = wrong
        .iter()
        .find(|(_, judgement)| judgement.status() == ConditionStatus::False)
        .or_else(|| wrong.first());
    let Some((_, worst)) = first else {
        let message = if judged.is_empty() {
            "there is no slot to examine"
        } else {
            "every slot rehearsed since its engines started"
        };
        conditions.set_true(ConditionType::SprintReady, message);
        return;
    };
    let named: Vec<(i32, Vec<Reason>)> = wrong
        .iter()
        .map(|(slot, judgement)| (*slot, judgement.reasons.clone()))
        .collect();
    let reason = worst.reasons.first().copied().unwrap_or(Reason::NotObserved);
    conditions.set(ConditionType::SprintReady, worst.status(), reason, naming(&named));
}

/// `slot 0: NotRehearsed; slot 2: GpuFinding, WrongModel; and 3 more`.
fn naming(slots: &[(i32, Vec<Reason>)]) -> String {
    let slots = slots.iter().map(|(slot, reasons)| {
        let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        format!("slot {slot}: {}", reasons.join(", "))
    });
    few(slots, "; ")
}

fn weights(conditions: &mut Conditions, world: &World<'_>) {
    let connected: Vec<&PodSeen> = world.seen.pods.values().filter(|pod| world.connected(pod)).collect();
    let digests: BTreeSet<(&str, &str)> = connected
        .iter()
        .filter_map(|pod| Some((pod.revision.as_str(), world.live(pod)?.weights_digest.as_str())))
        .filter(|(_, digest)| !digest.is_empty())
        .collect();
    let revisions: BTreeSet<&str> = digests.iter().map(|(revision, _)| *revision).collect();
    let loading = connected.iter().filter(|pod| !world.loaded(pod)).count();
    let kind = ConditionType::WeightsStaged;
    if connected.is_empty() {
        conditions.set(kind, ConditionStatus::Unknown, Reason::Pending, "no pod answers yet");
    } else if digests.len() > revisions.len() {
        conditions.set_false(
            kind,
            Reason::WeightsMismatch,
            "pods of one revision loaded different weights",
        );
    } else if loading > 0 {
        conditions.set_false(kind, Reason::InProgress, "pods load their weights");
    } else {
        conditions.set_true(kind, "every pod that answers loaded its weights");
    }
}

fn arguments(conditions: &mut Conditions, world: &World<'_>) {
    if world.seen.pods.values().any(|pod| world.loaded(pod)) {
        conditions.set_true(ConditionType::ArgsAccepted, "an engine started with them");
    } else {
        conditions.set(
            ConditionType::ArgsAccepted,
            ConditionStatus::Unknown,
            Reason::Pending,
            "no engine has started yet",
        );
    }
}

/// Slots that are not wanted any more and stay for now, and why.
fn kept(world: &World<'_>, plan: &Plan) -> Option<String> {
    let reason = plan.asked.iter().find_map(|(kind, verdict)| match (kind, verdict) {
        (ActionKind::Retire, Verdict::Wait { reason, .. } | Verdict::Deny { reason }) => Some(reason.for_people()),
        _ => None,
    })?;
    let kept = few(plan.held_beyond(world.seen.deployment.spec.slots), ", ");
    Some(format!("slots {kept} are not wanted any more and are kept: {reason}"))
}

fn progress(conditions: &mut Conditions, world: &World<'_>, plan: &Plan, spares: &[SpareStatus]) {
    let starting = spares
        .iter()
        .filter(|spare| spare.state == SpareState::Starting)
        .count();
    let rolling = matches!(plan.rollout, Rollout::Running);
    let working = plan.create > 0 || !plan.moves.is_empty() || !plan.remove.is_empty() || starting > 0 || rolling;
    if working {
        conditions.set(
            ConditionType::Reconciling,
            ConditionStatus::True,
            Reason::InProgress,
            "pods or slots are being changed",
        );
    } else if let Some(why) = kept(world, plan) {
        conditions.set(
            ConditionType::Reconciling,
            ConditionStatus::True,
            Reason::WaitingForWindow,
            why,
        );
    } else {
        conditions.set(
            ConditionType::Reconciling,
            ConditionStatus::False,
            Reason::AsExpected,
            "nothing to change",
        );
    }
    let failed: Vec<String> = world
        .proofs
        .iter()
        .filter_map(|(name, proof)| match proof {
            Proof::Failed(why) => Some(format!("{name}: {why}")),
            Proof::Missing | Proof::Uncompared | Proof::Passed => None,
        })
        .collect();
    match &plan.breaker {
        Some((reason, why)) => {
            conditions.set(ConditionType::Stalled, ConditionStatus::True, *reason, why.clone());
        }
        None if !failed.is_empty() => conditions.set(
            ConditionType::Stalled,
            ConditionStatus::True,
            Reason::RehearsalFailed,
            few(failed, "; "),
        ),
        None => conditions.set(
            ConditionType::Stalled,
            ConditionStatus::False,
            Reason::AsExpected,
            "progress needs no help",
        ),
    }
}
