//! The one planner: which pod holds which slot, which pods to make and which to delete. Pure and deterministic.

use std::collections::{BTreeMap, BTreeSet};

use crds::conditions::Reason;

use super::pods::{self, Removal};
use super::rollout::{self, Stage};
use super::takeover::{self, Bench, Cause};
use super::world::{Assignment, Holder, World};
use crate::gate::{ActionKind, Verdict};

/// How the rollout stands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Rollout {
    /// Every pod has the wanted revision.
    #[default]
    Done,
    /// Under way.
    Running,
    /// The canary waits for its exam.
    Canary,
    /// Its owner holds it, or something speaks against it.
    Held,
    /// The gate says not now; why.
    Window(String),
    /// No rehearsed spare of the wanted revision.
    Spare,
}

/// What should be, and how to get there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Assignment of every slot after this pass.
    pub slots: BTreeMap<i32, Assignment>,
    /// Slots that change hands in this pass.
    pub moves: Vec<Move>,
    /// Pods to make.
    pub create: usize,
    /// Pods to delete.
    pub remove: Vec<Removal>,
    /// Why something is held back; a person must re-arm.
    pub breaker: Option<(Reason, String)>,
    /// How the rollout stands.
    pub rollout: Rollout,
    /// The gate's answers.
    pub asked: Vec<(ActionKind, Verdict)>,
}

/// One slot that changes hands.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// Index.
    pub slot: i32,
    /// Pod it leaves.
    pub from: Option<Holder>,
    /// Pod it goes to; absent when nobody can have it.
    pub to: Option<Holder>,
    /// Why.
    pub cause: Cause,
}

impl Plan {
    /// Slot of each pod that holds one after this pass.
    pub fn holders(&self) -> BTreeMap<String, i32> {
        self.slots
            .iter()
            .filter_map(|(slot, assignment)| Some((assignment.holder.as_ref()?.name.clone(), *slot)))
            .collect()
    }

    /// Slots beyond those that are wanted that a pod holds all the same.
    pub fn held_beyond(&self, wanted: i32) -> impl Iterator<Item = i32> {
        let beyond = self.slots.range(wanted..);
        beyond.filter_map(|(slot, assignment)| assignment.holder.is_some().then_some(*slot))
    }
}

/// Plans one pass.
pub fn plan(world: &World<'_>) -> Plan {
    let mut draft = Draft {
        world,
        bench: Bench::of(world),
        plan: Plan {
            slots: world.slots.clone(),
            ..Plan::default()
        },
        generation: world.highest_generation(),
    };
    draft.drop_doubles();
    let causes: BTreeMap<i32, Cause> = draft
        .plan
        .slots
        .iter()
        .filter_map(|(slot, assignment)| Some((*slot, takeover::cause(world, *slot, assignment)?)))
        .collect();
    draft.heal(&causes);
    draft.lift_fences();
    draft.planned(&causes);
    pods::plan(world, &mut draft.plan);
    draft.plan
}

struct Draft<'w, 'a> {
    world: &'w World<'a>,
    bench: Bench<'w, 'a>,
    plan: Plan,
    generation: i64,
}

impl Draft<'_, '_> {
    /// A pod holds one slot. Should two slices name it, the newer assignment counts and the older is vacant.
    fn drop_doubles(&mut self) {
        let mut newest: BTreeMap<String, (i64, i32)> = BTreeMap::new();
        for (slot, assignment) in &self.plan.slots {
            if let Some(holder) = &assignment.holder {
                let entry = newest
                    .entry(holder.uid.clone())
                    .or_insert((assignment.generation, *slot));
                *entry = (*entry).max((assignment.generation, *slot));
            }
        }
        for (slot, assignment) in &mut self.plan.slots {
            let keeps = |holder: &Holder| newest.get(&holder.uid).is_some_and(|(_, keeper)| keeper == slot);
            if assignment.holder.as_ref().is_some_and(|holder| !keeps(holder)) {
                assignment.holder = None;
            }
        }
    }

    /// Slots whose pod earns nothing before those whose pod may; scarce spares go where most weight is.
    fn heal(&mut self, causes: &BTreeMap<i32, Cause>) {
        let mut broken: Vec<(i32, Cause)> = causes
            .iter()
            .filter(|(_, cause)| !cause.is_planned())
            .map(|(slot, cause)| (*slot, *cause))
            .collect();
        broken.sort_by_key(|(slot, cause)| {
            let weight = self.world.last_rate(*slot);
            (cause.leaves_something(), std::cmp::Reverse(weight), *cause, *slot)
        });
        for (slot, cause) in broken {
            // One that was given up stays so; one that is held is kept until it may be.
            let held = self.plan.slots.get(&slot).is_some_and(|slot| slot.holder.is_some());
            let wanted = slot < self.world.seen.deployment.spec.slots || (held && !self.world.may_retire());
            let held_before = self.plan.slots.get(&slot).is_some_and(|slot| slot.generation > 0);
            let may_move = !held_before || self.world.may_move(slot);
            let moved = wanted && may_move && self.move_to_spare(slot, cause);
            if !moved && cause.leaves_nothing() {
                self.vacate(slot, cause);
            }
        }
    }

