//! Box 3, decide: one snapshot in, everything to do out. Pure: no clock, no I/O, the same answer for the same snapshot.
//!
//! | module | what it answers |
//! |---|---|
//! | `spec` | may this spec be acted upon, and if not, every reason |
//! | `world` | who holds which slot, what each pod is good for, which exam generates |
//! | `planner`, `takeover`, `pods` | which pod should hold which slot, which pods to make and delete |
//! | `release` | whose turn it is when a rollout has no spares |
//! | `handoff`, `slices` | how a slot changes hands: demote, slice, promote |
//! | `rehearsal`, `readiness`, `status` | what has been proven |
//! | `rollout`, `canary`, `records`, `rollout_status` | which revision pods come to have, and the way back |
//! | `contradiction` | facts that cannot all be true, which hold what may wait |
//! | `power` | what racks draw when a Sprint begins |
//! | `due` | when the clock alone changes the answer |
//! | `revision`, `services`, `pdb`, `trust`, `objects` | what children look like |

mod canary;
mod clocks;
mod contradiction;
mod due;
mod handoff;
mod objects;
mod pdb;
mod planner;
mod pods;
mod power;
mod readiness;
mod records;
mod rehearsal;
mod release;
mod revision;
mod rollout;
mod rollout_status;
mod services;
mod slices;
mod spec;
mod status;
mod steps;
mod takeover;
mod trust;
mod world;

pub use pods::breaker_limit;
pub use revision::{DEPLOYMENT_UID, OPERATOR_PORT, Revisions};
pub use services::CHAIN_DOOR;
pub use steps::{Demote, Desired, Promote, Rehearse, SlotSteps, Step, Takeover};
pub use trust::{
    ACCOUNT as SLOT_ACCOUNT, AUTHORITIES as TRUST_AUTHORITIES, CONFIG_MAP as TRUST_CONFIG_MAP, KEYS as TRUST_KEYS,
};
pub use world::{Assignment, Holder, assignment};

use std::collections::BTreeMap;

use crds::conditions::{ConditionType, Reason};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ApiResource;
use serde_json::json;

use self::planner::{Move, Plan};
use self::takeover::Cause;
use self::world::World;
use crate::change::{Change, Deletion, Object};
use crate::model_deployment::observed::Observed;

/// Decides one pass.
pub fn decide(seen: &Observed) -> Desired {
    if seen.deployment.metadata.deletion_timestamp.is_some() {
        return leave(seen);
    }
    let world = World::of(seen);
    let problems = spec::problems(seen);
    if !problems.is_empty() {
        // Pods of an earlier spec run on, and go on being told whom to trust.
        let mut changes = trust::changes(seen);
        if !was(seen, ConditionType::Accepted, problems[0].reason) {
            let all: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
            changes.push(objects::notice(seen, true, "InvalidSpec", all.join("; ")));
        }
        changes.extend(status::change(&world, None, &problems));
        return Desired {
            changes,
            ..Desired::default()
        };
    }
    let plan = planner::plan(&world);
    let holders = plan.holders();
    let generations: BTreeMap<i32, i64> = plan
        .slots
        .iter()
        .map(|(slot, assignment)| (*slot, assignment.generation))
        .collect();
    let mut slots = slot_steps(&world, &plan);
    slots.extend(strays(&world, &holders, &generations));
    let mut changes = trust::changes(seen);
    changes.extend(records::changes(&world));
    changes.extend(pdb::change(seen));
    changes.extend(services::changes(seen, plan.slots.keys().copied()));
    changes.extend(pod_changes(&world, &plan, &holders));
    changes.extend(notices(&world, &plan));
    changes.extend(power::notices(&world));
    changes.extend(status::change(&world, Some(&plan), &problems));
    Desired {
        again_after_ms: due::again_after(&world, &plan, !slots.is_empty()),
        slots,
        changes,
        rehearsals: rehearsal::wanted(&world, &holders, &generations),
        asked: plan.asked,
    }
}

/// Steps of every slot that needs some: close the old door, write the slice, open the new door.
fn slot_steps(world: &World<'_>, plan: &Plan) -> Vec<SlotSteps> {
    plan.slots
        .iter()
        .filter_map(|(slot, assignment)| {
            let moved = plan.moves.iter().find(|entry| entry.slot == *slot);
            let mut steps = Vec::new();
            steps.extend(moved.and_then(|entry| demote_old(world, entry, assignment)));
            steps.extend(slices::change(world, *slot, assignment).map(Step::Change));
            steps.extend(demote_elsewhere(world, *slot, assignment));
            steps.extend(promote_new(world, *slot, assignment));
            (!steps.is_empty()).then(|| SlotSteps {
                slot: *slot,
                takeover: moved.and_then(|entry| takeover_of(world, entry, assignment)),
                steps,
            })
        })
        .collect()
}

