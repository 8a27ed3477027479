//! Rules `HwThermalSlowdown`, `HwPowerBrake`, `HwSlowdown`, `SwThermalSlowdown`, `SyncBoost`: clocks held back for a while.
//! Rules `ClocksLimited`, `PowerLimited`: somebody set them lower. The power cap is no finding: it is normal under load.

use super::{Found, Subject};
use crate::agent::observe::gpu::ClocksEventReason;
use crate::agent::observe::seconds_between;

const SUSTAINED: [(ClocksEventReason, &str, &str); 5] = [
    (
        ClocksEventReason::HwThermalSlowdown,
        "HwThermalSlowdown",
        "the hardware halves its clocks for heat; check cooling",
    ),
    (
        ClocksEventReason::HwPowerBrakeSlowdown,
        "HwPowerBrake",
        "the power supply makes the GPU slow down; check power feeds",
    ),
    (
        ClocksEventReason::HwSlowdown,
        "HwSlowdown",
        "the hardware halves its clocks; check power and cooling",
    ),
    (
        ClocksEventReason::SwThermalSlowdown,
        "SwThermalSlowdown",
        "the driver lowers clocks for heat; check cooling",
    ),
    (
        ClocksEventReason::SyncBoost,
        "SyncBoost",
        "another GPU of its sync group holds it back; look at the others",
    ),
];

/// Clocks must not be held back for longer than the policy bears.
pub fn check(subject: &Subject<'_>, found: &mut Vec<Found>) {
    for (reason, rule, message) in SUSTAINED {
        let Some(since) = subject.known.slowed_since.get(&reason) else {
            continue;
        };
        if seconds_between(since, subject.now) >= f64::from(subject.policy.slowdown_seconds) {
            found.push(Found::slowed(rule, message));
        }
    }
}

/// Nobody may have set lower clocks or less power.
pub fn check_limits(subject: &Subject<'_>, found: &mut Vec<Found>) {
    let reasons = subject
        .sample
        .and_then(|sample| sample.fast.clocks_event_reasons.as_ref());
    if reasons.is_some_and(|reasons| reasons.contains(&ClocksEventReason::ApplicationsClocksSetting)) {
        found.push(Found::slowed(
            "ClocksLimited",
            "somebody set lower clocks; undo it with nvidia-smi --reset-applications-clocks and --reset-gpu-clocks",
        ));
    }
    let Some(limit) = subject.slow().and_then(|slow| slow.power_limit) else {
        return;
    };
    if limit.enforced_milliwatts < limit.default_milliwatts {
        found.push(Found::slowed(
            "PowerLimited",
            format!(
                "the power limit is {} W, delivered with {} W",
                limit.enforced_milliwatts / 1000,
                limit.default_milliwatts / 1000
            ),
        ));
    }
}