    fn move_to_spare(&mut self, slot: i32, cause: Cause) -> bool {
        let verdict = self.world.ask(ActionKind::Takeover, 0);
        if !matches!(verdict, Verdict::Allow { .. }) {
            self.plan.asked.push((ActionKind::Takeover, verdict));
            return false;
        }
        let Some((name, pod)) = self.bench.take(slot, cause.need()) else {
            return false;
        };
        self.plan.asked.push((ActionKind::Takeover, verdict));
        self.generation += 1;
        let holder = Holder {
            name,
            uid: pod.uid.clone(),
            address: pod.address.clone(),
        };
        let assignment = Assignment {
            generation: self.generation,
            assigned_ms: self.world.seen.now_ms,
            holder: Some(holder.clone()),
        };
        let from = self.plan.slots.insert(slot, assignment).and_then(|old| old.holder);
        self.plan.moves.push(Move {
            slot,
            from,
            to: Some(holder),
            cause,
        });
        true
    }

    /// The generation stays: the next holder gets a higher one.
    fn vacate(&mut self, slot: i32, cause: Cause) {
        if let Some(assignment) = self.plan.slots.get_mut(&slot) {
            let from = assignment.holder.take();
            self.plan.moves.push(Move {
                slot,
                from,
                to: None,
                cause,
            });
        }
    }

    /// A pod that was fenced for a move that never happened (we died between demote and slice) refuses its own
    /// assignment: it gets it again under a higher generation.
    fn lift_fences(&mut self) {
        let moved: BTreeSet<i32> = self.plan.moves.iter().map(|entry| entry.slot).collect();
        for (slot, assignment) in &mut self.plan.slots {
            let Some(holder) = &assignment.holder else { continue };
            let fenced = self
                .world
                .pod_of(holder)
                .filter(|pod| self.world.connected(pod))
                .and_then(|pod| self.world.live(pod))
                .is_some_and(|live| live.generation.max(live.fence) > assignment.generation);
            if fenced && !moved.contains(slot) {
                self.generation += 1;
                assignment.generation = self.generation;
                self.plan.moves.push(Move {
                    slot: *slot,
                    from: Some(holder.clone()),
                    to: Some(holder.clone()),
                    cause: Cause::Fenced,
                });
            }
        }
    }

    /// Healthy slots that should move by somebody's wish: with the gate's leave, one per pass, and only when nothing is
    /// broken.
    fn planned(&mut self, causes: &BTreeMap<i32, Cause>) {
        let (retiring, mut wishes): (Vec<_>, Vec<_>) = causes
            .iter()
            .filter(|(_, cause)| cause.is_planned())
            .map(|(slot, cause)| (*slot, *cause))
            .partition(|(_, cause)| *cause == Cause::ScaledDown);
        self.plan.rollout = self.rollout_idle();
        // While pods change their revision a spare may be on trial.
        if causes.is_empty() && self.plan.rollout == Rollout::Done {
            wishes.extend(self.bench.crowded(&self.plan.slots).map(|slot| (slot, Cause::Crowded)));
        }
        if let Some((slot, cause)) = retiring.first() {
            let verdict = self.world.ask(ActionKind::Retire, 0);
            self.plan.asked.push((ActionKind::Retire, verdict));
            if matches!(verdict, Verdict::Allow { .. }) && self.plan.moves.is_empty() {
                self.vacate(*slot, *cause);
                return;
            }
        }
        if wishes.is_empty() {
            return;
        }
        let verdict = self.world.ask(ActionKind::Rollout, 0);
        self.plan.asked.push((ActionKind::Rollout, verdict));
        if let Verdict::Wait { reason, .. } | Verdict::Deny { reason } = verdict {
            if wishes.iter().any(|(_, cause)| *cause == Cause::Rollout) {
                self.plan.rollout = Rollout::Window(reason.to_string());
            }
            return;
        }
        if !self.plan.moves.is_empty() {
            return;
        }
        for (slot, cause) in self.in_turn(wishes) {
            let moved = self.move_to_spare(slot, cause);
            if cause == Cause::Rollout {
                self.plan.rollout = if moved { Rollout::Running } else { Rollout::Spare };
            }
            if moved {
                return;
            }
        }
    }

    fn rollout_idle(&self) -> Rollout {
        let stale = self
            .world
            .seen
            .pods
            .values()
            .any(|pod| pod.revision != self.world.revision && !pod.leaving);
        let progress = &self.world.rollout;
        let waits = progress.stage == Stage::Canary && !progress.has_room(progress.updated_slots);
        match (stale, progress.is_held()) {
            (_, false) if waits => Rollout::Canary,
            (false, _) => Rollout::Done,
            (true, true) => Rollout::Held,
            (true, false) => Rollout::Running,
        }
    }

    /// Wishes that may come true, and of a rollout's only those of one failure domain. A pod that is not even of the revision
    /// before comes first.
    fn in_turn(&self, wishes: Vec<(i32, Cause)>) -> Vec<(i32, Cause)> {
        let turn = |slot: &i32| rollout::turn(self.world, *slot);
        let (mut rolling, mut others): (Vec<_>, Vec<_>) = wishes
            .into_iter()
            .filter(|(slot, _)| self.world.may_move(*slot))
            .partition(|(_, cause)| *cause == Cause::Rollout);
        rolling.sort_by_key(|(slot, _)| (turn(slot), *slot));
        let first = rolling.first().map(|(slot, _)| turn(slot));
        rolling.retain(|(slot, _)| Some(turn(slot)) == first);
        others.extend(rolling);
        others
    }
}
