//! Delay after failures: a pure step function with cap and jitter, reset by success.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;

const FIRST: Duration = Duration::from_secs(1);
const CAP: Duration = Duration::from_secs(300);

/// Delay after `failures` failures in a row (1 = the first). `jitter` in 0..1 spreads it by ±20 %.
pub fn delay(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let base = FIRST.saturating_mul(1 << doublings).min(CAP);
    base.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
}

/// A spread that differs between objects and needs no random source: from the object's own name and its failures.
pub fn jitter(key: &str, failures: u32) -> f64 {
    let hash = key.bytes().fold(0x811c_9dc5_u32 ^ failures, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    f64::from(hash) / f64::from(u32::MAX)
}

/// Delay of one of many after its `failures` failures in a row.
pub fn wait(key: &str, failures: u32) -> Duration {
    delay(failures, jitter(key, failures))
}

/// Failures in a row, by object, and a gauge of how many objects fail.
#[derive(Debug)]
pub struct Failures {
    counts: Mutex<BTreeMap<String, u32>>,
    failing: IntGauge,
}

impl Failures {
    /// None yet; `failing` shows how many objects there are whose newest pass failed.
    pub fn new(failing: IntGauge) -> Self {
        failing.set(0);
        Self {
            counts: Mutex::default(),
            failing,
        }
    }

    /// One more of this object: how many there are now.
    pub fn another(&self, key: &str) -> u32 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.to_owned()).or_default();
        *count = count.saturating_add(1);
        let count = *count;
        self.show(&counts);
        count
    }

    /// It succeeded, or it is gone.
    pub fn over(&self, key: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.remove(key).is_some() {
            self.show(&counts);
        }
    }

    fn show(&self, counts: &BTreeMap<String, u32>) {
        self.failing.set(i64::try_from(counts.len()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_from_one_second_and_stops_at_five_minutes() {
        assert_eq!(delay(1, 0.5), Duration::from_secs(1));
        assert_eq!(delay(4, 0.5), Duration::from_secs(8));
        assert_eq!(delay(40, 0.5), Duration::from_secs(300));
    }

    #[test]
    fn failures_count_by_object_and_success_ends_them() {
        let gauge = IntGauge::new("failing", "objects").expect("a gauge");
        let failures = Failures::new(gauge.clone());
        assert_eq!(
            (failures.another("a"), failures.another("a"), failures.another("b")),
            (1, 2, 1)
        );
        assert_eq!(gauge.get(), 2);
        failures.over("a");
        assert_eq!(gauge.get(), 1);
        assert_eq!((failures.another("a"), failures.another("b")), (1, 2));
    }

    #[test]
    fn jitter_spreads_by_a_fifth_each_way() {
        assert_eq!(delay(40, 0.0), Duration::from_secs(240));
        assert_eq!(delay(40, 1.0), Duration::from_secs(360));
        assert_ne!(jitter("a/b", 1).to_bits(), jitter("a/c", 1).to_bits());
    }
}
