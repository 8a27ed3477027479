//! What everybody stands on: API server, machines, agenda, chance, and what is broken at the moment.

use k8s_openapi::api::core::v1::Pod;
use network_simulator::virtual_time::door::Door;
use operator::change::Change;
use operator::facts::Facts;
use proto::v1::SlotReport;
use serde_json::{Value, json};

use crate::agenda::{Agenda, Event};
use crate::check::Checks;
use crate::cluster::{Cluster, Machine};
use crate::history::History;
use crate::plan::FleetPlan;
use crate::random::Random;
use crate::slot::Taken;
use crate::store::{Id, Kind, Refusal, Store};
use crate::story::WriteFault;
use crate::switches::{self, Strangers};

/// Versions after which what was removed is forgotten.
const MEMORY: u64 = 400;

/// Everything but the operator and the network.
#[derive(Debug)]
pub struct Ground {
    /// The fleet as it was planned.
    pub plan: FleetPlan,
    /// Milliseconds a generation stage takes.
    pub stage_ms: i64,
    /// Time between blocks.
    pub block_ms: i64,
    /// The API server's objects.
    pub store: Store,
    /// Machines and what runs on them.
    pub cluster: Cluster,
    /// Events to come.
    pub agenda: Agenda,
    /// What happened.
    pub history: History,
    /// What must hold.
    pub checks: Checks,
    /// What is broken.
    pub faults: Faults,
    /// Delays.
    pub delays: Random,
    /// What people and programs that are not ours left on machines.
    pub strangers: Strangers,
}

/// What is broken at the moment.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The API server does not answer; so many outages overlap.
    pub api_down: u32,
    /// Faults of the operator's next writes, the next one last.
    pub writes: Vec<WriteFault>,
    /// Watches: lost events of a thousand, and delay.
    pub watch: Option<(u64, i64)>,
    /// Lists show what was so many versions ago.
    pub stale_lists: Option<u64>,
}

/// Why a write of the operator came to nothing, as far as it knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WriteError {
    /// No answer.
    Silent,
    /// An answer that says no.
    Refused(Refusal),
    /// The process ended.
    Died,
}

impl Ground {
    /// Milliseconds since the epoch, as the fleet counts them.
    pub fn now(door: &Door<'_>) -> i64 {
        i64::try_from(door.now_ms()).unwrap_or(i64::MAX)
    }

    /// Notes what happened.
    pub fn note(&mut self, door: &Door<'_>, line: &str) {
        self.history.note(Self::now(door), line);
    }

    /// The API server answers.
    pub fn api_answers(&self) -> bool {
        self.faults.api_down == 0
    }

    /// Version that a list shows.
    pub fn list_version(&self) -> Option<u64> {
        let behind = self.faults.stale_lists?;
        Some(self.store.version().saturating_sub(behind))
    }

    /// A write of the operator.
    pub fn write(&mut self, door: &mut Door<'_>, manager: &str, change: Change) -> Result<(), WriteError> {
        let now_ms = Self::now(door);
        if matches!(change, Change::Event(_)) {
            return Ok(());
        }
        if !self.api_answers() {
            return Err(WriteError::Silent);
        }
        let fault = self.faults.writes.pop();
        match fault {
            Some(WriteFault::Lost) => {
                self.note(door, &format!("lost {}", shown(&change)));
                return Err(WriteError::Silent);
            }
            Some(WriteFault::Conflict) => {
                self.note(door, &format!("conflict {}", shown(&change)));
                let id = Id::new(Kind::ConfigMap, "", "somebody-was-faster");
                return Err(WriteError::Refused(Refusal::Conflict(id)));
            }
            Some(WriteFault::Unanswered) | None => {}
        }
        self.note(door, &shown(&change));
        let theirs = switches::given_back(&self.store, &change);
        let written = self.store.write(manager, change, now_ms);
        if let (Ok(Some(id)), Some(theirs)) = (&written, theirs) {
            self.checks.machines.given_back += 1;
            self.strangers.keep(&id.name, theirs);
        }
        self.tell(door);
        match written {
            Err(refusal) => Err(WriteError::Refused(refusal)),
            Ok(_) if fault == Some(WriteFault::Unanswered) => Err(WriteError::Silent),
            Ok(_) => Ok(()),
        }
    }

    /// What follows from changes: watches tell, kubelets and scheduler act.
    pub fn tell(&mut self, door: &mut Door<'_>) {
        for change in self.store.take_news() {
            self.react(door, &change.id, change.value.as_deref());
            self.cluster.outbox.push(change);
        }
        let version = self.store.version();
        if version.is_multiple_of(64) {
            self.store.forget_before(version.saturating_sub(MEMORY));
        }
    }

    fn react(&mut self, door: &mut Door<'_>, id: &Id, value: Option<&Value>) {
        match (id.kind, value) {
            (Kind::Pod, Some(pod)) => self.react_to_pod(door, id, pod),
            (Kind::Pod, None) => self.cluster.pod_removed(&id.name),
            (Kind::EndpointSlice, _) => {
                let ms = self.delays.between(300, 1_000);
                self.agenda.after(door, ms, Event::Route { id: id.clone() });
            }
            _ => {}
        }
    }

    fn react_to_pod(&mut self, door: &mut Door<'_>, id: &Id, pod: &Value) {
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let leaving = !pod["metadata"]["deletionTimestamp"].is_null();
        if pod["spec"]["nodeName"].is_null() && !leaving {
            if self.cluster.expect(uid, id) {
                let ms = self.delays.between(30, 300);
                self.agenda.after(door, ms, Event::Schedule { id: id.clone() });
            }
        } else if leaving && self.cluster.tell_to_end(uid) {
            let since_ms = Self::now(door);
            let pod_uid = uid.to_owned();
            self.agenda.after(door, 200, Event::Ending { pod_uid, since_ms });
        }
    }

