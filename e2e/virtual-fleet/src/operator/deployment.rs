//! One pass over a ModelDeployment: assemble from the caches, decide, read again before anything is written, carry out.

use std::sync::Arc;

use crds::ModelDeployment;
use network_simulator::virtual_time::door::Door;
use operator::facts::Facts;
use operator::live::TakeoverEvent;
use operator::model_deployment::decide::{self, Desired, SlotSteps, Step};
use operator::model_deployment::observe::{Believed, Surroundings, assemble, is_behind, replace_children};
use operator::model_deployment::observed::{GoldenSeen, Observed};
use operator::model_deployment::pass;

use super::doors::Promoted;
use super::{Controller, Failure, Operator};
use crate::ground::Ground;
use crate::store::{Id, Kind};

/// Keys that slots check the operator's token with.
pub(super) const KEYS: &str = "{\"keys\":[]}";

impl Operator {
    /// Milliseconds until the next look.
    pub(super) fn pass_deployment(&mut self, ground: &mut Ground, door: &mut Door<'_>) -> Result<i64, Failure> {
        let deployments: Vec<Arc<ModelDeployment>> = self.caches.deployments.values().cloned().collect();
        let mut again = i64::from(u32::MAX);
        let mut failed = false;
        for deployment in deployments {
            match self.pass_one(ground, door, &deployment) {
                Ok(ms) => again = again.min(ms),
                Err(Failure::Died) => return Err(Failure::Died),
                // One that fails holds up no other.
                Err(Failure::Again) => failed = true,
            }
        }
        if failed { Err(Failure::Again) } else { Ok(again) }
    }

    fn surrounded<T>(&self, now_ms: i64, act: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let nothing = Arc::new(Facts::default());
        let known = self.facts().cloned();
        let facts = |schedule: &str| {
            let known = known.clone().filter(|facts| facts.schedule == schedule);
            known.unwrap_or_else(|| nothing.clone())
        };
        let door = |pod_uid: &str| self.doors.state(pod_uid).cloned();
        act(&Surroundings {
            now_ms,
            settings: &self.settings,
            facts: &facts,
            board: &self.board,
            door: &door,
        })
    }

    /// The snapshot as the caches have it.
    pub(super) fn observe(&mut self, deployment: &ModelDeployment, now_ms: i64) -> Observed {
        let mut observed = self.surrounded(now_ms, |surroundings| {
            let believed = Believed {
                keys: Some(KEYS.to_owned()),
                authorities: None,
            };
            assemble(&self.caches, deployment, surroundings, GoldenSeen::None, believed)
        });
        observed.revision = Some(self.revisions.of(&observed));
        observed
    }

    fn pass_one(
        &mut self,
        ground: &mut Ground,
        door: &mut Door<'_>,
        deployment: &ModelDeployment,
    ) -> Result<i64, Failure> {
        let now_ms = Ground::now(door);
        let mut observed = self.observe(deployment, now_ms);
        self.follow(ground, door, &observed);
        let young = now_ms - self.started_ms < pass::FIRST_WORDS.as_millis() as i64;
        let link = |uid: &str| self.doors.state(uid).map(|state| state.link);
        if young && pass::awaits_words(&observed, link) {
            return Ok(pass::LISTENING.as_millis() as i64);
        }
        let mut desired = decide::decide(&observed);
        if desired.writes() {
            self.refresh(ground, now_ms, &mut observed)?;
            self.follow(ground, door, &observed);
            desired = decide::decide(&observed);
        }
        let again = pass::again(&desired, self.settings.resync_seconds).as_millis() as i64;
        self.carry_out(ground, door, desired)?;
        Ok(again)
    }

    fn refresh(&mut self, ground: &mut Ground, now_ms: i64, observed: &mut Observed) -> Result<(), Failure> {
        if !ground.api_answers() {
            return Err(Failure::Again);
        }
        let id = Id::new(Kind::ModelDeployment, observed.namespace(), observed.name());
        let known = ground.store.get(&id);
        if known.is_none_or(|known| known["metadata"]["uid"].as_str() != Some(observed.uid())) {
            return Err(Failure::Again);
        }
        let fresh = self.caches.list_children(&ground.store, ground.list_version());
        if is_behind(observed, &fresh) {
            return Err(Failure::Again);
        }
        self.surrounded(now_ms, |surroundings| replace_children(observed, fresh, surroundings));
        Ok(())
    }

    /// Slots first, one after another; then children, labels and status; rehearsals aside.
    fn carry_out(&mut self, ground: &mut Ground, door: &mut Door<'_>, desired: Desired) -> Result<(), Failure> {
        let mut failed = None;
        for slot in &desired.slots {
            match self.steps(ground, door, slot) {
                Ok(()) => {}
                Err(Failure::Died) => return Err(Failure::Died),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        for change in desired.changes {
            match self.write(ground, door, Controller::Deployment, change) {
                Ok(()) => {}
                Err(Failure::Died) => return Err(Failure::Died),
                Err(error) => {
                    failed = failed.or(Some(error));
                    break;
                }
            }
        }
        for rehearsal in &desired.rehearsals {
            self.rehearse(ground, door, rehearsal);
        }
        failed.map_or(Ok(()), Err)
    }

    fn steps(&mut self, ground: &mut Ground, door: &mut Door<'_>, slot: &SlotSteps) -> Result<(), Failure> {
        self.record(slot, None);
        for step in &slot.steps {
            match step {
                Step::Demote(demote) => self.demote(ground, door, demote),
                Step::Change(change) => self.write(ground, door, Controller::Deployment, change.clone())?,
                Step::Promote(promote) => match self.promote(ground, door, promote) {
                    Promoted::Told => self.record(slot, Some(Ground::now(door))),
                    Promoted::Silent => return Err(Failure::Again),
                },
            }
        }
        Ok(())
    }

    fn record(&self, slot: &SlotSteps, promoted_ms: Option<i64>) {
        if let Some(event) = TakeoverEvent::of(slot, promoted_ms) {
            self.board.takeover(event);
        }
    }

    /// What a pass would write now, were its caches up to date: for a fleet at rest, nothing.
    pub fn would_write(&mut self, ground: &Ground, now_ms: i64) -> Vec<String> {
        let mut lines = Vec::new();
        let deployments: Vec<Arc<ModelDeployment>> = self.caches.deployments.values().cloned().collect();
        for deployment in deployments {
            let mut observed = self.observe(&deployment, now_ms);
            let fresh = self.caches.list_children(&ground.store, None);
            self.surrounded(now_ms, |surroundings| {
                replace_children(&mut observed, fresh, surroundings);
            });
            let desired = decide::decide(&observed);
            lines.extend(desired.changes.iter().map(crate::ground::shown));
            let steps = desired.slots.iter().flat_map(|slot| &slot.steps);
            lines.extend(steps.map(|step| match step {
                Step::Demote(demote) => format!("demote {}", demote.pod),
                Step::Change(change) => crate::ground::shown(change),
                Step::Promote(promote) => format!("promote {}", promote.pod),
            }));
        }
        lines.extend(self.would_write_to_machines(ground, now_ms));
        lines.extend(self.would_write_to_protect(now_ms));
        lines
    }
}
