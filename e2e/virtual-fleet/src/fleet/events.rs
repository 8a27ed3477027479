//! Who hears of which event.

use network_simulator::dapi::callbacks::Validated;
use network_simulator::event::Check;
use network_simulator::virtual_time::door::Door;

use super::Fleet;
use crate::agenda::Event;
use crate::cluster::PodLife;
use crate::ground::Ground;
use crate::operator::Controller;

/// After a disturbance a fleet is left alone for so long before it must be at rest.
const REST_MS: i64 = 120_000;
/// Between two looks at a fleet at rest.
const LOOK_AGAIN_MS: i64 = 5_000;
/// Facts are looked at again after this long.
const AGED_MS: i64 = 35_000;
/// A container starts again.
const RESTART_MS: i64 = 2_000;
/// Silence after which they are.
const STALE_MS: i64 = 31_000;

impl Fleet {
    pub(super) fn event(&mut self, door: &mut Door<'_>, event: Event) {
        match event {
            Event::OperatorStarts => self.operator_starts(door),
            Event::Told { life, change } if life == self.operator.life => {
                self.operator.told(&mut self.ground, door, &change);
            }
            Event::Relist { life, kind } if life == self.operator.life => {
                self.operator.relist(&mut self.ground, door, kind);
            }
            Event::Read { life } if life == self.operator.life => {
                self.operator.read(&mut self.ground, door);
                let works = self.operator.alive && self.ground.api_answers();
                self.ground.check_holders(door, works);
                let well = self.is_well();
                self.ground.check_machines(door, well, false);
                self.check_wishes(door);
                let allowed_ms = i64::from(self.operator.settings().break_glass_seconds) * 1000;
                self.ground.check_seals(door, well, allowed_ms);
            }
            Event::Aged { life } if life == self.operator.life => self.aged(door),
            Event::Pass { life, controller } if life == self.operator.life => {
                self.operator.pass(&mut self.ground, door, controller);
            }
            Event::Connect {
                life,
                pod_uid,
                address,
                failures,
            } if life == self.operator.life && self.operator.alive => {
                self.operator
                    .connect(&mut self.ground, door, (pod_uid, address), failures);
            }
            Event::Silent { life, pod_uid, at_once } if life == self.operator.life && self.operator.alive => {
                self.operator.silent(&mut self.ground, door, &pod_uid, at_once);
            }
            Event::Heard { life, pod_uid, report } if life == self.operator.life && self.operator.alive => {
                self.operator.hear(&mut self.ground, door, &pod_uid, *report);
            }
            Event::Rehearsed { life, pod_uid, nonces } if life == self.operator.life => {
                self.operator.rehearsed(&mut self.ground, door, &pod_uid, &nonces);
            }
            Event::Job { life, task } if life == self.operator.life => {
                self.operator.job(&mut self.ground, door, *task);
            }
            // Meant for a life that is over.
            Event::Told { .. }
            | Event::Relist { .. }
            | Event::Read { .. }
            | Event::Aged { .. }
            | Event::Pass { .. }
            | Event::Connect { .. }
            | Event::Silent { .. }
            | Event::Heard { .. }
            | Event::Rehearsed { .. }
            | Event::Job { .. } => {}
            Event::Schedule { id } => self.ground.schedule(door, &id),
            Event::Start { pod_uid } => self.ground.start_pod(door, &pod_uid),
            Event::Ready { pod_uid, address } => self.ground.pod_ready(door, &pod_uid, &address),
            Event::Loaded {
                pod_uid,
                address,
                starts,
            } => self.loaded(door, &pod_uid, &address, starts),
            Event::Ending { pod_uid, since_ms } => self.ground.end_pod(door, &pod_uid, since_ms),
            Event::Tick { pod_uid } => self.ground.tick(door, &pod_uid),
            Event::Report { pod_uid } => self.report(door, &pod_uid),
            Event::Verdict { pod_uid, check } => self.verdict(door, &pod_uid, &check),
            Event::Route { id } => self.ground.route(&id),
            Event::Judge { machine, since_ms } => self.ground.judge(door, &machine, since_ms),
            Event::Moment { place } => self.moment(door, place),
            Event::Undo { place } => self.undo(door, place),
            Event::Evict { place } => self.evict(door, place),
            Event::Work { place } => self.work(door, place),
            Event::Booted { machine } => self.ground.power_back(door, &machine),
            Event::Lease { life } => self.lease(door, life),
            Event::RestCheck { again } => self.rest_check(door, again),
        }
    }