fn demote_old(world: &World<'_>, entry: &Move, assignment: &Assignment) -> Option<Step> {
    let from = entry.from.as_ref().filter(|_| entry.cause != Cause::Fenced)?;
    let pod = world.pod_of(from).filter(|pod| world.connected(pod))?;
    Some(Step::Demote(handoff::demote(
        &from.name,
        pod,
        entry.slot,
        assignment.generation,
    )))
}

/// The holder believes it holds another slot: we died between two writes. It is demoted there before it is promoted here.
fn demote_elsewhere(world: &World<'_>, slot: i32, assignment: &Assignment) -> Option<Step> {
    let holder = assignment.holder.as_ref()?;
    let pod = world.pod_of(holder).filter(|pod| world.connected(pod))?;
    let live = world.live(pod).filter(|live| live.slot >= 0 && live.slot != slot)?;
    let newest = world.slots.get(&live.slot).map_or(0, |other| other.generation);
    let demote = handoff::demote(&holder.name, pod, live.slot, newest.max(live.generation));
    Some(Step::Demote(demote))
}

fn promote_new(world: &World<'_>, slot: i32, assignment: &Assignment) -> Option<Step> {
    let holder = assignment.holder.as_ref()?;
    let pod = world.pod_of(holder)?;
    if !handoff::promote_is_due(world, slot, assignment, pod) {
        return None;
    }
    let promote = handoff::promote(world, slot, assignment, holder)?;
    Some(Step::Promote(Box::new(promote)))
}

/// What is recorded of a move: a slot that somebody held, or that was held before.
fn takeover_of(world: &World<'_>, entry: &Move, assignment: &Assignment) -> Option<Takeover> {
    let held_before = world.slots.get(&entry.slot).is_some_and(|slot| slot.generation > 0);
    (held_before && entry.cause != Cause::Fenced).then(|| Takeover {
        node_id: world.seen.node_id(entry.slot),
        from: entry
            .from
            .as_ref()
            .map(|holder| holder.name.clone())
            .unwrap_or_default(),
        to: entry.to.as_ref().map(|holder| holder.name.clone()).unwrap_or_default(),
        generation: assignment.generation,
        cause: entry.cause.to_string(),
        decided_ms: world.seen.now_ms,
    })
}

/// Pods that hold no slot and have an open chain door: they were away when their slot moved.
fn strays(world: &World<'_>, holders: &BTreeMap<String, i32>, generations: &BTreeMap<i32, i64>) -> Vec<SlotSteps> {
    let losing = |uid: &str| {
        world
            .slots
            .values()
            .any(|slot| slot.holder.as_ref().is_some_and(|holder| holder.uid == uid))
    };
    world
        .seen
        .pods
        .iter()
        .filter(|(name, pod)| !holders.contains_key(*name) && !losing(&pod.uid) && world.connected(pod))
        .filter_map(|(name, pod)| {
            let live = world.live(pod).filter(|live| live.door_open)?;
            let newest = generations.get(&live.slot).copied().unwrap_or_default();
            let demote = handoff::demote_superseded(name, pod, live.slot, newest.max(live.generation));
            Some(SlotSteps {
                slot: -1,
                takeover: None,
                steps: vec![Step::Demote(demote)],
            })
        })
        .collect()
}

