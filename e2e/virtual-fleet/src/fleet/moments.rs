//! What a story does to the fleet, and how it ends.

use network_simulator::event::Command;
use network_simulator::virtual_time::door::Door;
use serde_json::json;

use super::Fleet;
use crate::agenda::Event;
use crate::cluster::{GRACE_MS, PodLife};
use crate::ground::Ground;
use crate::store::{Actor, Id, Kind};
use crate::story::Happening;

/// `--lease-seconds`.
const LEASE_MS: i64 = 15_000;

impl Fleet {
    /// Doors of pods on a machine fall silent: at once where the machine still answers.
    pub(super) fn hush(&mut self, door: &mut Door<'_>, pods: Vec<String>, at_once: bool) {
        let life = self.operator.life;
        for pod_uid in pods {
            let ms = if at_once {
                5
            } else {
                self.ground.delays.between(3_000, 6_000)
            };
            let event = Event::Silent { life, pod_uid, at_once };
            self.ground.agenda.after(door, ms, event);
        }
    }

    pub(super) fn on_machine(&self, name: &str) -> Vec<String> {
        let here = |life: &PodLife| life.machine == name;
        let pods = self.ground.cluster.pods.iter().filter(|(_, life)| here(life));
        pods.map(|(uid, _)| uid.clone()).collect()
    }

    /// How many slots what happens hits: a machine may carry several.
    fn slots_hit(&self, what: &Happening, pick: impl Fn(u32) -> Option<String>) -> u64 {
        let pods = match what {
            Happening::NodeLost { machine, .. }
            | Happening::NodeCut { machine, .. }
            | Happening::GpuFinding { machine, .. } => self.on_machine(&format!("n{machine}")),
            Happening::PodDies { pod }
            | Happening::PodDeleted { pod }
            | Happening::EngineDies { pod }
            | Happening::ServeRestarts { pod, .. } => pick(*pod).into_iter().collect(),
            _ => Vec::new(),
        };
        let lives = pods.iter().filter_map(|uid| self.ground.cluster.pods.get(uid));
        let held = lives.filter(|life| life.slot.as_ref().is_some_and(|slot| slot.held().is_some()));
        held.count() as u64
    }

    fn lasts(&mut self, door: &mut Door<'_>, place: usize, millis: i64) {
        self.lasting += 1;
        self.ground.agenda.after(door, millis, Event::Undo { place });
    }

    /// Something happens.
    pub(super) fn moment(&mut self, door: &mut Door<'_>, place: usize) {
        let now_ms = Ground::now(door);
        let Some(moment) = self.story.get(place).cloned() else {
            return;
        };
        self.disturbed_ms = now_ms;
        self.ground.note(door, &format!("story {:?}", moment.what));
        let running = self.ground.cluster.running();
        let pick = |pod: u32| running.get(pod as usize % running.len().max(1)).cloned();
        self.hit.insert(place, self.slots_hit(&moment.what, pick));
        match moment.what {
            Happening::NodeLost { machine, millis } => {
                let name = format!("n{machine}");
                let pods = self.on_machine(&name);
                self.ground.power_cut(door, &name);
                self.hush(door, pods, false);
                self.lasts(door, place, millis);
            }
            Happening::NodeCut { machine, millis } => {
                self.cut(door, &format!("n{machine}"));
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
                    self.serve_restarts(door, place, uid);
                    self.lasts(door, place, millis);
                }
            }
            Happening::ApiOutage { millis } => {
                self.api_goes(door);
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
            other => self.by_people(door, place, other),
        }
    }

