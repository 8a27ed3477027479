//! The two small controllers: the schedule's status, and an object for each machine.

use network_simulator::virtual_time::door::Door;
use operator::change::Change;
use operator::gpu_node::observe::Observed as Machines;
use operator::sprint_schedule::observe::Observed;
use operator::sprint_schedule::{decide, written_status};

use super::{Controller, Failure, Operator};
use crate::ground::Ground;

/// A schedule's status follows facts; without news it is looked at this often.
const QUIET_MS: i64 = 60_000;

impl Operator {
    pub(super) fn pass_schedule(&mut self, ground: &mut Ground, door: &mut Door<'_>) -> Result<i64, Failure> {
        let now_ms = Ground::now(door);
        let schedule = self.caches.schedules.values().next().cloned();
        let (Some(schedule), Some(facts)) = (schedule, self.facts().cloned()) else {
            return Ok(QUIET_MS);
        };
        let observed = Observed {
            object: Some(schedule.as_ref().clone()),
            invalid: None,
            previous: self.past.previous.clone(),
            facts: facts.as_ref().clone(),
            written_ms: self.past.written_ms,
            now_ms,
        };
        let changes: Vec<Change> = decide::decide(&observed);
        if changes.is_empty() {
            return Ok(QUIET_MS);
        }
        let previous = changes.iter().find_map(written_status);
        for change in changes {
            self.write(ground, door, Controller::Schedule, change)?;
        }
        self.past.written_ms = Some(now_ms);
        self.past.previous = previous;
        Ok(QUIET_MS)
    }

    pub(super) fn pass_gpu_nodes(&mut self, ground: &mut Ground, door: &mut Door<'_>) -> Result<i64, Failure> {
        if !ground.api_answers() {
            return Err(Failure::Again);
        }
        let (with_gpus, known) = self.caches.machines();
        let observed = Machines {
            gpu_nodes: with_gpus.into_iter().cloned().collect(),
            known: known.into_iter().cloned().collect(),
            agent_template: None,
            agent: None,
        };
        for change in operator::gpu_node::decide::decide(&observed) {
            self.write(ground, door, Controller::GpuNode, change)?;
        }
        Ok(i64::try_from(self.settings.resync_seconds).unwrap_or(60) * 1000)
    }
}
