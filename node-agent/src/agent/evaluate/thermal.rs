//! Rules `Overheating`, `MemoryOverheating`. Messages name the limit and not the temperature: it changes each second.

use super::{Found, Subject};

/// Temperatures must be below the limits the GPU itself names.
pub fn check(subject: &Subject<'_>, found: &mut Vec<Found>) {
    let (Some(sample), Some(slow)) = (subject.sample, subject.slow()) else {
        return;
    };
    if let Some(limit) = reached(sample.fast.temperature_celsius, slow.slowdown_celsius) {
        found.push(Found::slowed(
            "Overheating",
            format!("the die is at {limit} C or above, where the hardware slows down; check cooling"),
        ));
    }
    if let Some(limit) = reached(sample.fast.memory_temperature_celsius, slow.memory_max_celsius) {
        found.push(Found::slowed(
            "MemoryOverheating",
            format!("the memory is at its limit of {limit} C or above; check cooling"),
        ));
    }
}

fn reached(temperature: Option<u32>, limit: Option<u32>) -> Option<u32> {
    match (temperature, limit) {
        (Some(temperature), Some(limit)) if limit > 0 && temperature >= limit => Some(limit),
        _ => None,
    }
}