    /// People, and programs of strangers, do something.
    fn by_people(&mut self, door: &mut Door<'_>, place: usize, what: Happening) {
        match what {
            Happening::Rollout { word, deployment } => self.rollout(door, &word, deployment),
            Happening::Edited {
                field,
                value,
                deployment,
            } => self.edit(door, deployment, field, value),
            Happening::Drained { machine, millis } => {
                self.cordon(door, machine, true);
                self.ground.agenda.after(door, 1_000, Event::Evict { place });
                self.wish(door, place, millis);
            }
            Happening::Maintained { millis, .. } => {
                self.maintain(door, place);
                self.wish(door, place, millis);
            }
            Happening::GlassBroken { kind, place } => self.break_glass(door, kind, place),
            Happening::Rearmed => self.rearm(door),
            Happening::SwitchSet { machine, switch, value } => self.set_switch(door, machine, switch, value.as_deref()),
            Happening::ChecksPaused { millis } => {
                self.pause_checks(door, place, true);
                self.lasts(door, place, millis);
            }
            Happening::LabelsFlap { millis } => {
                self.label_all(door, false);
                self.lasts(door, place, millis);
            }
            // What happens by itself was taken before.
            _ => {}
        }
    }

    fn api_goes(&mut self, door: &mut Door<'_>) {
        self.ground.faults.api_down += 1;
        self.operator.cut_off(&mut self.ground, door);
        let life = self.operator.life;
        self.ground.agenda.after(door, LEASE_MS, Event::Lease { life });
    }

    /// What a moment did ends.
    pub(super) fn undo(&mut self, door: &mut Door<'_>, place: usize) {
        let now_ms = Ground::now(door);
        let Some(moment) = self.story.get(place).cloned() else {
            return;
        };
        if moment.what.wished_machine().is_none() {
            self.lasting = self.lasting.saturating_sub(1);
        }
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
            Happening::Drained { machine, .. } => {
                if self.withdraw(now_ms, place) {
                    self.cordon(door, machine, false);
                }
            }
            Happening::Maintained { machine, .. } => {
                if self.withdraw(now_ms, place) {
                    self.wish_no_more(door, machine);
                }
            }
            Happening::ChecksPaused { .. } => self.pause_checks(door, place, false),
            Happening::LabelsFlap { .. } => self.label_all(door, true),
            Happening::ApiOutage { .. } => self.ground.faults.api_down = self.ground.faults.api_down.saturating_sub(1),
            Happening::WatchFails { .. } => self.ground.faults.watch = None,
            Happening::StaleLists { .. } => self.ground.faults.stale_lists = None,
            Happening::PodDies { .. }
            | Happening::PodDeleted { .. }
            | Happening::EngineDies { .. }
            | Happening::Rollout { .. }
            | Happening::Edited { .. }
            | Happening::OperatorDies { .. }
            | Happening::GlassBroken { .. }
            | Happening::Rearmed
            | Happening::SwitchSet { .. }
            | Happening::WriteFails { .. }
            | Happening::Network { .. } => {}
        }
    }

    fn cut(&mut self, door: &mut Door<'_>, name: &str) {
        if let Some(machine) = self.ground.cluster.machines.get_mut(name) {
            machine.cut += 1;
            machine.changed_ms = Ground::now(door);
        }
        let pods = self.on_machine(name);
        self.hush(door, pods, false);
        self.ground.judge_later(door, name, GRACE_MS);
    }

    fn serve_restarts(&mut self, door: &mut Door<'_>, place: usize, uid: String) {
        if let Some(life) = self.ground.cluster.pods.get_mut(&uid) {
            life.away += 1;
        }
        self.hush(door, vec![uid.clone()], true);
        self.restarting.insert(place, uid);
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

    fn rollout(&mut self, door: &mut Door<'_>, word: &str, deployment: usize) {
        let Some(plan) = self.ground.plan.deployments().into_iter().nth(deployment) else {
            return;
        };
        let id = Id::new(Kind::ModelDeployment, crate::NAMESPACE, &plan.name);
        let edited = self.ground.store.edit(&id, |deployment| {
            deployment["spec"]["podOverlay"]["annotations"]["example.com/word"] = json!(word);
        });
        if edited.is_ok() {
            self.ground.tell(door);
        }
    }
}
