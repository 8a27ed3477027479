//! Which pods to make and which to delete. Nothing is deleted because something is absent or unknown, and never many at
//! once without a person. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::conditions::Reason;

use super::planner::{Plan, Rollout};
use super::release;
use super::revision;
use super::world::{Health, World};
use crate::gate::{self, ActionKind, Verdict};
use crate::model_deployment::observed::{Phase, PodSeen};

/// Most pods made in one pass.
const CREATE_AT_ONCE: usize = 64;
/// A pod on a lost machine is deleted by force after its slot has moved and this long has passed.
pub const FORGET_LOST_MILLIS: i64 = 300_000;

/// One pod to delete.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Removal {
    /// Name.
    pub name: String,
    /// UID precondition.
    pub uid: String,
    /// 0 = by force.
    pub grace_seconds: Option<u32>,
}

impl Removal {
    fn of(name: &str, pod: &PodSeen, grace_seconds: Option<u32>) -> Self {
        Self {
            name: name.to_owned(),
            uid: pod.uid.clone(),
            grace_seconds,
        }
    }
}

/// Largest number of live pods that may be deleted in one pass without a person: one, or a fifth.
pub fn breaker_limit(pods: usize) -> usize {
    (pods / 5).max(1)
}

/// Adds pods to make and to delete to the plan.
pub fn plan(world: &World<'_>, plan: &mut Plan) {
    // A pod that loses its slot in this pass is left until the slice says so: the write may fail.
    let mut holders = plan.holders();
    for (slot, assignment) in &world.slots {
        if let Some(holder) = &assignment.holder {
            holders.entry(holder.name.clone()).or_insert(*slot);
        }
    }
    let spec = &world.seen.deployment.spec;
    // A slot that is not wanted any more needs its pod until it may be given up.
    let kept = plan.held_beyond(spec.slots).count();
    let wanted = usize::try_from(spec.slots.max(0) + spec.spares.max(0)).unwrap_or_default() + kept;
    let health: BTreeMap<&String, Health> = world
        .seen
        .pods
        .iter()
        .map(|(name, pod)| (name, world.health(pod)))
        .collect();
    let lost = health.values().filter(|health| **health == Health::Lost).count();
    // Many silent machines at once are an outage of ours, not of theirs: nothing is replaced, nothing forgotten.
    let believe_lost = lost <= breaker_limit(world.seen.pods.len());
    let counts = |health: &Health| match health {
        Health::Usable | Health::Starting => true,
        Health::Lost => !believe_lost,
        Health::Dead | Health::Leaving => false,
    };
    let counted: BTreeSet<&String> = health
        .iter()
        .filter_map(|(name, health)| counts(health).then_some(*name))
        .collect();
    let kept = wanted + replacements(world, &holders, &counted, wanted);
    let counted = counted.len();
    // A pod that starts before the keys are there trusts nobody until the kubelet looks again, a minute later.
    if world.knows_trust() {
        plan.create = if counted == wanted && kept > wanted && plan.moves.is_empty() && may_replace(world) {
            kept - wanted
        } else {
            wanted.saturating_sub(counted).min(CREATE_AT_ONCE)
        };
    }
    bury(world, plan, &holders, believe_lost);
    remake_for_other_machines(world, plan, &holders);
    let mut live = Vec::new();
    if counted > kept {
        live = surplus(world, &holders, counted - kept);
    } else if counted >= wanted && plan.create == 0 {
        live = stale_spare(world, plan, &holders).into_iter().collect();
        if live.is_empty() {
            live.extend(release::next(world, plan));
        }
    }
    live.retain(|removal| !plan.remove.contains(removal));
    plan.breaker = world.contradiction.clone().map(|why| (Reason::ObjectsOlder, why));
    withhold_mass_deletion(world, plan, &mut live);
    plan.remove.extend(live);
}

/// Pods beyond those that are wanted, one at most: somebody wants to work on a machine with a slot, and whoever could take that over
/// would have to leave with it. The replacement is made elsewhere first; what is one too many then goes once the slot has moved.
fn replacements(
    world: &World<'_>,
    holders: &BTreeMap<String, i32>,
    counted: &BTreeSet<&String>,
    wanted: usize,
) -> usize {
    let goes = |name: &String| {
        let pod = world.seen.pods.get(name);
        pod.and_then(|pod| world.machine(pod))
            .is_some_and(|machine| machine.leaving)
    };
    if world.seen.deployment.spec.spares <= 0 || !holders.keys().any(goes) {
        return 0;
    }
    let stay_where_they_are = counted.iter().filter(|name| holders.contains_key(**name) || goes(name));
    let with_one_elsewhere = stay_where_they_are.count() + 1;
    with_one_elsewhere.saturating_sub(wanted).min(1)
}

/// A replacement is made where some machine has room for it, and where it may be proven before the next exam.
fn may_replace(world: &World<'_>) -> bool {
    let verdict = world.ask(ActionKind::Spare, world.spare_lead_millis());
    !world.seen.is_full && matches!(verdict, Verdict::Allow { .. })
}

