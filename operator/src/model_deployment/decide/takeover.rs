//! Why a slot should leave its pod, and which pod may have it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::gpu_node::MaintenanceStage;

use super::handoff;
use super::rehearsal::Proof;
use super::world::{Assignment, Health, World};
use crate::facts::Facts;
use crate::model_deployment::observed::{Link, Machine, PodSeen};

/// How long a pod may be silent in an exam: a restart of `serve` or of its container takes less.
pub const SILENT_MILLIS: i64 = 3_000;

/// Why a slot changes hands, or its slice is rewritten.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, strum::Display, strum::IntoStaticStr)]
pub enum Cause {
    /// No pod holds it.
    Vacant,
    /// The pod is not there any more.
    PodGone,
    /// The pod ended.
    PodEnded,
    /// The pod has no address any more: its machine starts again.
    AddressLost,
    /// The pod is being deleted.
    PodLeaving,
    /// The pod is silent and its machine, or it itself, is down.
    NodeLost,
    /// The exam runs and the pod fell silent, while most others answer.
    FellSilent,
    /// The exam runs and an engine of the pod is gone: a large model takes longer to load than an exam to pass.
    EngineLost,
    /// A GPU of the machine must not be examined.
    GpuFinding,
    /// The exam runs and the pod has no nonce.
    NoFirstNonce,
    /// The model is not loaded and would not be in time.
    NotLoaded,
    /// The machine is excluded.
    Excluded,
    /// Somebody works on the machine, and it is its turn.
    Maintenance,
    /// The pod has an older revision.
    Rollout,
    /// Its failure domain carries two slots more than one that a rehearsed spare is in.
    Crowded,
    /// The spec has fewer slots.
    ScaledDown,
    /// The pod is fenced with a higher generation than the slice has.
    Fenced,
}

/// What the pod that takes over must have shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// It answers. Enough for a slot that nobody holds.
    Answering,
    /// Its model is loaded.
    Loaded,
    /// Its model is loaded, and a rehearsal ran; where none could run yet, it is of the revision that it takes over from, or of one
    /// that another pod has rehearsed.
    LoadedAlike,
    /// A rehearsal ran.
    Rehearsed,
    /// A rehearsal ran and its revision is the wanted one.
    RehearsedRevision,
}

impl Cause {
    /// What the successor must have shown. Where the old pod earns nothing any successor is better.
    pub fn need(self) -> Need {
        match self {
            Self::Vacant
            | Self::PodGone
            | Self::PodEnded
            | Self::AddressLost
            | Self::PodLeaving
            | Self::ScaledDown
            | Self::Fenced => Need::Answering,
            Self::NodeLost => Need::Loaded,
            // In an exam nothing is rehearsed: who has just loaded would wait for its end.
            Self::FellSilent | Self::EngineLost => Need::LoadedAlike,
            Self::GpuFinding | Self::NoFirstNonce | Self::NotLoaded | Self::Excluded | Self::Maintenance => {
                Need::Rehearsed
            }
            Self::Rollout | Self::Crowded => Need::RehearsedRevision,
        }
    }

    /// Nobody may be sent to the old pod's address any more, whether or not there is a new pod.
    pub fn leaves_nothing(self) -> bool {
        matches!(self, Self::PodGone | Self::PodEnded | Self::AddressLost)
    }

    /// The old pod may still earn something.
    pub fn leaves_something(self) -> bool {
        matches!(self, Self::GpuFinding) || self.is_planned()
    }

    /// A healthy slot moves by somebody's wish: only when the gate allows it, one at a time.
    pub fn is_planned(self) -> bool {
        matches!(
            self,
            Self::Excluded | Self::Maintenance | Self::Rollout | Self::Crowded | Self::ScaledDown
        )
    }
}

