//! One pass over what protects: marks of what slots live by, and what people set aside for a while. In its own cadence.

use network_simulator::virtual_time::door::Door;
use operator::protection::PERIOD;
use operator::protection::decide::{Observed, decide};
use operator::protection::observe::{Lists, marks, targets, watched};

use super::{Controller, Failure, Operator};
use crate::ground::{Ground, WriteError};

impl Operator {
    /// Milliseconds until the next look. What fails is looked at again then: there is no back-off.
    pub(super) fn pass_protection(&mut self, ground: &mut Ground, door: &mut Door<'_>) -> Result<i64, Failure> {
        let observed = self.observe_protection(Ground::now(door));
        for change in decide(&observed).changes {
            // Each is of another object.
            if self.try_write(ground, door, Controller::Protection, change) == Err(WriteError::Died) {
                return Err(Failure::Died);
            }
        }
        Ok(PERIOD.as_millis() as i64)
    }

    fn observe_protection(&self, now_ms: i64) -> Observed {
        let caches = &self.caches;
        let lists = Lists {
            pods: caches.pods.values().cloned().collect(),
            services: caches.services.values().cloned().collect(),
            nodes: caches.nodes.values().cloned().collect(),
            gpu_nodes: caches.gpu_nodes.values().cloned().collect(),
            deployments: caches.deployments.values().cloned().collect(),
            hosts: caches.hosts.values().cloned().collect(),
            schedules: caches.schedules.values().cloned().collect(),
        };
        Observed {
            now_ms,
            broken_millis: i64::from(self.settings.break_glass_seconds) * 1000,
            broken: watched(&lists),
            marks: marks(&lists),
            targets: targets(&lists),
            ..Observed::default()
        }
    }

    /// What a pass over marks and seals would write now.
    pub(super) fn would_write_to_protect(&self, now_ms: i64) -> Vec<String> {
        let changes = decide(&self.observe_protection(now_ms)).changes;
        changes.iter().map(crate::ground::shown).collect()
    }
}
