//! Slots' operator doors as this process knows them: connections come up, fall silent and come up again.

use kube::runtime::reflector::ObjectRef;
use network_simulator::faults::Port;
use network_simulator::virtual_time::door::Door;
use operator::backoff;
use operator::model_deployment::observed::{Link, Observed};
use operator::model_deployment::{Demote, Promote, Rehearse, pass};
use operator::slot_door::{LONGEST_PAUSE, messages};
use proto::v1::SlotReport;

use super::{Controller, Operator};
use crate::agenda::Event;
use crate::ground::Ground;

/// A connection that nobody answers is given up after this long.
const CONNECT_MS: i64 = 2_000;
/// A rehearsal takes so long.
const REHEARSAL_MS: i64 = 2_000;

/// What a promote came to.
pub(super) enum Promoted {
    /// Taken, or fenced: either way the pod was asked.
    Told,
    /// Nobody answered.
    Silent,
}

impl Operator {
    /// Which doors are to be watched.
    pub(super) fn follow(&mut self, ground: &mut Ground, door: &mut Door<'_>, observed: &Observed) {
        let now_ms = Ground::now(door);
        let targets = pass::targets(observed);
        let deployment = ObjectRef::from_obj(&observed.deployment);
        let followed = self.doors.follow(&self.board, &deployment, targets, now_ms);
        if !followed.changed {
            return;
        }
        let wanted: Vec<(String, String)> = self
            .doors
            .targets()
            .map(|target| (target.pod_uid.clone(), target.address.clone()))
            .collect();
        self.dialling
            .retain(|uid, _| wanted.iter().any(|(wanted, _)| wanted == uid));
        for (pod_uid, address) in wanted {
            if self.dialling.get(&pod_uid) == Some(&address) {
                continue;
            }
            self.dialling.insert(pod_uid.clone(), address.clone());
            let ms = ground.delays.between(20, 80);
            self.dial(ground, door, (pod_uid, address), 0, ms);
        }
    }

    fn dial(
        &self,
        ground: &mut Ground,
        door: &mut Door<'_>,
        (pod_uid, address): (String, String),
        failures: u32,
        ms: i64,
    ) {
        let life = self.life;
        let event = Event::Connect {
            life,
            pod_uid,
            address,
            failures,
        };
        ground.agenda.after(door, ms, event);
    }

    /// A door is tried.
    pub fn connect(&mut self, ground: &mut Ground, door: &mut Door<'_>, pod: (String, String), failures: u32) {
        let (pod_uid, address) = pod;
        if self.dialling.get(&pod_uid) != Some(&address) || self.is_connected(&pod_uid) {
            return;
        }
        let there = ground
            .cluster
            .pods
            .get(&pod_uid)
            .is_some_and(|life| life.address == address);
        if there && ground.cluster.is_reachable(&pod_uid) {
            if let Some(report) = ground.report(door, &pod_uid) {
                self.hear(ground, door, &pod_uid, report);
            }
            return;
        }
        // A machine that is up refuses; one that is not lets everybody wait.
        let waits = !there || !ground.cluster.is_machine_reachable(&pod_uid);
        let waited = if waits { CONNECT_MS } else { 5 };
        let life = self.life;
        let event = Event::Silent {
            life,
            pod_uid: pod_uid.clone(),
            at_once: false,
        };
        ground.agenda.after(door, waited, event);
        let failures = failures + 1;
        let pause = backoff::delay(failures, backoff::jitter(&pod_uid, failures)).min(LONGEST_PAUSE);
        let ms = waited + pause.as_millis() as i64;
        self.dial(ground, door, (pod_uid, address), failures, ms);
    }

    /// Reports arrive over this door.
    pub fn is_connected(&self, pod_uid: &str) -> bool {
        self.doors
            .state(pod_uid)
            .is_some_and(|state| state.link == Link::Connected)
    }

    /// Nothing came over a door for too long.
    pub fn silent(&mut self, ground: &mut Ground, door: &mut Door<'_>, pod_uid: &str, at_once: bool) {
        if !at_once && ground.cluster.is_reachable(pod_uid) && self.is_connected(pod_uid) {
            return;
        }
        let was_connected = self.is_connected(pod_uid);
        let now_ms = Ground::now(door);
        if self.doors.link(&self.board, pod_uid, Link::Broken, now_ms) {
            ground.note(door, &format!("door of {} is silent", ground.name_of(pod_uid)));
            self.wake(ground, door, Controller::Deployment, 50);
            self.wake(ground, door, Controller::Records, 200);
        }
        if was_connected && let Some(address) = self.dialling.get(pod_uid).cloned() {
            let pause = backoff::delay(1, backoff::jitter(pod_uid, 1)).min(LONGEST_PAUSE);
            self.dial(ground, door, (pod_uid.to_owned(), address), 1, pause.as_millis() as i64);
        }
    }

