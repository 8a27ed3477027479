//! What a pod is told when it gets a slot: a round that runs goes on there from where it was. Pure.

use std::collections::BTreeMap;

use crds::gonka_host::ManagementPolicy;

use super::steps::{Demote, Promote};
use super::world::{Assignment, Holder, World};
use crate::model_deployment::observed::{Observed, PodSeen, Round, Start, Told};

/// How long requests in flight may finish on a pod that loses its slot.
const DRAIN_MILLIS: u32 = 200;

/// A slot that moved no longer ago than this may have missed a start: routing follows an assignment within a second or two.
const MISSED_MILLIS: i64 = 10_000;

/// The round that runs now, as this slot must continue it. From what pods of this slot were asked; else from what another
/// slot of the deployment was asked, which differs in the number alone.
pub fn running(world: &World<'_>, slot: i32) -> Option<Start> {
    let exam = world.exam.as_ref()?;
    let node_id = world.seen.node_id(slot);
    if exam.preserved.contains(&node_id) {
        return None;
    }
    let asked = |rounds: &[Round]| -> Option<Start> {
        rounds
            .iter()
            .filter(|round| round.height == exam.height)
            .find_map(|round| round.request.clone())
    };
    if let Some(own) = world.seen.rounds.get(&node_id).and_then(|rounds| asked(rounds)) {
        return Some(own);
    }
    let node_num = world.node_num(slot)?;
    let other = world.seen.rounds.values().find_map(|rounds| asked(rounds))?;
    Some(Start { node_num, ..other })
}

/// Per group, where the new holder goes on: the first index that no pod of this slot delivered, or behind what the old holder
/// still delivers. A leader that never heard the old pod (it led elsewhere
/// when that was lost) guesses beyond it: a nonce that comes twice counts once, while a gap is legal as long as the largest
/// nonce stays below a hundred times their count.
pub fn resume(world: &World<'_>, slot: i32, to: &Holder) -> BTreeMap<u32, u64> {
    let node_id = world.seen.node_id(slot);
    let mut own = furthest(world, |id| *id == node_id);
    if !own.is_empty() {
        for (group, index) in behind_what_leaves(world, slot, to) {
            let known = own.entry(group).or_default();
            *known = index.max(*known);
        }
        return own;
    }
    let mut beyond = furthest(world, |id| *id != node_id);
    for (group, index) in by_rate(world, slot) {
        let known = beyond.entry(group).or_default();
        *known = index.max(*known);
    }
    for index in beyond.values_mut() {
        *index += *index / 4;
    }
    beyond
}

/// Per group, the first index behind what the old holder has computed, where it answers: it delivers that while it is demoted, and
/// who computes it once more earns nothing. Should it not be taken, as many others are; a gap is legal.
fn behind_what_leaves(world: &World<'_>, slot: i32, to: &Holder) -> BTreeMap<u32, u64> {
    let height = world.exam.as_ref().map(|exam| exam.height);
    let old = world.slots.get(&slot).and_then(|assignment| assignment.holder.as_ref());
    let answers = old
        .filter(|old| old.uid != to.uid)
        .and_then(|old| world.pod_of(old))
        .filter(|pod| world.connected(pod))
        .and_then(|pod| world.live(pod));
    let round = answers
        .filter(|live| live.slot == slot)
        .and_then(|live| live.round.as_ref());
    let round = round.filter(|round| Some(round.height) == height);
    let next = round.into_iter().flat_map(|round| {
        let groups = round.next.iter();
        groups.map(|(group, index)| (*group, index.saturating_add(round.waiting)))
    });
    next.collect()
}

/// Per group, how far rounds of the exam at hand are, of the nodes that `counts`.
fn furthest(world: &World<'_>, counts: impl Fn(&String) -> bool) -> BTreeMap<u32, u64> {
    let height = world.exam.as_ref().map(|exam| exam.height);
    let rounds = world.seen.rounds.iter().filter(|(id, _)| counts(id));
    let rounds = rounds.flat_map(|(_, rounds)| rounds);
    let mut next = BTreeMap::new();
    for round in rounds.filter(|round| Some(round.height) == height) {
        for (group, index) in &round.next {
            let known: &mut u64 = next.entry(*group).or_default();
            *known = (*known).max(*index);
        }
    }
    next
}

