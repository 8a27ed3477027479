//! Rule `RecoveryAction`: what the driver itself asks for. It knows more than any table of ours, and it takes it back.

use super::{Found, Subject};
use crate::agent::observe::gpu::RecoveryAction;

const RULE: &str = "RecoveryAction";

/// The driver must ask for nothing.
pub fn check(subject: &Subject<'_>, found: &mut Vec<Found>) {
    let Some(action) = subject.slow().and_then(|slow| slow.recovery_action) else {
        return;
    };
    found.extend(match action {
        RecoveryAction::None | RecoveryAction::Other => None,
        RecoveryAction::GpuReset => Some(Found::blocking(RULE, "the driver asks for a reset of the GPU")),
        RecoveryAction::NodeReboot => Some(Found::blocking(RULE, "the driver asks for a reboot of the machine")),
        RecoveryAction::DrainP2p => Some(Found::blocking(
            RULE,
            "the driver asks to stop peer-to-peer traffic of the GPU, then to reset it",
        )),
        RecoveryAction::DrainAndReset => Some(Found::degraded(
            RULE,
            "the GPU works; the driver asks to drain and reset it when convenient",
        )),
    });
}
