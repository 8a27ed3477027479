//! How a change of the pod template stands: which revision is asked for, which one did its duty before, and whether the new
//! one may have more slots. Pure.
//!
//! What was found against a revision is written into the status before anything is done because of it: the evidence goes with
//! the pods that bear it.

use std::collections::BTreeMap;

use crds::gonka_host::ManagementPolicy;

use super::canary::{self, Verdict};
use super::records;
use super::rehearsal::Proof;
use super::world::{Health, World};
use crate::model_deployment::observed::PodSeen;

/// A new revision must reach this part of what the one before does, percent.
pub const ENOUGH_PERCENT: u64 = 95;
/// Part of the old revision's rehearsed rate that a new one must reach. A rehearsal is a few nonces beside other work: it finds
/// what is plainly slower, the canary's exam the rest.
const REHEARSED_PERCENT: u64 = 80;

/// How far a rollout is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stage {
    /// As many slots as are wanted may have the revision: it did its duty before, or its exam was passed.
    #[default]
    Rolling,
    /// No more than `spec.rollout.canarySlots`, until one exam has judged it.
    Canary,
    /// Something speaks against it, and there is no way back, or none is wanted.
    Held,
    /// Something speaks against it: pods get the revision before.
    RolledBack,
}

/// Where a rollout stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Revision that follows from the spec.
    pub wanted: String,
    /// Revision that did its duty before; absent while no slot was ever held.
    pub baseline: Option<String>,
    /// How far.
    pub stage: Stage,
    /// What speaks against the wanted revision.
    pub failure: Option<String>,
    /// There is a way back, and it is to be gone.
    pub rolls_back: bool,
    /// The status says what speaks against it already.
    pub remembered: bool,
    /// Record of the exam that the canary passed.
    pub canary_exam: Option<String>,
    /// The owner holds it.
    pub paused: bool,
    /// Slots whose pod has the revision that pods come to have.
    pub updated_slots: usize,
    /// Pods that have it and run, or will.
    pub updated_pods: usize,
    canary_slots: usize,
}

impl Progress {
    /// Reads it from a snapshot. `world.revision` is the wanted one.
    pub fn of(world: &World<'_>) -> Self {
        let mut progress = Self::judged(world);
        let target = progress.target().to_owned();
        progress.updated_slots = held(world).filter(|pod| pod.revision == target).count();
        progress.updated_pods = pods_with(world, &target);
        progress
    }

    fn judged(world: &World<'_>) -> Self {
        let spec = &world.seen.deployment.spec.rollout;
        let wanted = world.revision.clone();
        let before = world.seen.deployment.status.as_ref();
        let before = before.and_then(|status| status.rollout.as_ref());
        let baseline = before
            .and_then(|before| before.previous_revision.clone())
            .or_else(|| most_held(world));
        let mut progress = Self {
            paused: spec.paused,
            canary_slots: usize::try_from(spec.canary_slots).unwrap_or_default(),
            baseline,
            wanted,
            ..Self::default()
        };
        let Some(baseline) = progress.baseline.clone().filter(|known| *known != progress.wanted) else {
            return progress;
        };
        let before = before.filter(|before| before.revision == progress.wanted);
        let failed = before.filter(|before| before.failed_revision.is_some());
        progress.remembered = failed.is_some();
        progress.canary_exam = before.and_then(|before| before.canary_exam.clone());
        let exam = if progress.canary_exam.is_none() {
            canary::verdict(world, &progress.wanted)
        } else {
            Verdict::Open
        };
        progress.failure = failed
            .map(|before| before.message.clone())
            .or_else(|| rehearsed_badly(world, &progress.wanted))
            .or_else(|| rehearsed_slowly(world, &progress.wanted, &baseline))
            .or_else(|| match &exam {
                Verdict::Failed(why) => Some(why.clone()),
                Verdict::Open | Verdict::Passed(_) => None,
            });
        if let Verdict::Passed(exam) = exam {
            progress.canary_exam = Some(exam);
        }
        progress.rolls_back =
            progress.failure.is_some() && spec.automatic_rollback && records::template(world, &baseline).is_some();
        progress.stage = match (&progress.failure, progress.remembered) {
            (Some(_), true) if progress.rolls_back => Stage::RolledBack,
            (Some(_), _) => Stage::Held,
            (None, _) if progress.canary_exam.is_none() && wants_canary(world) => Stage::Canary,
            (None, _) => Stage::Rolling,
        };
        progress
    }

    /// Revision that pods come to have.
    pub fn target(&self) -> &str {
        match (&self.baseline, self.stage) {
            (Some(baseline), Stage::RolledBack) => baseline,
            _ => &self.wanted,
        }
    }

    /// A revision is on trial: it is not the one that did its duty before.
    pub fn is_trial(&self) -> bool {
        self.baseline.as_ref().is_some_and(|known| *known != self.wanted)
    }

