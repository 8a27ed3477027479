//! Box 3: whether the newest GPU reading says anything about now.

use crate::agent::observe::Sample;
use crate::agent::observe::gpu::{GpuReading, Library};
use crate::agent::policy::Policy;

/// What the newest GPU reading is worth.
#[derive(Clone, Copy, Debug)]
pub enum Freshness<'a> {
    /// There is none yet, and it is too early to complain.
    Pending,
    /// It is too old, or none came in time: NVML does not return.
    Stale,
    /// It is new, and there is no library.
    Absent(&'a str),
    /// It is new, and the library fails as a whole.
    Failing(&'a str, &'a str),
    /// It is new and shows the GPUs.
    Fresh(&'a GpuReading),
}

/// Judges the newest reading by its age and its library.
pub fn freshness<'a>(sample: &'a Sample, policy: &Policy) -> Freshness<'a> {
    if sample.gpu_age_seconds() > f64::from(policy.stale_seconds) {
        return Freshness::Stale;
    }
    match sample.gpus.as_deref() {
        None => Freshness::Pending,
        Some(reading) => match &reading.library {
            Library::Absent { error } => Freshness::Absent(error),
            Library::Failing { call, error } => Freshness::Failing(call, error),
            Library::Present { .. } => Freshness::Fresh(reading),
        },
    }
}
