//! Rule `PcieDegraded`: the link to the host is narrower or slower than GPU and slot allow.

use super::{Found, Subject};

/// The link must be as wide as it can be, and as fast while the GPU works: an idle link may save power.
pub fn check(subject: &Subject<'_>, found: &mut Vec<Found>) {
    let (Some(sample), Some(pcie)) = (subject.sample, subject.slow().and_then(|slow| slow.pcie.as_ref())) else {
        return;
    };
    let narrow = below(pcie.width, pcie.max_width);
    let busy = sample.fast.utilization_percent.is_some_and(|percent| percent > 0);
    let slow = below(pcie.generation, pcie.max_generation).filter(|_| busy || narrow.is_some());
    let parts: Vec<String> = [
        narrow.map(|(now, best)| format!("{now} of {best} lanes")),
        slow.map(|(now, best)| format!("generation {now} of {best}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !parts.is_empty() {
        found.push(Found::degraded(
            "PcieDegraded",
            format!("the link to the host runs with {}; reseat the GPU", parts.join(", ")),
        ));
    }
}

fn below(now: Option<u32>, best: Option<u32>) -> Option<(u32, u32)> {
    now.zip(best).filter(|(now, best)| now < best)
}