/// Why the slot should leave its pod now; absent when it should stay.
pub fn cause(world: &World<'_>, slot: i32, assignment: &Assignment) -> Option<Cause> {
    let Some(holder) = &assignment.holder else {
        return Some(Cause::Vacant);
    };
    let Some(pod) = world.pod_of(holder) else {
        return Some(Cause::PodGone);
    };
    if pod.address.is_empty() {
        return Some(Cause::AddressLost);
    }
    let unwanted = slot >= world.seen.deployment.spec.slots;
    // Until nobody expects its weight any more, a slot that is not wanted is kept like any other.
    if unwanted && world.may_retire() && world.health(pod) != Health::Dead {
        return Some(Cause::ScaledDown);
    }
    match world.health(pod) {
        Health::Dead => return Some(Cause::PodEnded),
        Health::Leaving => return Some(Cause::PodLeaving),
        Health::Lost => return Some(Cause::NodeLost),
        Health::Usable | Health::Starting => {}
    }
    if fell_silent(world, slot, assignment, pod) {
        return Some(Cause::FellSilent);
    }
    if engine_is_lost(world, slot, assignment, pod) {
        return Some(Cause::EngineLost);
    }
    if world.gpu_finding(pod) {
        return Some(Cause::GpuFinding);
    }
    if first_nonce_is_overdue(world, slot, assignment) {
        return Some(Cause::NoFirstNonce);
    }
    if is_past_cold_load(world, pod) {
        return Some(Cause::NotLoaded);
    }
    if world.machine(pod).is_some_and(|machine| machine.excluded) {
        return Some(Cause::Excluded);
    }
    if world
        .machine(pod)
        .is_some_and(|machine| machine.maintenance == Some(MaintenanceStage::Draining))
    {
        return Some(Cause::Maintenance);
    }
    if unwanted {
        return Some(Cause::ScaledDown);
    }
    world.rollout.is_stale_in_slot(&pod.revision).then_some(Cause::Rollout)
}

/// When the exam began, if this slot is examined in it and has not moved in it yet: an exam moves a slot once.
fn examined_since(world: &World<'_>, slot: i32, assignment: &Assignment) -> Option<i64> {
    let exam = world.exam.as_ref()?;
    let started_ms = exam.started_ms?;
    let unmoved = assignment.assigned_ms < started_ms;
    // Of a deployment none of whose pods was reached nobody knows the request yet: DAPI asks again, and whoever has the slot hears it.
    let expected = world.node_num(slot).is_some() && !exam.preserved.contains(&world.seen.node_id(slot));
    (unmoved && (expected || handoff::running(world, slot).is_some())).then_some(started_ms)
}

/// An exam runs for longer than the margin, a start was asked for, and no pod of this slot has a nonce.
fn first_nonce_is_overdue(world: &World<'_>, slot: i32, assignment: &Assignment) -> bool {
    first_nonce_due_ms(world, slot, assignment).is_some_and(|due| world.seen.now_ms >= due)
}

/// When a nonce of a slot that has none becomes overdue.
fn first_nonce_due_ms(world: &World<'_>, slot: i32, assignment: &Assignment) -> Option<i64> {
    handoff::running(world, slot)?;
    let (started_ms, schedule) = (examined_since(world, slot, assignment)?, world.seen.schedule.as_ref()?);
    let rounds = world.seen.rounds.get(&world.seen.node_id(slot));
    let none = rounds.into_iter().flatten().all(|round| round.first_nonce_ms == 0);
    none.then(|| started_ms + i64::from(schedule.margins.first_nonce_seconds) * 1000)
}

/// When the next first nonce becomes overdue.
pub fn next_first_nonce_ms(world: &World<'_>) -> Option<i64> {
    let due = world.slots.iter();
    due.filter_map(|(slot, assignment)| first_nonce_due_ms(world, *slot, assignment))
        .filter(|due| *due > world.seen.now_ms)
        .min()
}

/// In an exam nobody waits for the kubelet's lease to run out. Should the pod only be out of our sight and still deliver,
/// what the spare computes counts for nothing and costs nothing. Most other machines must answer: else it is we who are cut off.
/// What else is on the pod's own machine bears no witness: it falls silent with it.
fn fell_silent(world: &World<'_>, slot: i32, assignment: &Assignment, pod: &PodSeen) -> bool {
    let silent = |pod: &PodSeen| world.live(pod).filter(|live| live.link == Link::Broken);
    let Some(live) = silent(pod) else {
        return false;
    };
    let machines = |counts: &dyn Fn(&PodSeen) -> bool| -> BTreeSet<&str> {
        let pods = world.seen.pods.values();
        let others = pods.filter(|other| other.node_name != pod.node_name && counts(other));
        others.map(|other| other.node_name.as_str()).collect()
    };
    let heard = machines(&|other| world.connected(other));
    let unheard = machines(&|other| silent(other).is_some());
    world.seen.now_ms - live.since_ms >= SILENT_MILLIS
        && heard.len() > unheard.difference(&heard).count()
        && examined_since(world, slot, assignment).is_some()
}

