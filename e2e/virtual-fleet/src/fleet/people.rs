//! What people and their tools do to the fleet's objects: edits, drains, labels.

use network_simulator::virtual_time::door::Door;
use serde_json::json;

use super::Fleet;
use crate::agenda::Event;
use crate::check::Rule;
use crate::ground::Ground;
use crate::store::{Id, Kind, Refusal};
use crate::story::{Field, Happening};

/// A drain asks again after this long.
const EVICT_MS: i64 = 5_000;
/// Label of machines with GPUs.
const GPUS: &str = "nvidia.com/gpu.present";

impl Fleet {
    /// The owner edits the deployment.
    pub(super) fn edit(&mut self, door: &mut Door<'_>, field: Field, value: u32) {
        let id = Id::new(Kind::ModelDeployment, crate::NAMESPACE, crate::DEPLOYMENT);
        let spares = self.ground.plan.spares;
        let edited = self.ground.store.edit(&id, |deployment| {
            let spec = &mut deployment["spec"];
            match field {
                Field::Image => spec["engine"]["image"] = json!(format!("gonka.local/engine:v{value}")),
                Field::Model => spec["model"]["revision"] = json!(format!("public-tiny-v{}", value + 1)),
                Field::Argument => spec["engine"]["native"]["maxNoncesPerSecond"] = json!(1_000 + value),
                Field::Spares => spec["spares"] = json!(i64::from(spares) + i64::from(value % 2)),
            }
        });
        if edited.is_ok() {
            self.ground.tell(door);
        }
    }

    /// A machine takes no more pods, or takes them again.
    pub(super) fn cordon(&mut self, door: &mut Door<'_>, machine: u32, on: bool) {
        let id = Id::new(Kind::Node, "", &format!("n{machine}"));
        let edited = self.ground.store.edit(&id, |node| {
            if on {
                node["spec"]["unschedulable"] = json!(true);
            } else if let Some(spec) = node["spec"].as_object_mut() {
                spec.remove("unschedulable");
            }
        });
        if edited.is_ok() {
            self.ground.tell(door);
        }
    }

    /// A drain asks for the eviction of what runs on its machine. Nothing of ours may go.
    pub(super) fn evict(&mut self, door: &mut Door<'_>, place: usize) {
        let now_ms = Ground::now(door);
        let Some((machine, ends_ms)) = self.story.get(place).and_then(|moment| match moment.what {
            Happening::Drained { machine, millis } => Some((machine, moment.at + millis)),
            _ => None,
        }) else {
            return;
        };
        let elapsed_ms = now_ms - self.ground.checks.started_ms;
        if elapsed_ms >= ends_ms {
            return;
        }
        self.ground.agenda.after(door, EVICT_MS, Event::Evict { place });
        if !self.ground.api_answers() {
            return;
        }
        let name = format!("n{machine}");
        let here = self.ground.cluster.pods.values().filter(|life| life.machine == name);
        let pods: Vec<Id> = here.map(|life| life.id.clone()).collect();
        for id in pods {
            match self.ground.store.evict(&id, now_ms) {
                Err(Refusal::Budget(_)) => self.ground.checks.evictions += 1,
                Err(_) => {}
                Ok(()) => {
                    let what = format!("{} was evicted", id.name);
                    self.ground.checks.violated(now_ms, Rule::Gate, what);
                    self.ground.tell(door);
                }
            }
        }
    }

    /// Every machine's label comes off, or comes back.
    pub(super) fn label_all(&mut self, door: &mut Door<'_>, on: bool) {
        let machines: Vec<Id> = self.ground.store.list(Kind::Node).map(|(id, _)| id.clone()).collect();
        for id in machines {
            // Machines are never removed.
            let _there = self.ground.store.edit(&id, |node| {
                if on {
                    node["metadata"]["labels"][GPUS] = json!("true");
                } else if let Some(labels) = node["metadata"]["labels"].as_object_mut() {
                    labels.remove(GPUS);
                }
            });
        }
        self.ground.tell(door);
    }
}
