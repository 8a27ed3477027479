//! Who hears of which event.

use network_simulator::dapi::callbacks::Validated;
use network_simulator::event::{Check, Command};
use network_simulator::virtual_time::door::Door;
use serde_json::json;

use super::Fleet;
use crate::agenda::Event;
use crate::cluster::PodLife;
use crate::ground::Ground;
use crate::operator::Controller;
use crate::store::{Actor, Id, Kind};
use crate::story::Happening;

/// After a disturbance a fleet is left alone for so long before it must be at rest.
const REST_MS: i64 = 120_000;
/// Between two looks at a fleet at rest.
const LOOK_AGAIN_MS: i64 = 5_000;
/// Facts are looked at again after this long.
const AGED_MS: i64 = 35_000;
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
            let line = format!("{} loaded its model", self.ground.name_of(pod_uid));
            self.ground.note(door, &line);
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
        let verdict = Validated {
            block_height: check.stage_height,
            public_key: check.public_key.clone(),
            node_id: check.node_num.into(),
            n_total: check.total.into(),
            fraud_detected: check.fraud,
        };
        // DAPI sends a sample again when its verdict does not come.
        let _lost = door.validated(&check.model, &verdict);
    }

    /// Doors of pods on a machine fall silent: at once where the machine still answers.
    fn hush(&mut self, door: &mut Door<'_>, pods: Vec<String>, at_once: bool) {
        let life = self.operator.life;
        for pod_uid in pods {
            let ms = if at_once { 5 } else { self.ground.delays.between(3_000, 6_000) };
            let event = Event::Silent { life, pod_uid, at_once };
            self.ground.agenda.after(door, ms, event);
        }
    }

    fn on_machine(&self, name: &str) -> Vec<String> {
        let here = |life: &PodLife| life.machine == name;
        let pods = self.ground.cluster.pods.iter().filter(|(_, life)| here(life));
        pods.map(|(uid, _)| uid.clone()).collect()
    }

    fn lasts(&mut self, door: &mut Door<'_>, place: usize, millis: i64) {
        self.lasting += 1;
        self.ground.agenda.after(door, millis, Event::Undo { place });
    }

    /// Something happens.
    fn moment(&mut self, door: &mut Door<'_>, place: usize) {
        let now_ms = Ground::now(door);
        let Some(moment) = self.story.get(place).cloned() else { return };
        self.disturbed_ms = now_ms;
        self.ground.note(door, &format!("story {:?}", moment.what));
        let running = self.ground.cluster.running();
        let pick = |pod: u32| running.get(pod as usize % running.len().max(1)).cloned();
        match moment.what {
            Happening::NodeLost { machine, millis } => {
                let name = format!("n{machine}");
                let pods = self.on_machine(&name);
                self.ground.power_cut(door, &name);
                self.hush(door, pods, false);
                self.lasts(door, place, millis);
            }
            Happening::NodeCut { machine, millis } => {
                let name = format!("n{machine}");
                if let Some(machine) = self.ground.cluster.machines.get_mut(&name) {
                    machine.cut += 1;
                    machine.changed_ms = now_ms;
                }
                let pods = self.on_machine(&name);
                self.hush(door, pods, false);
                self.ground.judge_later(door, &name, crate::cluster::GRACE_MS);
                self.lasts(door, place, millis);
            }
            Happening::GpuFinding { machine, millis } => {
                self.find(door, machine, 1);
                self.lasts(door, place, millis);
            }
            Happening::PodDies { pod } => {
                if let Some(uid) = pick(pod) {
                    self.ground.pod_dies(door, &uid);
                    self.hush(door, vec![uid], true);
                }
            }
            Happening::PodDeleted { pod } => self.delete_pod(door, pick(pod)),
            Happening::EngineDies { pod } => self.engine_dies(door, pick(pod)),
            Happening::ServeRestarts { pod, millis } => {
                if let Some(uid) = pick(pod) {
                    if let Some(life) = self.ground.cluster.pods.get_mut(&uid) {
                        life.away += 1;
                    }
                    self.hush(door, vec![uid.clone()], true);
                    let event = Event::Undo { place };
                    self.lasting += 1;
                    self.restarting.insert(place, uid);
                    self.ground.agenda.after(door, millis, event);
                }
            }
            Happening::Rollout { word } => self.rollout(door, &word),
            Happening::ApiOutage { millis } => {
                self.ground.faults.api_down += 1;
                self.operator.cut_off(&mut self.ground, door);
                self.lasts(door, place, millis);
            }
            Happening::OperatorDies { writes, millis } => {
                if writes == 0 {
                    self.operator.die(&mut self.ground, door, millis);
                } else {
                    self.operator.dies = Some((writes, millis));
                }
            }
            Happening::WriteFails { how } => self.ground.faults.writes.push(how),
            Happening::WatchFails {
                lost_permille,
                late_millis,
                millis,
            } => {
                self.ground.faults.watch = Some((lost_permille, late_millis));
                self.lasts(door, place, millis);
            }
            Happening::StaleLists { versions, millis } => {
                self.ground.faults.stale_lists = Some(versions);
                self.lasts(door, place, millis);
            }
            Happening::Network { verb, arguments } => {
                let command = Command { verb, arguments };
                if let Err(refused) = door.command(&command) {
                    self.ground.note(door, &format!("refused: {refused}"));
                }
            }
        }
    }

    /// What a moment did ends.
    fn undo(&mut self, door: &mut Door<'_>, place: usize) {
        let now_ms = Ground::now(door);
        let Some(moment) = self.story.get(place).cloned() else { return };
        self.lasting = self.lasting.saturating_sub(1);
        self.disturbed_ms = now_ms;
        self.ground.note(door, &format!("over {:?}", moment.what));
        match moment.what {
            Happening::NodeLost { machine, .. } => self.ground.power_back(door, &format!("n{machine}")),
            Happening::NodeCut { machine, .. } => {
                let name = format!("n{machine}");
                if let Some(machine) = self.ground.cluster.machines.get_mut(&name) {
                    machine.cut = machine.cut.saturating_sub(1);
                    machine.changed_ms = now_ms;
                }
                self.ground.judge_later(door, &name, 1_000);
                for pod_uid in self.on_machine(&name) {
                    let address = self.ground.cluster.pods.get(&pod_uid).map(|life| life.address.clone());
                    let event = Event::Ready {
                        pod_uid,
                        address: address.unwrap_or_default(),
                    };
                    self.ground.agenda.after(door, 3_000, event);
                }
            }
            Happening::GpuFinding { machine, .. } => self.find(door, machine, -1),
            Happening::ServeRestarts { .. } => {
                if let Some(uid) = self.restarting.remove(&place)
                    && let Some(life) = self.ground.cluster.pods.get_mut(&uid)
                {
                    life.away = life.away.saturating_sub(1);
                }
            }
            Happening::ApiOutage { .. } => self.ground.faults.api_down = self.ground.faults.api_down.saturating_sub(1),
            Happening::WatchFails { .. } => self.ground.faults.watch = None,
            Happening::StaleLists { .. } => self.ground.faults.stale_lists = None,
            Happening::PodDies { .. }
            | Happening::PodDeleted { .. }
            | Happening::EngineDies { .. }
            | Happening::Rollout { .. }
            | Happening::OperatorDies { .. }
            | Happening::WriteFails { .. }
            | Happening::Network { .. } => {}
        }
    }

    fn find(&mut self, door: &mut Door<'_>, machine: u32, by: i32) {
        let name = format!("n{machine}");
        if let Some(machine) = self.ground.cluster.machines.get_mut(&name) {
            machine.findings = machine.findings.saturating_add_signed(by);
        }
        self.ground.tell_findings(door, &name);
    }

    fn delete_pod(&mut self, door: &mut Door<'_>, uid: Option<String>) {
        let now_ms = Ground::now(door);
        let Some(life) = uid.and_then(|uid| self.ground.cluster.pods.get(&uid)) else {
            return;
        };
        let id = life.id.clone();
        let glass = crds::labels::BREAK_GLASS;
        // A pod that is gone needs no breaking.
        let _gone = self
            .ground
            .store
            .edit(&id, |pod| pod["metadata"]["annotations"][glass] = json!("a person"));
        let _gone = self.ground.store.delete(&id, Actor::Person, None, now_ms);
        self.ground.tell(door);
    }

    fn engine_dies(&mut self, door: &mut Door<'_>, uid: Option<String>) {
        let now_ms = Ground::now(door);
        let Some(uid) = uid else { return };
        let life = self.ground.cluster.pods.get_mut(&uid);
        let Some(slot) = life.and_then(|life| life.slot.as_mut()) else {
            return;
        };
        slot.engine_dies(now_ms);
        let starts = slot.starts();
        self.ground.load(door, &uid, starts);
        self.ground.ring(door, &uid);
    }

    fn rollout(&mut self, door: &mut Door<'_>, word: &str) {
        let id = Id::new(Kind::ModelDeployment, crate::NAMESPACE, crate::DEPLOYMENT);
        let edited = self.ground.store.edit(&id, |deployment| {
            deployment["spec"]["podOverlay"]["annotations"]["example.com/word"] = json!(word);
        });
        if edited.is_ok() {
            self.ground.tell(door);
        }
    }

    /// A fleet that nothing disturbed for a while is not written to.
    fn rest_check(&mut self, door: &mut Door<'_>, again: bool) {
        let now_ms = Ground::now(door);
        let quiet = now_ms - self.disturbed_ms >= REST_MS && self.lasting == 0 && self.ground.faults.writes.is_empty();
        let exam = door.net().exam.is_some() || door.net().confirmation().is_some();
        if !quiet || exam || !self.operator.alive || !self.is_whole() {
            return;
        }
        let wishes = self.operator.would_write(&self.ground, now_ms);
        if !again {
            self.operator
                .wake(&mut self.ground, door, Controller::Deployment, 1);
            let event = Event::RestCheck { again: true };
            self.ground.agenda.after(door, LOOK_AGAIN_MS, event);
            return;
        }
        self.ground.checks.rests += 1;
        if !wishes.is_empty() {
            let what = format!("a second pass would write {}", wishes.join(", "));
            self.ground.checks.violated(now_ms, crate::check::Rule::Rest, what);
        }
    }

    /// Every pod is there, loaded and rehearsed.
    fn is_whole(&self) -> bool {
        let wanted = usize::try_from(self.ground.plan.slots + self.ground.plan.spares).unwrap_or_default();
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
