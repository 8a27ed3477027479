//! One pass over all machines: stores as they are, decided by the operator, written machine by machine. In its own cadence: nobody
//! wakes it.

use std::sync::Arc;

use kube::api::DynamicObject;
use network_simulator::virtual_time::door::Door;
use operator::change::Change;
use operator::facts::Facts;
use operator::machine::decide::decide;
use operator::machine::observe::{Lists, assemble};
use operator::machine::{CHECKS_PERIOD, PERIOD, WAITING_PERIOD};

use super::{Controller, Failure, Operator};
use crate::cache::list_of;
use crate::ground::{Ground, WriteError};
use crate::store::{Kind, Refusal, Store};

/// NodeHealthChecks as they were listed last.
#[derive(Debug, Default)]
pub(super) struct HealthChecks {
    known: Vec<DynamicObject>,
    read_ms: Option<i64>,
}

fn health_checks(store: &Store, at: Option<u64>) -> Vec<DynamicObject> {
    let list = list_of(store, Kind::NodeHealthCheck, at);
    list.iter()
        .filter_map(|(_, value)| serde_json::from_value(Clone::clone(value.as_ref())).ok())
        .collect()
}

impl Operator {
    /// Milliseconds until the next look.
    pub(super) fn pass_machines(&mut self, ground: &mut Ground, door: &mut Door<'_>) -> Result<i64, Failure> {
        let now_ms = Ground::now(door);
        self.list_checks(ground, now_ms);
        let lists = self.machine_lists(self.checks.known.clone());
        if self.settled.covers(&lists) {
            return Ok(PERIOD.as_millis() as i64);
        }
        self.read_before(ground, door, now_ms);
        let facts = self.facts().cloned().unwrap_or_default();
        let decision = self
            .settled
            .decide(lists, &|schedule| of_schedule(&facts, schedule), now_ms);
        if decision.writes_checks() {
            self.checks.read_ms = None;
        }
        let period = if decision.waiting { WAITING_PERIOD } else { PERIOD };
        let mut failed = false;
        for changes in decision.writes.into_values() {
            failed |= self.write_machine(ground, door, changes)?;
        }
        if failed {
            Err(Failure::Again)
        } else {
            Ok(period.as_millis() as i64)
        }
    }

    /// One machine's writes in their order, up to the first that fails. True: something failed, and not because it was seen late.
    fn write_machine(
        &mut self,
        ground: &mut Ground,
        door: &mut Door<'_>,
        changes: Vec<Change>,
    ) -> Result<bool, Failure> {
        for change in changes {
            match self.try_write(ground, door, Controller::Machine, change) {
                Ok(()) => {}
                Err(WriteError::Died) => return Err(Failure::Died),
                Err(WriteError::Refused(Refusal::Conflict(_))) => return Ok(false),
                Err(WriteError::Refused(_) | WriteError::Silent) => return Ok(true),
            }
        }
        Ok(false)
    }

    fn list_checks(&mut self, ground: &Ground, now_ms: i64) {
        let period_ms = CHECKS_PERIOD.as_millis() as i64;
        if self.checks.read_ms.is_some_and(|read| now_ms - read < period_ms) {
            return;
        }
        self.checks.read_ms = Some(now_ms);
        if ground.api_answers() {
            self.checks.known = health_checks(&ground.store, ground.list_version());
        }
    }

    fn machine_lists(&self, checks: Vec<DynamicObject>) -> Lists {
        let caches = &self.caches;
        Lists {
            nodes: caches.nodes.values().cloned().collect(),
            gpu_nodes: caches.gpu_nodes.values().cloned().collect(),
            pods: caches.pods.values().cloned().collect(),
            slices: caches.slices.values().cloned().collect(),
            deployments: caches.deployments.values().cloned().collect(),
            hosts: caches.hosts.values().cloned().collect(),
            schedules: caches.schedules.values().cloned().collect(),
            checks,
        }
    }

    /// What a pass over machines would write now.
    pub(super) fn would_write_to_machines(&self, ground: &Ground, now_ms: i64) -> Vec<String> {
        let facts = self.facts().cloned().unwrap_or_default();
        let lists = self.machine_lists(health_checks(&ground.store, None));
        let decision = decide(&assemble(&lists, &|schedule| of_schedule(&facts, schedule), now_ms));
        decision.writes.values().flatten().map(crate::ground::shown).collect()
    }
}

fn of_schedule(facts: &Arc<Facts>, schedule: &str) -> Arc<Facts> {
    if facts.schedule == schedule {
        facts.clone()
    } else {
        Arc::default()
    }
}