    /// Says how a pod is, in its status.
    pub fn pod_status(&mut self, door: &mut Door<'_>, id: &Id, phase: &str, address: &str, ready: bool) {
        let time = crate::store::time(Self::now(door));
        let edited = self.store.edit(id, |pod| {
            let before = pod["status"]["conditions"][0]["status"].clone();
            let now = if ready { "True" } else { "False" };
            let since = if before == json!(now) {
                pod["status"]["conditions"][0]["lastTransitionTime"].clone()
            } else {
                json!(time)
            };
            let mut status = json!({
                "phase": phase,
                "conditions": [{"type": "Ready", "status": now, "lastTransitionTime": since}],
            });
            if !address.is_empty() {
                status["podIP"] = json!(address);
            }
            pod["status"] = status;
        });
        // A pod that was removed meanwhile has no status.
        if edited.is_ok() {
            self.tell(door);
        }
    }
}

/// A change in a few words.
pub fn shown(change: &Change) -> String {
    match change {
        Change::Apply(object) => format!("apply {} {}", object.resource.kind, object.name),
        Change::Status(object) => format!("status {} {}", object.resource.kind, object.name),
        Change::Create(object) => format!("create {}", object.resource.kind),
        Change::Merge(object) => format!("merge {} {}", object.resource.kind, object.name),
        Change::Delete(deletion) => format!("delete {} {}", deletion.resource.kind, deletion.name),
        Change::Event(notice) => format!("event {}: {}", notice.reason, notice.note),
    }
}

/// A deletion of a pod: its name and UID.
pub fn deleted_pod(change: &Change) -> Option<(&str, &str)> {
    let Change::Delete(deletion) = change else { return None };
    let is_pod = deletion.resource.kind == <Pod as kube::Resource>::kind(&());
    is_pod.then_some((deletion.name.as_str(), deletion.uid.as_str()))
}

/// Slots as everybody on the ground sees them.
impl Ground {
    /// A pod's name.
    pub fn name_of(&self, pod_uid: &str) -> String {
        let life = self.cluster.pods.get(pod_uid);
        life.map_or_else(|| pod_uid.to_owned(), |life| life.id.name.clone())
    }

    /// What a slot says of itself now.
    pub fn report(&mut self, door: &Door<'_>, pod_uid: &str) -> Option<SlotReport> {
        let now_ms = Self::now(door);
        let life = self.cluster.pods.get_mut(pod_uid)?;
        life.reported_ms = now_ms;
        Some(life.slot.as_mut()?.report(now_ms))
    }

    /// A slot has something to say: at most one report a second.
    pub fn ring(&mut self, door: &mut Door<'_>, pod_uid: &str) {
        let now_ms = Self::now(door);
        let Some(life) = self.cluster.pods.get_mut(pod_uid).filter(|life| !life.reporting) else {
            return;
        };
        life.reporting = true;
        let ms = (1_000 - (now_ms - life.reported_ms)).clamp(5, 1_000);
        let pod_uid = pod_uid.to_owned();
        self.agenda.after(door, ms, Event::Report { pod_uid });
    }

    /// A slot with work goes on by itself.
    pub fn set_ticking(&mut self, door: &mut Door<'_>, pod_uid: &str) {
        let now_ms = Self::now(door);
        let Some(life) = self.cluster.pods.get_mut(pod_uid).filter(|life| !life.ticking) else {
            return;
        };
        let Some(slot) = life.slot.as_ref().filter(|slot| slot.has_work(now_ms)) else {
            return;
        };
        let ms = slot.next_tick_ms(now_ms);
        life.ticking = true;
        let pod_uid = pod_uid.to_owned();
        self.agenda.after(door, ms, Event::Tick { pod_uid });
    }

    /// A slot computes, delivers, and goes on.
    pub fn tick(&mut self, door: &mut Door<'_>, pod_uid: &str) {
        let now_ms = Self::now(door);
        let reachable = self.cluster.is_reachable(pod_uid);
        let Some(life) = self.cluster.pods.get_mut(pod_uid) else {
            return;
        };
        life.ticking = false;
        let Some(slot) = life.slot.as_mut() else { return };
        slot.tick(now_ms);
        if let Some((height, batch)) = slot.delivery(now_ms).filter(|_| reachable) {
            let reply = door.generated(slot.model(), height, &batch);
            let taken = match reply {
                Ok(reply) if reply.status < 300 => Taken::Accepted,
                Ok(_) | Err(_) => Taken::NotNow,
            };
            slot.delivered(&batch, taken, now_ms);
        }
        self.ring(door, pod_uid);
        self.set_ticking(door, pod_uid);
    }

    /// FleetSignal: every slot that can be reached hears of the block.
    pub fn signal(&mut self, door: &mut Door<'_>, facts: &Facts) {
        let now_ms = Self::now(door);
        let frame = operator::signal::frame(facts);
        let cluster = &mut self.cluster;
        let mut working = Vec::new();
        for (uid, life) in &mut cluster.pods {
            let up = cluster.machines.get(&life.machine).is_some_and(Machine::is_reachable);
            if let Some(slot) = life.slot.as_mut().filter(|_| up && life.away == 0) {
                slot.hear(frame.clone(), now_ms);
                if slot.has_work(now_ms) && !life.ticking {
                    working.push(uid.clone());
                }
            }
        }
        for uid in working {
            self.set_ticking(door, &uid);
        }
    }
}
