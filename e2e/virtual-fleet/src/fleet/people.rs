//! What people and their tools do to the fleet's objects: edits, cordons, labels, switches.

use network_simulator::virtual_time::door::Door;
use serde_json::json;

use super::Fleet;
use crate::ground::Ground;
use crate::store::{Id, Kind, time};
use crate::story::{Field, Protected};

/// Label of machines with GPUs.
const GPUS: &str = "nvidia.com/gpu.present";

impl Fleet {
    /// The owner edits the deployment.
    pub(super) fn edit(&mut self, door: &mut Door<'_>, deployment: usize, field: Field, value: u32) {
        let Some(plan) = self.ground.plan.deployments().into_iter().nth(deployment) else {
            return;
        };
        let id = Id::new(Kind::ModelDeployment, crate::NAMESPACE, &plan.name);
        let spares = plan.spares;
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

    /// A stranger's program sets a switch of a machine.
    pub(super) fn set_switch(&mut self, door: &mut Door<'_>, machine: u32, switch: usize, value: Option<&str>) {
        let ground = &mut self.ground;
        let machine = format!("n{machine}");
        if ground.strangers.set(&mut ground.store, &machine, switch, value).is_ok() {
            ground.checks.machines.flipped += 1;
            ground.tell(door);
        }
    }

    /// A stranger pauses every health check, or goes on.
    pub(super) fn pause_checks(&mut self, door: &mut Door<'_>, place: usize, on: bool) {
        let ground = &mut self.ground;
        let who = format!("somebody of moment {place}");
        if ground.strangers.pause(&mut ground.store, &who, on).is_ok() {
            ground.tell(door);
        }
    }

    /// Somebody writes why an object is not to be protected for a while, and leaves it at that.
    pub(super) fn break_glass(&mut self, door: &mut Door<'_>, kind: Protected, place: u32) {
        let Ok(kind) = <&str>::from(kind).parse::<Kind>() else {
            return;
        };
        let all: Vec<Id> = self.ground.store.list(kind).map(|(id, _)| id.clone()).collect();
        if let Some(id) = all.get(place as usize % all.len().max(1)) {
            self.annotate(door, id, crds::labels::BREAK_GLASS);
        }
    }

    /// Somebody lets happen what the breaker holds.
    pub(super) fn rearm(&mut self, door: &mut Door<'_>) {
        let host = Id::new(Kind::GonkaHost, crate::NAMESPACE, crate::HOST);
        self.annotate(door, &host, crds::labels::REARM);
    }

    fn annotate(&mut self, door: &mut Door<'_>, id: &Id, annotation: &str) {
        let reason = format!("a person looked at {}", time(Ground::now(door)));
        let edited = self.ground.store.edit(id, |object| {
            object["metadata"]["annotations"][annotation] = json!(reason);
        });
        if edited.is_ok() {
            self.ground.checks.machines.set_aside += 1;
            self.ground.tell(door);
        }
    }
}
