//! Rules `MigEnabled`, `MigPending`: exams need whole GPUs.

use super::{Found, Subject};

/// MIG must be off and stay off.
pub fn check(subject: &Subject<'_>, found: &mut Vec<Found>) {
    let Some(mode) = subject.slow().and_then(|slow| slow.mig) else {
        return;
    };
    if mode.current {
        found.push(Found::blocking(
            "MigEnabled",
            "MIG is on: the GPU is cut into parts; switch it off and reset the GPU",
        ));
    }
    if mode.current != mode.pending {
        found.push(Found::degraded(
            "MigPending",
            "MIG changes with the next reset of the GPU",
        ));
    }
}
