//! What a decision asked for is written: counted, judged, and maybe the last thing this process does.

use network_simulator::virtual_time::door::Door;
use operator::change::Change;

use super::{Controller, Failure, Operator, manager};
use crate::ground::{Ground, WriteError, deleted_pod};

impl Operator {
    /// One write, counted: the process may end with it.
    pub(super) fn write(
        &mut self,
        ground: &mut Ground,
        door: &mut Door<'_>,
        controller: Controller,
        change: Change,
    ) -> Result<(), Failure> {
        self.try_write(ground, door, controller, change).map_err(|error| {
            if error == WriteError::Died {
                Failure::Died
            } else {
                Failure::Again
            }
        })
    }

    /// The same; says why it came to nothing.
    pub(super) fn try_write(
        &mut self,
        ground: &mut Ground,
        door: &mut Door<'_>,
        controller: Controller,
        change: Change,
    ) -> Result<(), WriteError> {
        if matches!(change, Change::Event(_)) {
            ground.note(door, &crate::ground::shown(&change));
            return Ok(());
        }
        self.judge(ground, door, &change);
        ground.checks.writes += 1;
        let written = ground.write(door, &manager(controller), change);
        if let Some((left, away_ms)) = &mut self.dies {
            *left = left.saturating_sub(1);
            if *left == 0 {
                let away_ms = *away_ms;
                self.die(ground, door, away_ms);
                return Err(WriteError::Died);
            }
        }
        if let Err(error) = &written {
            ground.note(door, &format!("write failed: {error:?}"));
        }
        written
    }

    fn judge(&self, ground: &mut Ground, door: &Door<'_>, change: &Change) {
        let facts = || self.facts().cloned();
        if deleted_pod(change).is_some() {
            ground.check_deletion(door, change, facts().as_deref());
        }
        if let Some(machine) = crate::check::machines::released_by(change) {
            ground.check_release(door, machine, facts().as_deref());
        }
    }
}
