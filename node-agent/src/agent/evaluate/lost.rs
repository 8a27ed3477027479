//! Rules `FallenOffBus`, `ResetRequired`, `Unreadable`: whether the GPU answers at all.

use super::{Found, Subject};
use crate::agent::observe::gpu::GpuState;

/// The GPU must answer, and one that was seen must still be there.
pub fn check(subject: &Subject<'_>, found: &mut Vec<Found>) {
    if subject.known.lost_since.is_some() {
        found.push(Found::blocking(
            "FallenOffBus",
            "the GPU was seen since boot and is gone; drain the machine and power-cycle it, replace the GPU if it goes again",
        ));
        return;
    }
    let Some(sample) = subject.sample else { return };
    match sample.state {
        GpuState::Ok | GpuState::Lost => {}
        GpuState::ResetRequired => found.push(Found::blocking(
            "ResetRequired",
            "the GPU refuses work until it is reset; stop its workloads and reset it",
        )),
        GpuState::Unreadable => found.push(Found::blocking(
            "Unreadable",
            match sample.errors.first() {
                Some(first) => format!("every NVML call fails, {} with {}", first.call, first.error),
                None => "no NVML call succeeds".to_owned(),
            },
        )),
    }
}
