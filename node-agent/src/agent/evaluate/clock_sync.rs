//! Condition ClockSynced: this machine's clock against the API server's, as far as whole seconds tell.

use crds::conditions::{ConditionStatus, Reason};

use super::Judgement;
use crate::agent::observe::{Sample, seconds_between};
use crate::agent::policy::Policy;

/// A comparison older than this says nothing; it is made anew with every write and every look at the spec.
const OLD_SECONDS: f64 = 1800.0;

/// The distance must be bearable even at its largest.
pub fn check(sample: &Sample, policy: &Policy) -> Judgement {
    let recent = sample
        .clock
        .as_ref()
        .filter(|clock| seconds_between(&clock.taken_at, &sample.now) <= OLD_SECONDS);
    let Some(clock) = recent else {
        return Judgement::new(
            ConditionStatus::Unknown,
            Reason::Pending,
            "the clock was not compared with the API server's in the last half hour",
        );
    };
    let least = clock.offset_millis.abs() - clock.error_millis;
    if least > i64::from(policy.clock_offset_millis) {
        let direction = if clock.offset_millis > 0 { "ahead of" } else { "behind" };
        return Judgement::new(
            ConditionStatus::False,
            Reason::ClockOff,
            format!(
                "the clock is more than {} ms {direction} the API server's; check the time service of both",
                policy.clock_offset_millis
            ),
        );
    }
    Judgement::good("the clock agrees with the API server's to the second")
}