/// In an exam, a pod that answers and for a while has fewer engines than it should: one that comes back at once stays.
fn engine_is_lost(world: &World<'_>, slot: i32, assignment: &Assignment, pod: &PodSeen) -> bool {
    let since = lost_engine_since(world, pod);
    since.is_some_and(|since| world.seen.now_ms - since >= SILENT_MILLIS)
        && examined_since(world, slot, assignment).is_some()
}

/// Since when a pod that answers has fewer engines than it should.
pub fn lost_engine_since(world: &World<'_>, pod: &PodSeen) -> Option<i64> {
    let live = world.live(pod).filter(|live| live.link == Link::Connected)?;
    (live.backends_ready < live.backends_expected).then_some(live.engines_since_ms)
}

/// Between T − coldLoadSeconds and the Sprint, a pod that answers and says that its model is not loaded.
fn is_past_cold_load(world: &World<'_>, pod: &PodSeen) -> bool {
    let facts: &Facts = &world.seen.facts;
    let Some(schedule) = &world.seen.schedule else {
        return false;
    };
    let until = facts
        .next_poc_start()
        .and_then(|height| facts.millis_until(height, world.seen.now_ms));
    let in_time =
        until.is_some_and(|millis| millis > 0 && millis <= i64::from(schedule.margins.cold_load_seconds) * 1000);
    in_time && world.exam.is_none() && world.connected(pod) && !world.loaded(pod)
}

/// How good a spare is; larger is better.
type Rank = (u8, bool, bool, bool, bool, std::cmp::Reverse<usize>);

/// Pods without a slot, and how they are chosen among.
#[derive(Debug)]
pub struct Bench<'w, 'a> {
    world: &'w World<'a>,
    free: BTreeSet<String>,
    /// Slots per failure domain, as planned so far.
    domains: BTreeMap<String, usize>,
}

impl<'w, 'a> Bench<'w, 'a> {
    /// Every usable pod that no slot holds and nothing speaks against.
    pub fn of(world: &'w World<'a>) -> Self {
        let mut domains = BTreeMap::new();
        let mut held = BTreeSet::new();
        for holder in world.slots.values().filter_map(|slot| slot.holder.as_ref()) {
            if let Some(pod) = world.pod_of(holder) {
                *domains.entry(world.domain(pod)).or_default() += 1;
                held.insert(holder.name.clone());
            }
        }
        let free = world
            .seen
            .pods
            .iter()
            .filter(|(name, pod)| !held.contains(*name) && is_fit(world, name, pod))
            .map(|(name, _)| name.clone())
            .collect();
        Self { world, free, domains }
    }

    /// Takes the best pod that has shown what is needed.
    pub fn take(&mut self, slot: i32, need: Need) -> Option<(String, &'a PodSeen)> {
        let name = self
            .free
            .iter()
            .filter(|name| self.meets(name, slot, need) && self.is_free_for(name, slot))
            .max_by(|left, right| {
                let (left_rank, right_rank) = (self.rank(left, slot), self.rank(right, slot));
                // Of equals the first by name.
                left_rank.cmp(&right_rank).then_with(|| right.cmp(left))
            })?
            .clone();
        self.free.remove(&name);
        let pod = self.world.seen.pods.get(&name)?;
        *self.domains.entry(self.world.domain(pod)).or_default() += 1;
        Some((name, pod))
    }

    /// A slot of the fullest failure domain, when a rehearsed spare is in one with at least two slots fewer: the move makes
    /// things more even, so that no two passes undo each other.
    pub fn crowded(&self, slots: &BTreeMap<i32, Assignment>) -> Option<i32> {
        let load = |domain: &String| self.domains.get(domain).copied().unwrap_or_default();
        let spares = self
            .free
            .iter()
            .filter(|name| self.meets(name, 0, Need::RehearsedRevision));
        let emptiest = spares
            .filter_map(|name| self.world.seen.pods.get(name))
            .map(|pod| load(&self.world.domain(pod)))
            .min()?;
        let of_slot = |assignment: &Assignment| {
            let pod = self.world.pod_of(assignment.holder.as_ref()?)?;
            Some(load(&self.world.domain(pod)))
        };
        let (fullest, slot) = slots
            .iter()
            .filter_map(|(slot, assignment)| Some((of_slot(assignment)?, *slot)))
            .max_by_key(|(load, slot)| (*load, std::cmp::Reverse(*slot)))?;
        (fullest >= emptiest + 2).then_some(slot)
    }

