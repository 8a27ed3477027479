//! What people are told of a rollout: `status.rollout`, the condition `RolledOut`, and how long a pod takes to load. Pure.

use std::collections::BTreeSet;

use crds::conditions::{ConditionStatus, ConditionType, Reason};
use crds::model_deployment::{RolloutState, RolloutStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::planner::{Plan, Rollout};
use super::rollout::Stage;
use super::world::World;
use crate::conditions::Conditions;

/// Characters of a message.
const LONGEST: usize = 1_000;
/// A pod that took more than so many times the margin for cold loads was not loading all the time.
const LOADS: i64 = 4;
/// Added to the margin while no load was seen: the rehearsal.
const REHEARSAL_SECONDS: i64 = 60;

/// How a change of the pods stands; absent when there is none.
pub fn status(world: &World<'_>, plan: &Plan) -> Option<RolloutStatus> {
    let progress = &world.rollout;
    let mut pods = world.seen.pods.values();
    let stale = pods.any(|pod| pod.revision != world.revision && !pod.leaving);
    let on_trial = progress.is_trial() && progress.stage == Stage::Canary;
    if !stale && !on_trial && progress.failure.is_none() {
        return None;
    }
    let before = world.seen.deployment.status.as_ref();
    let before = before.and_then(|status| status.rollout.as_ref());
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let mut status = RolloutStatus {
        revision: progress.wanted.clone(),
        previous_revision: progress.baseline.clone(),
        state: state(world),
        updated_slots: count(progress.updated_slots),
        slots: world.seen.deployment.spec.slots,
        canary_since_time: canary_since(world),
        canary_exam: progress.canary_exam.clone().filter(|_| progress.is_trial()),
        failed_revision: progress.failure.as_ref().map(|_| progress.wanted.clone()),
        message: progress.failure.clone().unwrap_or_else(|| waits_for(world, plan)),
        load_seconds: load_seconds(world),
        expected_time: None,
    };
    status.message = status.message.chars().take(LONGEST).collect();
    let same = before.filter(|before| {
        (&before.revision, before.state, before.updated_slots) == (&status.revision, status.state, status.updated_slots)
    });
    // Told once for each step: a time that moved with every look would be written with every look.
    status.expected_time = expected(world, plan).map(|time| {
        let told = same.and_then(|before| before.expected_time.clone());
        told.unwrap_or(time)
    });
    Some(status)
}

fn state(world: &World<'_>) -> RolloutState {
    let progress = &world.rollout;
    match progress.stage {
        _ if progress.failure.is_some() && progress.rolls_back => RolloutState::RolledBack,
        _ if progress.is_held() || progress.failure.is_some() => RolloutState::Paused,
        Stage::Canary => RolloutState::Canary,
        Stage::Rolling | Stage::Held | Stage::RolledBack => RolloutState::Rolling,
    }
}

/// When the first slot came to a pod of the revision on trial.
fn canary_since(world: &World<'_>) -> Option<Time> {
    let progress = &world.rollout;
    if !progress.is_trial() || progress.stage == Stage::RolledBack {
        return None;
    }
    let before = world.seen.deployment.status.as_ref();
    let before = before.and_then(|status| status.rollout.as_ref());
    let told = before
        .filter(|before| before.revision == progress.wanted)
        .and_then(|before| before.canary_since_time.clone());
    let updated = world.slots.values().filter(|slot| {
        let pod = slot.holder.as_ref().and_then(|holder| world.pod_of(holder));
        pod.is_some_and(|pod| pod.revision == progress.wanted) && slot.assigned_ms > 0
    });
    told.or_else(|| updated.map(|slot| slot.assigned_ms).min().and_then(seconds))
}

/// Whole seconds, as the API stores them: a finer time would differ from what is read back.
fn seconds(millis: i64) -> Option<Time> {
    Timestamp::from_second(millis / 1000).ok().map(Time)
}

/// When the next exam begins that may judge a canary, or the last slot is done.
fn expected(world: &World<'_>, plan: &Plan) -> Option<Time> {
    let facts = &world.seen.facts;
    match plan.rollout {
        Rollout::Canary => seconds(facts.predict(facts.next_poc_start()?)?.time_ms),
        Rollout::Running if world.rollout.stage != Stage::Canary => {
            let slots = usize::try_from(world.seen.deployment.spec.slots).unwrap_or_default();
            let left = i64::try_from(slots.saturating_sub(world.rollout.updated_slots)).ok()?;
            seconds(world.seen.now_ms + left.max(1) * lead_millis(world))
        }
        Rollout::Running | Rollout::Done | Rollout::Held | Rollout::Window(_) | Rollout::Spare => None,
    }
}

/// What a rollout does or waits for.
fn waits_for(world: &World<'_>, plan: &Plan) -> String {
    let revision = &world.revision;
    let (updated, slots) = (world.rollout.updated_slots, world.seen.deployment.spec.slots);
    match &plan.rollout {
        Rollout::Done => format!("every pod has revision {revision}"),
        Rollout::Running if world.seen.deployment.spec.spares > 0 => {
            format!("revision {revision} goes through the spares")
        }
        Rollout::Running => format!("revision {revision} goes from slot to slot"),
        Rollout::Canary => {
            format!("{updated} of {slots} slots have revision {revision}; the others wait until an exam has judged it")
        }
        Rollout::Held => "spec.rollout.paused is true".to_owned(),
        Rollout::Window(why) => format!("the window gate says {why}"),
        Rollout::Spare => format!("no spare of revision {revision} has rehearsed"),
    }
}

/// The condition.
pub fn condition(conditions: &mut Conditions, world: &World<'_>, plan: &Plan) {
    let (kind, progress) = (ConditionType::RolledOut, &world.rollout);
    let message = waits_for(world, plan);
    if let Some(why) = &progress.failure {
        let (reason, then) = match state(world) {
            RolloutState::RolledBack if plan.rollout == Rollout::Done => (Reason::RolledBack, message),
            RolloutState::RolledBack => (Reason::RolledBack, format!("going back: {message}")),
            _ => (Reason::RolloutFailed, "held where it is".to_owned()),
        };
        conditions.set_false(kind, reason, format!("revision {}: {why}; {then}", progress.wanted));
        return;
    }
    match &plan.rollout {
        Rollout::Done if world.seen.pods.is_empty() => {
            conditions.set(kind, ConditionStatus::Unknown, Reason::Pending, "there is no pod yet");
        }
        Rollout::Done => conditions.set_true(kind, message),
        Rollout::Running => conditions.set_false(kind, Reason::InProgress, message),
        Rollout::Canary => conditions.set_false(kind, Reason::CanaryUnproven, message),
        Rollout::Held => conditions.set_false(kind, Reason::Paused, message),
        Rollout::Window(_) => conditions.set_false(kind, Reason::WaitingForWindow, message),
        Rollout::Spare => conditions.set_false(kind, Reason::WaitingForSpare, message),
    }
}

fn margin_seconds(world: &World<'_>) -> i64 {
    let schedule = world.seen.schedule.as_ref();
    i64::from(
        schedule
            .map(|schedule| schedule.margins.clone())
            .unwrap_or_default()
            .cold_load_seconds,
    )
}

/// From a pod's creation to its first rehearsal: the largest seen of late, a tenth less with every one that took less.
pub fn load_seconds(world: &World<'_>) -> Option<i64> {
    let status = world.seen.deployment.status.as_ref();
    let known = status.and_then(|status| status.load_seconds);
    // A pod teaches once: its later rehearsals are about other things.
    let slots = status.iter().flat_map(|status| &status.slots);
    let slots = slots
        .filter(|slot| slot.rehearsed_time.is_some())
        .filter_map(|slot| Some(&slot.pod_ref.as_ref()?.uid));
    let spares = status.iter().flat_map(|status| &status.spares);
    let spares = spares
        .filter(|spare| spare.rehearsed_time.is_some())
        .map(|spare| &spare.pod_uid);
    let taught: BTreeSet<&String> = slots.chain(spares).collect();
    let longest = margin_seconds(world).max(1) * LOADS;
    let loads = world.seen.pods.iter().filter_map(|(name, pod)| {
        let ran = world.proof(name).ran() && pod.created_ms > 0 && !taught.contains(&pod.uid);
        let rehearsed = world.live(pod)?.rehearsal.as_ref().filter(|_| ran)?;
        Some(((rehearsed.time_ms - pod.created_ms).max(0) + 999) / 1000).filter(|load| *load <= longest)
    });
    match (loads.max(), known) {
        (Some(load), Some(known)) => Some(load.max(known * 9 / 10)),
        (load, known) => load.or(known),
    }
}

/// From a pod's creation until it is proven, as far as it is known.
pub fn lead_millis(world: &World<'_>) -> i64 {
    let known = world.seen.deployment.status.as_ref();
    let known = known.and_then(|status| status.load_seconds);
    known
        .unwrap_or_else(|| margin_seconds(world) + REHEARSAL_SECONDS)
        .max(1)
        * 1000
}