/// Pods that ended, and pods on machines lost for long: they run no engine that we could still lose.
fn bury(world: &World<'_>, plan: &mut Plan, holders: &BTreeMap<String, i32>, believe_lost: bool) {
    for (name, pod) in world.seen.pods.iter().filter(|(name, _)| !holders.contains_key(*name)) {
        let machine_down = world
            .machine(pod)
            .is_some_and(|machine| !machine.ready && world.seen.now_ms - machine.ready_since_ms >= FORGET_LOST_MILLIS);
        match world.health(pod) {
            Health::Dead => plan.remove.push(Removal::of(name, pod, None)),
            Health::Lost | Health::Leaving if machine_down && believe_lost => {
                plan.remove.push(Removal::of(name, pod, Some(0)));
            }
            Health::Usable | Health::Starting | Health::Lost | Health::Leaving => {}
        }
    }
}

/// Pods on no machine that were made for other machines than there are now. Which machines a pod stays away from is written when
/// it is made: it would never go to one that is back, and may go to one that somebody works on by now. They run nothing.
fn remake_for_other_machines(world: &World<'_>, plan: &mut Plan, holders: &BTreeMap<String, i32>) {
    let closed = revision::avoided(world.seen);
    let misplaced = world.seen.pods.iter().filter(|(name, pod)| {
        let waits = pod.phase == Phase::Pending && pod.node_name.is_empty() && !pod.leaving;
        waits && !holders.contains_key(*name) && !pod.avoids.iter().eq(closed.iter().copied())
    });
    plan.remove
        .extend(misplaced.map(|(name, pod)| Removal::of(name, pod, None)));
}

/// Pods beyond what the spec wants, the least useful first.
fn surplus(world: &World<'_>, holders: &BTreeMap<String, i32>, count: usize) -> Vec<Removal> {
    if !matches!(
        world.ask(ActionKind::Spare, world.spare_lead_millis()),
        Verdict::Allow { .. }
    ) {
        return Vec::new();
    }
    let mut free: Vec<(&String, &PodSeen)> = world
        .seen
        .pods
        .iter()
        .filter(|(name, pod)| {
            !holders.contains_key(*name) && matches!(world.health(pod), Health::Usable | Health::Starting)
        })
        .collect();
    free.sort_by_key(|(name, pod)| {
        let machine_bad = world
            .machine(pod)
            .is_some_and(|machine| machine.excluded || machine.leaving);
        (
            pod.revision == world.revision,
            !machine_bad && !world.gpu_finding(pod),
            world.health(pod) == Health::Usable,
            world.proof(name).ran(),
            std::cmp::Reverse(pod.created_ms),
            (*name).clone(),
        )
    });
    free.into_iter()
        .take(count)
        .map(|(name, pod)| Removal::of(name, pod, None))
        .collect()
}

/// One pod without a slot that has an older revision, or sits on an excluded machine: deleted so that a new one is made.
/// The next one waits until its successor is rehearsed, so that a bad revision costs one spare.
fn stale_spare(world: &World<'_>, plan: &mut Plan, holders: &BTreeMap<String, i32>) -> Option<Removal> {
    let free = |name: &str| !holders.contains_key(name);
    let unproven_successor = world.seen.pods.iter().any(|(name, pod)| {
        free(name)
            && pod.revision == world.revision
            && matches!(world.health(pod), Health::Usable | Health::Starting)
            && !world.proof(name).ran()
    });
    if unproven_successor || !plan.moves.is_empty() {
        return None;
    }
    let (name, pod) = world.seen.pods.iter().find(|(name, pod)| {
        let excluded = world.machine(pod).is_some_and(|machine| machine.excluded);
        free(name)
            && matches!(world.health(pod), Health::Usable | Health::Starting)
            && (excluded || world.rollout.is_stale(&pod.revision))
    })?;
    // A pod that never came up has nothing to lose. One that is ready did, whether we hear it or not.
    if pod.ready || world.health(pod) == Health::Usable {
        let verdict = world.ask(ActionKind::Spare, world.spare_lead_millis());
        plan.asked.push((ActionKind::Spare, verdict));
        if let Verdict::Wait { reason, .. } | Verdict::Deny { reason } = verdict {
            if matches!(plan.rollout, Rollout::Running | Rollout::Spare) {
                plan.rollout = Rollout::Window(reason.to_string());
            }
            return None;
        }
    }
    if plan.rollout == Rollout::Spare {
        plan.rollout = Rollout::Running;
    }
    Some(Removal::of(name, pod, None))
}

fn withhold_mass_deletion(world: &World<'_>, plan: &mut Plan, live: &mut Vec<Removal>) {
    let limit = breaker_limit(world.seen.pods.len());
    if live.len() <= limit {
        return;
    }
    if !world.seen.host.as_ref().is_some_and(gate::host::armed) {
        let why = format!(
            "{} of {} pods would be deleted at once and {limit} are allowed; to let it happen annotate the GonkaHost with {}=REASON",
            live.len(),
            world.seen.pods.len(),
            crds::labels::REARM
        );
        plan.breaker.get_or_insert((Reason::BreakerTripped, why));
        live.clear();
    }
}