    fn operator_starts(&mut self, door: &mut Door<'_>) {
        let before = self.operator.life;
        self.operator.start(&mut self.ground, door);
        if self.operator.life != before {
            let life = self.operator.life;
            self.ground.agenda.after(door, AGED_MS, Event::Aged { life });
        }
    }

    /// A leader that cannot renew its lease ends.
    fn lease(&mut self, door: &mut Door<'_>, life: u32) {
        if life == self.operator.life && self.operator.leads() && !self.ground.api_answers() {
            self.operator.die(&mut self.ground, door, RESTART_MS);
        }
    }

    fn aged(&mut self, door: &mut Door<'_>) {
        let now_ms = Ground::now(door);
        if self.operator.alive && self.ground.plan.every_block && now_ms - self.looked_ms >= STALE_MS {
            self.operator.judge_chain(&mut self.ground, door);
            if let Some(facts) = self.operator.facts().cloned() {
                self.ground.signal(door, &facts);
            }
        }
        let life = self.operator.life;
        self.ground.agenda.after(door, AGED_MS, Event::Aged { life });
    }

    fn loaded(&mut self, door: &mut Door<'_>, pod_uid: &str, address: &str, starts: u32) {
        let now_ms = Ground::now(door);
        let life = self
            .ground
            .cluster
            .pods
            .get_mut(pod_uid)
            .filter(|life| life.address == address);
        let Some(slot) = life.and_then(|life| life.slot.as_mut()) else {
            return;
        };
        if slot.loaded(starts) {
            slot.follow_round(now_ms);
            let text = format!("{} loaded its model", self.ground.name_of(pod_uid));
            self.ground.note(door, &text);
            self.ground.ring(door, pod_uid);
            self.ground.set_ticking(door, pod_uid);
        }
    }

    fn report(&mut self, door: &mut Door<'_>, pod_uid: &str) {
        if let Some(life) = self.ground.cluster.pods.get_mut(pod_uid) {
            life.reporting = false;
        }
        let heard = self.operator.alive && self.operator.is_connected(pod_uid);
        if !heard || !self.ground.cluster.is_reachable(pod_uid) {
            return;
        }
        if let Some(report) = self.ground.report(door, pod_uid) {
            self.operator.hear(&mut self.ground, door, pod_uid, report);
        }
    }

    fn verdict(&mut self, door: &mut Door<'_>, pod_uid: &str, check: &Check) {
        if !self.ground.cluster.is_reachable(pod_uid) {
            return;
        }
        let verdict = Validated::from(check);
        // DAPI sends a sample again when its verdict does not come.
        let _lost = door.validated(&check.model, &verdict);
    }

    /// A fleet that nothing disturbed for a while is not written to.
    fn rest_check(&mut self, door: &mut Door<'_>, again: bool) {
        let now_ms = Ground::now(door);
        let quiet = now_ms - self.disturbed_ms >= REST_MS && self.lasting == 0 && self.ground.faults.writes.is_empty();
        let exam = door.net().exam.is_some() || door.net().confirmation().is_some();
        if !quiet || exam || !self.operator.alive || !self.is_whole() || self.is_wished_for() {
            return;
        }
        let wishes = self.operator.would_write(&self.ground, now_ms);
        if !again {
            self.operator.wake(&mut self.ground, door, Controller::Deployment, 1);
            let event = Event::RestCheck { again: true };
            self.ground.agenda.after(door, LOOK_AGAIN_MS, event);
            return;
        }
        self.ground.checks.rests += 1;
        let well = self.is_well();
        self.ground.check_machines(door, well, true);
        if !wishes.is_empty() {
            let what = format!("a second pass would write {}", wishes.join(", "));
            self.ground.checks.violated(now_ms, crate::check::Rule::Rest, what);
        }
    }

    /// Every pod is there, loaded and rehearsed.
    pub(super) fn is_whole(&self) -> bool {
        let wanted = usize::try_from(self.ground.plan.all_pods()).unwrap_or_default();
        let works = |(uid, life): (&String, &PodLife)| {
            let slot = life.slot.as_ref();
            !life.ending
                && self.ground.cluster.is_reachable(uid)
                && slot.is_some_and(|slot| slot.is_loaded() && slot.state.memory.rehearsed.time_ms > 0)
        };
        let pods = &self.ground.cluster.pods;
        pods.len() == wanted && pods.iter().all(works)
    }
}