fn pod_changes(world: &World<'_>, plan: &Plan, holders: &BTreeMap<String, i32>) -> Vec<Change> {
    let seen = world.seen;
    let resource = || ApiResource::erase::<Pod>(&());
    let removed = |name: &str| plan.remove.iter().any(|removal| removal.name == name);
    let mut changes: Vec<Change> = seen
        .pods
        .iter()
        .filter(|(name, pod)| !pod.leaving && !removed(name))
        .filter_map(|(name, pod)| {
            let label = holders
                .get(name)
                .map_or_else(|| crds::labels::SLOT_SPARE.to_owned(), ToString::to_string);
            let protected = world.machine(pod).is_none_or(|machine| !machine.is_released());
            (pod.slot != label || pod.protected != protected).then(|| {
                Change::Apply(Object {
                    resource: resource(),
                    namespace: Some(seen.namespace().to_owned()),
                    name: name.clone(),
                    // The UID makes this fail, rather than make a pod, when the pod is gone.
                    value: json!({
                        "apiVersion": "v1",
                        "kind": "Pod",
                        "metadata": {
                            "name": name,
                            "namespace": seen.namespace(),
                            "uid": pod.uid,
                            "labels": {crds::labels::SLOT: label, crds::labels::PROTECTED: protected.to_string()},
                        },
                    }),
                })
            })
        })
        .collect();
    let orphans = seen
        .pods
        .iter()
        .filter(|(name, pod)| pod.orphaned && !pod.leaving && !removed(name));
    changes.extend(orphans.map(|(name, pod)| adopt(seen, name, &pod.uid)));
    changes.extend(plan.remove.iter().map(|removal| {
        Change::Delete(Deletion {
            resource: resource(),
            namespace: Some(seen.namespace().to_owned()),
            name: removal.name.clone(),
            uid: removal.uid.clone(),
            grace_seconds: removal.grace_seconds,
        })
    }));
    if plan.create > 0 {
        let made = records::of_new_pods(world, plan.create).into_iter();
        changes.extend(made.map(|(revision, template)| revision::create(seen, &template, &revision)));
    }
    changes
}

/// The pod gets this deployment for its owner: the collector asks for one that is gone.
fn adopt(seen: &Observed, name: &str, uid: &str) -> Change {
    Change::Merge(Object {
        resource: ApiResource::erase::<Pod>(&()),
        namespace: Some(seen.namespace().to_owned()),
        name: name.to_owned(),
        value: json!({"metadata": {"uid": uid, "ownerReferences": [objects::owner(seen)]}}),
    })
}

fn notices(world: &World<'_>, plan: &Plan) -> Vec<Change> {
    let mut notices: Vec<Change> = plan
        .moves
        .iter()
        .filter(|entry| entry.from != entry.to)
        .map(|entry| {
            let name = |holder: &Option<Holder>| {
                holder
                    .as_ref()
                    .map_or_else(|| "nobody".to_owned(), |holder| holder.name.clone())
            };
            let note = format!(
                "slot {} goes from {} to {}: {}",
                entry.slot,
                name(&entry.from),
                name(&entry.to),
                entry.cause
            );
            let warning = !matches!(entry.cause, Cause::Vacant) && !entry.cause.is_planned();
            objects::notice(world.seen, warning, "SlotMoved", note)
        })
        .collect();
    if let Some(why) = world.rollout.failure.as_ref().filter(|_| !world.rollout.remembered) {
        let note = format!("revision {}: {why}", world.rollout.wanted);
        notices.push(objects::notice(world.seen, true, "RolloutFailed", note));
    }
    if let Some((reason, why)) = &plan.breaker
        && !was(world.seen, ConditionType::Stalled, *reason)
    {
        notices.push(objects::notice(world.seen, true, &reason.to_string(), why.clone()));
    }
    notices
}

/// The condition has this reason already.
fn was(seen: &Observed, kind: ConditionType, reason: Reason) -> bool {
    seen.deployment.status.as_ref().is_some_and(|status| {
        status
            .conditions
            .iter()
            .any(|condition| condition.type_ == kind.to_string() && condition.reason == reason.to_string())
    })
}

/// The owner is being deleted, which is an instruction, but no hurry: its pods go as those of one that wants no slot and no
/// spare, when the gate allows it, and then what is left.
fn leave(seen: &Observed) -> Desired {
    if seen.pods.is_empty() {
        return clear(seen);
    }
    let mut emptied = seen.clone();
    emptied.deployment.metadata.deletion_timestamp = None;
    (emptied.deployment.spec.slots, emptied.deployment.spec.spares) = (0, 0);
    decide(&emptied)
}

/// Children without pods go, by name and UID.
fn clear(seen: &Observed) -> Desired {
    let mut changes: Vec<Change> = Vec::new();
    changes.extend(
        seen.slices
            .values()
            .map(|slice| Change::Delete(Deletion::of(slice, None))),
    );
    changes.extend(
        seen.services
            .values()
            .filter(|service| service.metadata.deletion_timestamp.is_none())
            .map(|service| Change::Delete(Deletion::of(service, None))),
    );
    changes.extend(
        seen.budget
            .iter()
            .map(|budget| Change::Delete(Deletion::of(budget, None))),
    );
    changes.extend(records::all(seen));
    Desired {
        changes,
        ..Desired::default()
    }
}