    /// A report arrives.
    pub fn hear(&mut self, ground: &mut Ground, door: &mut Door<'_>, pod_uid: &str, report: SlotReport) {
        let now_ms = Ground::now(door);
        let node_id = self.doors.target(pod_uid).and_then(|target| target.node_id.clone());
        let news = self
            .doors
            .hear(&self.board, pod_uid, node_id.as_deref(), (report, now_ms));
        let up = self.doors.link(&self.board, pod_uid, Link::Connected, now_ms);
        if up {
            ground.note(door, &format!("door of {} answers", ground.name_of(pod_uid)));
        }
        if news || up {
            self.wake(ground, door, Controller::Deployment, 50);
        }
        self.wake(ground, door, Controller::Records, 1_000);
    }

    /// Opens a chain door.
    pub(super) fn promote(&mut self, ground: &mut Ground, door: &mut Door<'_>, step: &Promote) -> Promoted {
        let now_ms = Ground::now(door);
        let Some(target) = self.doors.target(&step.pod_uid).cloned() else {
            return Promoted::Silent;
        };
        let there = ground.cluster.is_reachable(&step.pod_uid);
        let life = ground.cluster.pods.get_mut(&step.pod_uid).filter(|_| there);
        let Some(slot) = life.and_then(|life| life.slot.as_mut()) else {
            return Promoted::Silent;
        };
        let promoted = slot.promote(messages::promote(&target, step), now_ms);
        ground.note(
            door,
            &format!(
                "promote {} slot {} generation {} running {}: {promoted:?}",
                step.pod,
                step.slot,
                step.generation,
                step.running.is_some()
            ),
        );
        match promoted {
            Ok(()) => {
                self.doors.promoted(step);
                ground.check_promotion(door, &step.pod_uid, &step.node_id, step.generation);
                ground.set_ticking(door, &step.pod_uid);
                if let Some(report) = ground.report(door, &step.pod_uid) {
                    let node_id = Some(step.node_id.as_str());
                    self.doors.hear(&self.board, &step.pod_uid, node_id, (report, now_ms));
                }
                self.wake(ground, door, Controller::Deployment, 50);
                Promoted::Told
            }
            Err(0) => Promoted::Silent,
            Err(seen) => {
                self.doors.fenced(&step.pod_uid, seen);
                Promoted::Told
            }
        }
    }

    /// Closes a chain door. Its failure stops nothing.
    pub(super) fn demote(&mut self, ground: &mut Ground, door: &mut Door<'_>, step: &Demote) {
        let now_ms = Ground::now(door);
        let Some(target) = self.doors.target(&step.pod_uid).cloned() else {
            return;
        };
        let there = ground.cluster.is_reachable(&step.pod_uid);
        let life = ground.cluster.pods.get_mut(&step.pod_uid).filter(|_| there);
        let taken = life
            .and_then(|life| life.slot.as_mut())
            .is_some_and(|slot| slot.demote(&messages::demote(&target, step), now_ms));
        let text = format!(
            "demote {} slot {} generation {}: {taken}",
            step.pod, step.slot, step.generation
        );
        ground.note(door, &text);
        if !taken {
            return;
        }
        self.doors.demoted(step);
        if let Some(report) = ground.report(door, &step.pod_uid) {
            self.doors.hear(&self.board, &step.pod_uid, None, (report, now_ms));
        }
    }

    /// Starts a rehearsal.
    pub(super) fn rehearse(&mut self, ground: &mut Ground, door: &mut Door<'_>, step: &Rehearse) {
        self.doors.rehearsing(&step.pod_uid);
        ground.note(door, &format!("rehearse {}", step.pod));
        let life = self.life;
        let event = Event::Rehearsed {
            life,
            pod_uid: step.pod_uid.clone(),
            nonces: step.nonces.clone(),
        };
        ground.agenda.after(door, REHEARSAL_MS, event);
    }

    /// A rehearsal is over, however it went.
    pub fn rehearsed(&mut self, ground: &mut Ground, door: &mut Door<'_>, pod_uid: &str, nonces: &[i32]) {
        let now_ms = Ground::now(door);
        let answers = door.view(Port::DapiMl).is_ok();
        let there = ground.cluster.is_reachable(pod_uid);
        let life = ground.cluster.pods.get_mut(pod_uid).filter(|_| there);
        let ran = life
            .and_then(|life| life.slot.as_mut())
            .is_some_and(|slot| slot.rehearsed(nonces, answers, now_ms));
        if ran {
            ground.cluster.proven(pod_uid);
        }
        ground.note(door, &format!("{} rehearsed: {ran}", ground.name_of(pod_uid)));
        self.doors.rehearsed(pod_uid, now_ms);
        ground.ring(door, pod_uid);
        self.wake(ground, door, Controller::Deployment, 50);
    }
}