/// How far a slot should be at its rehearsed rate.
fn by_rate(world: &World<'_>, slot: i32) -> BTreeMap<u32, u64> {
    let status = world.seen.deployment.status.as_ref();
    let seen = status.and_then(|status| status.slots.iter().find(|seen| seen.index == slot));
    let rate = seen.and_then(|seen| seen.nonces_per_minute);
    let started_ms = world.exam.as_ref().and_then(|exam| exam.started_ms);
    let (Some(rate), Some(started_ms)) = (rate, started_ms) else {
        return BTreeMap::new();
    };
    let groups = u32::try_from(world.seen.deployment.spec.replicas_per_slot)
        .unwrap_or(1)
        .max(1);
    let millis = (world.seen.now_ms - started_ms).clamp(0, 3_600_000).unsigned_abs();
    let index = rate.clamp(0, 1_000_000_000).unsigned_abs() * millis / 60_000 / u64::from(groups);
    (0..groups).map(|group| (group, index)).collect()
}

/// Where DAPI takes callbacks. A host that is only observed is sent nothing.
pub fn callback_base(seen: &Observed) -> String {
    let managed = seen
        .host
        .as_ref()
        .filter(|host| host.spec.management_policy == ManagementPolicy::Manage);
    managed
        .map(|host| {
            let told = host.status.as_ref().and_then(|status| status.callback_url.clone());
            let expected = host
                .spec
                .network_node
                .external
                .as_ref()
                .map(|external| external.expected_callback_url.clone());
            told.or(expected).unwrap_or_default()
        })
        .unwrap_or_default()
}

/// The callback address of a model's artifacts, so that pods without a slot can prove the way too; empty without a base.
/// DAPI encodes the model's id twice.
pub fn callback_url(seen: &Observed) -> String {
    let base = callback_base(seen);
    if base.is_empty() {
        return base;
    }
    let model: String = seen
        .deployment
        .spec
        .model
        .id
        .bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%25{byte:02X}")
            }
        })
        .collect();
    format!("{}/v2/poc-batches/{model}", base.trim_end_matches('/'))
}

/// What the holder of a slot must have been told.
pub fn telling(world: &World<'_>, slot: i32, generation: i64) -> Told {
    Told {
        generation,
        node_num: world.node_num(slot).unwrap_or_default(),
        callback_base: callback_base(world.seen),
    }
}

/// The promote of a slot's pod. A pod that does not know this assignment yet hears of the running round too.
pub fn promote(world: &World<'_>, slot: i32, assignment: &Assignment, holder: &Holder) -> Option<Promote> {
    let pod = world.pod_of(holder)?;
    let knows = world
        .live(pod)
        .is_some_and(|live| live.slot == slot && live.generation == assignment.generation && live.door_open);
    let told = telling(world, slot, assignment.generation);
    let hears = !knows || missed_the_start(world, slot, assignment);
    let running = if hears { running(world, slot) } else { None };
    Some(Promote {
        pod: holder.name.clone(),
        pod_uid: holder.uid.clone(),
        address: pod.address.clone(),
        slot,
        generation: assignment.generation,
        node_id: world.seen.node_id(slot),
        node_num: told.node_num,
        callback_base: told.callback_base,
        resume: if running.is_some() {
            resume(world, slot, holder)
        } else {
            BTreeMap::new()
        },
        running,
    })
}

/// True when the pod must be told (again) that it holds the slot.
pub fn promote_is_due(world: &World<'_>, slot: i32, assignment: &Assignment, pod: &PodSeen) -> bool {
    let Some(live) = world.live(pod).filter(|_| world.connected(pod)) else {
        return false;
    };
    let reported = live.slot == slot && live.generation == assignment.generation && live.door_open;
    !reported
        || live.told.as_ref() != Some(&telling(world, slot, assignment.generation))
        || missed_the_start(world, slot, assignment)
}

/// The slot moved just before DAPI asked, and the request went to where it had been: other slots work on an exam that no pod of this
/// one has heard of. DAPI asks again a block later; until then the round is theirs but for the number.
fn missed_the_start(world: &World<'_>, slot: i32, assignment: &Assignment) -> bool {
    let Some(exam) = &world.exam else { return false };
    let moved_lately = assignment.generation > 0 && world.seen.now_ms - assignment.assigned_ms <= MISSED_MILLIS;
    let rounds = world.seen.rounds.get(&world.seen.node_id(slot));
    let heard = rounds.into_iter().flatten().any(|round| round.height == exam.height);
    moved_lately && !heard && running(world, slot).is_some()
}

/// The demote of a pod that loses a slot. What it computed still leaves: its successor has not begun.
pub fn demote(name: &str, pod: &PodSeen, slot: i32, generation: i64) -> Demote {
    Demote {
        pod: name.to_owned(),
        pod_uid: pod.uid.clone(),
        address: pod.address.clone(),
        slot,
        generation,
        drain_millis: DRAIN_MILLIS,
        superseded: false,
    }
}

/// The demote of a pod that was away when its slot moved: another one has gone on.
pub fn demote_superseded(name: &str, pod: &PodSeen, slot: i32, generation: i64) -> Demote {
    Demote {
        superseded: true,
        ..demote(name, pod, slot, generation)
    }
}