    /// No pod changes its revision.
    pub fn is_held(&self) -> bool {
        self.paused || self.stage == Stage::Held
    }

    /// One more may get the new revision beside so many: in a canary there are only so many as canary slots.
    pub fn has_room(&self, beside: usize) -> bool {
        self.stage != Stage::Canary || beside < self.canary_slots
    }

    /// A pod that holds no slot, or whose slot has no other, should not keep its revision.
    pub fn is_stale(&self, revision: &str) -> bool {
        let waits = self.baseline.as_deref() == Some(revision) && !self.has_room(self.updated_pods);
        revision != self.target() && !self.is_held() && !waits
    }

    /// A slot should not keep a pod of a revision.
    pub fn is_stale_in_slot(&self, revision: &str) -> bool {
        revision != self.target() && !self.is_held() && self.has_room(self.updated_slots)
    }

    /// Revision that is trusted more for a takeover.
    pub fn trusted(&self) -> &str {
        match (&self.baseline, self.stage) {
            (Some(baseline), Stage::Canary | Stage::Held | Stage::RolledBack) => baseline,
            _ => &self.wanted,
        }
    }
}

/// An exam can judge it: there are slots, and the network knows one. A slot that was held before is known, or was: of a deployment
/// that was just made again nobody has asked DAPI yet.
fn wants_canary(world: &World<'_>) -> bool {
    let spec = &world.seen.deployment.spec;
    let host = world.seen.host.as_ref();
    let managed = host.is_some_and(|host| host.spec.management_policy == ManagementPolicy::Manage);
    let known = |slot: i32| world.node_num(slot).is_some() || (managed && world.slots[&slot].generation > 0);
    spec.rollout.canary_slots > 0 && (0..spec.slots).any(known)
}

/// Revision of most pods that hold a slot; of as many one that is not wanted, since that one was there before.
fn most_held(world: &World<'_>) -> Option<String> {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for pod in held(world) {
        *counts.entry(&pod.revision).or_default() += 1;
    }
    counts
        .into_iter()
        .max_by_key(|(revision, count)| (*count, **revision != world.revision))
        .map(|(revision, _)| revision.clone())
}

fn held<'w>(world: &'w World<'_>) -> impl Iterator<Item = &'w PodSeen> {
    let holders = world.slots.values().filter_map(|slot| slot.holder.as_ref());
    holders.filter_map(|holder| world.pod_of(holder))
}

/// Pods that count as running with a revision.
fn pods_with(world: &World<'_>, revision: &str) -> usize {
    let counts =
        |pod: &&PodSeen| pod.revision == revision && matches!(world.health(pod), Health::Usable | Health::Starting);
    world.seen.pods.values().filter(counts).count()
}

/// A rehearsal of the revision failed, on a machine that nothing is wrong with.
fn rehearsed_badly(world: &World<'_>, revision: &str) -> Option<String> {
    let mut pods = world.seen.pods.iter();
    pods.find_map(|(name, pod)| match world.proof(name) {
        Proof::Failed(why) if pod.revision == revision && !world.gpu_finding(pod) => {
            Some(format!("rehearsal of {name} failed: {why}"))
        }
        Proof::Failed(_) | Proof::Missing | Proof::Uncompared | Proof::Passed => None,
    })
}

fn rehearsed_slowly(world: &World<'_>, revision: &str, baseline: &str) -> Option<String> {
    let (new, old) = (rate(world, revision)?, rate(world, baseline)?);
    (new.saturating_mul(100) < old.saturating_mul(REHEARSED_PERCENT)).then(|| {
        let per_minute = |milli: u64| milli.saturating_mul(60) / 1000;
        format!(
            "rehearsed at {} nonces a minute where revision {baseline} reaches {}; {REHEARSED_PERCENT} % is enough",
            per_minute(new),
            per_minute(old)
        )
    })
}

/// Median of a revision's rehearsed rates.
fn rate(world: &World<'_>, revision: &str) -> Option<u64> {
    let pods = world.seen.pods.iter().filter(|(_, pod)| pod.revision == revision);
    let rates = pods.filter_map(|(name, pod)| {
        let ran = world.proof(name).ran();
        let rehearsed = world.live(pod)?.rehearsal.as_ref().filter(|_| ran)?;
        Some(rehearsed.rate_milli).filter(|rate| *rate > 0)
    });
    canary::median(rates.collect())
}

/// Where a slot stands in a rollout: slots of one failure domain come before those of the next. A pod that is not even of the
/// revision before comes first.
pub fn turn(world: &World<'_>, slot: i32) -> (bool, String) {
    let holder = world.slots.get(&slot).and_then(|slot| slot.holder.as_ref());
    let pod = holder.and_then(|holder| world.pod_of(holder));
    let known = pod.is_some_and(|pod| Some(&pod.revision) == world.rollout.baseline.as_ref());
    (known, pod.map(|pod| world.domain(pod)).unwrap_or_default())
}