    /// A pod that still believes it holds another slot is demoted first.
    fn is_free_for(&self, name: &str, slot: i32) -> bool {
        self.world
            .seen
            .pods
            .get(name)
            .and_then(|pod| self.world.live(pod))
            .is_some_and(|live| live.slot < 0 || live.slot == slot)
    }

    fn meets(&self, name: &str, slot: i32, need: Need) -> bool {
        let Some(pod) = self.world.seen.pods.get(name) else {
            return false;
        };
        let loaded = self.world.loaded(pod);
        let rehearsed = loaded && self.world.proof(name).ran();
        match need {
            Need::Answering => true,
            Need::Loaded => loaded,
            Need::LoadedAlike => rehearsed || (loaded && self.is_alike(name, pod, slot)),
            Need::Rehearsed => rehearsed,
            Need::RehearsedRevision => rehearsed && pod.revision == self.world.revision,
        }
    }

    /// Nothing is known of what it computes but that it is of the revision of the pod that has the slot, or of one that another pod
    /// has rehearsed.
    fn is_alike(&self, name: &str, pod: &PodSeen, slot: i32) -> bool {
        let holder = self.world.slots.get(&slot).and_then(|slot| slot.holder.as_ref());
        let old = holder.and_then(|holder| self.world.pod_of(holder));
        let is_known = || {
            let mut others = self.world.seen.pods.iter();
            others.any(|(other, seen)| seen.revision == pod.revision && self.world.proof(other).ran())
        };
        matches!(self.world.proof(name), Proof::Missing)
            && (old.is_some_and(|old| old.revision == pod.revision) || is_known())
    }

    /// Larger is better: proof first, then a machine that stays, then revision, then a pod that held this slot before, then an
    /// emptier domain.
    fn rank(&self, name: &str, slot: i32) -> Rank {
        let world = self.world;
        let Some(pod) = world.seen.pods.get(name) else {
            return (0, false, false, false, false, std::cmp::Reverse(usize::MAX));
        };
        let proof = match world.proof(name) {
            Proof::Passed => 3,
            Proof::Uncompared => 2,
            Proof::Missing => 1,
            Proof::Failed(_) => 0,
        };
        let held = world.live(pod).is_some_and(|live| live.slot == slot);
        let load = self.domains.get(&world.domain(pod)).copied().unwrap_or_default();
        (
            if world.loaded(pod) { proof } else { 0 },
            world.loaded(pod),
            world.machine(pod).is_none_or(|machine| !machine.leaving),
            pod.revision == world.rollout.trusted(),
            held,
            std::cmp::Reverse(load),
        )
    }
}

/// Whether a spare would soon have to go. In an exam nothing is drained: whoever is to leave after it may still compute in it.
fn goes_soon(world: &World<'_>, machine: &Machine) -> bool {
    let waits = matches!(machine.maintenance, None | Some(MaintenanceStage::Waiting));
    machine.leaving && !(world.exam.is_some() && waits)
}

/// Nothing speaks against giving the pod a slot.
fn is_fit(world: &World<'_>, name: &str, pod: &PodSeen) -> bool {
    let machine = world.machine(pod);
    let in_vain = world.exam.as_ref().is_some_and(|exam| {
        world
            .live(pod)
            .and_then(|live| live.round.as_ref())
            .is_some_and(|round| round.height == exam.height && round.first_nonce_ms == 0)
    });
    world.health(pod) == Health::Usable
        && world.live(pod).is_some_and(|live| live.link == Link::Connected)
        && !world.gpu_finding(pod)
        && !machine.is_some_and(|machine| machine.excluded || goes_soon(world, machine))
        && (machine.is_none_or(|machine| !machine.is_returning()) || world.proof(name).ran())
        && !in_vain
}
