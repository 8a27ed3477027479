//! What this process hears of the API server: changes, lists, and watches that break.

use crds::ModelDeploymentStatus;
use network_simulator::virtual_time::door::Door;

use super::{Controller, Operator};
use crate::agenda::Event;
use crate::cache::list_of;
use crate::ground::Ground;
use crate::store::{self, Kind};

impl Operator {
    /// A watch tells.
    pub fn told(&mut self, ground: &mut Ground, door: &mut Door<'_>, change: &store::Event) {
        if !self.leads || self.broken.contains(&change.id.kind) {
            return;
        }
        if self.caches.take(&change.id, change.value.as_deref()) {
            self.touched(ground, door, change.id.kind);
        } else {
            self.touched_beside(ground, door, change.id.kind);
        }
    }

    /// A status changed where no deployment depends on it.
    fn touched_beside(&mut self, ground: &mut Ground, door: &mut Door<'_>, kind: Kind) {
        match kind {
            Kind::SprintSchedule => self.wake(ground, door, Controller::Schedule, 1),
            Kind::GonkaHost => self.wake(ground, door, Controller::Host, 300),
            _ => {}
        }
        self.wake(ground, door, Controller::Records, 200);
    }

    fn touched(&mut self, ground: &mut Ground, door: &mut Door<'_>, kind: Kind) {
        match kind {
            Kind::SprintSchedule => {
                self.take_spec();
                self.wake(ground, door, Controller::Schedule, 1);
                self.wake(ground, door, Controller::Deployment, 50);
                self.wake(ground, door, Controller::Records, 200);
            }
            Kind::GonkaHost | Kind::ModelDeployment => {
                self.wake(ground, door, Controller::Host, 300);
                self.wake(ground, door, Controller::Deployment, 50);
                self.wake(ground, door, Controller::Records, 200);
            }
            Kind::SprintRun => {
                let mut deployments = self.caches.deployments.values();
                let waits = |status: &ModelDeploymentStatus| status.rollout.is_some();
                if deployments.any(|deployment| deployment.status.as_ref().is_some_and(waits)) {
                    self.wake(ground, door, Controller::Deployment, 50);
                }
                self.wake(ground, door, Controller::Host, 300);
                self.wake(ground, door, Controller::Records, 200);
            }
            Kind::Node => {
                self.wake(ground, door, Controller::GpuNode, 500);
                self.wake(ground, door, Controller::Deployment, 50);
            }
            Kind::GpuNode
            | Kind::Pod
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::PodDisruptionBudget
            | Kind::ControllerRevision
            | Kind::ServiceAccount
            | Kind::ConfigMap => self.wake(ground, door, Controller::Deployment, 50),
            Kind::NodeHealthCheck => {}
        }
    }

    /// A watch lists again: what it missed is seen now.
    pub fn relist(&mut self, ground: &mut Ground, door: &mut Door<'_>, kind: Kind) {
        if !self.leads {
            return;
        }
        if !ground.api_answers() {
            self.broken.insert(kind);
            let life = self.life;
            ground.agenda.after(door, 2_000, Event::Relist { life, kind });
            return;
        }
        self.broken.remove(&kind);
        ground.checks.unheard.retain(|id| id.kind != kind);
        let list = list_of(&ground.store, kind, ground.list_version());
        self.caches.replace(kind, &list);
        self.touched(ground, door, kind);
        if ground.list_version().is_some() {
            let life = self.life;
            ground.agenda.after(door, 5_000, Event::Relist { life, kind });
        }
    }

    /// Every watch breaks: the API server went away.
    pub fn cut_off(&mut self, ground: &mut Ground, door: &mut Door<'_>) {
        if !self.leads {
            return;
        }
        for kind in Kind::watched() {
            self.broken.insert(kind);
            let life = self.life;
            ground.agenda.after(door, 2_000, Event::Relist { life, kind });
        }
    }

    /// When a change reaches this process: watches of a kind keep their order.
    pub fn tell_at(&mut self, kind: Kind, at_ms: i64) -> i64 {
        let last = self.told_ms.entry(kind).or_default();
        *last = at_ms.max(*last);
        *last
    }
}
