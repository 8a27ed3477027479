//! Rules `EccUncorrectable`, `EccDisabled`. Aggregate counts are history; the row remapper says what they led to.

use super::{Found, Subject};

/// No uncorrectable error since the last reset, and ECC on.
pub fn check(subject: &Subject<'_>, found: &mut Vec<Found>) {
    let Some(ecc) = subject.slow().and_then(|slow| slow.ecc.as_ref()) else {
        return;
    };
    match ecc.volatile_uncorrected {
        Some(count) if count > 0 => found.push(Found::blocking(
            "EccUncorrectable",
            format!(
                "{count} uncorrectable memory errors since the last reset; results cannot be trusted, reset the GPU"
            ),
        )),
        _ => {}
    }
    if !ecc.mode.current {
        let after = if ecc.mode.pending {
            "; it comes on with the next reset"
        } else {
            ""
        };
        found.push(Found::degraded(
            "EccDisabled",
            format!("ECC is off: memory errors stay unseen{after}"),
        ));
    }
}
