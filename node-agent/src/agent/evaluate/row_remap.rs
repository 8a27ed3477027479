//! Rules `RowRemapFailure`, `RowRemapPending`.

use super::{Found, Subject};

/// Bad rows of memory must have been replaced.
pub fn check(subject: &Subject<'_>, found: &mut Vec<Found>) {
    let Some(rows) = subject.slow().and_then(|slow| slow.row_remap.as_ref()) else {
        return;
    };
    if rows.failure == Some(true) {
        found.push(Found::blocking(
            "RowRemapFailure",
            "a bad row of memory found no spare row; the GPU has to be replaced",
        ));
    }
    if rows.pending == Some(true) {
        found.push(Found::degraded(
            "RowRemapPending",
            "a bad row of memory is set aside and waits for a reset to be replaced",
        ));
    }
}
