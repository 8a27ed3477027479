//! Pace of blocks: exponentially weighted mean and variance of header times. Pure.

use serde::{Deserialize, Serialize};

use crate::facts::Pace;

/// Weight of a new sample once enough were seen.
const WEIGHT: f64 = 0.05;
/// A gap longer than this many means is a halt, not a pace.
const HALT: f64 = 10.0;
/// Spread assumed at the first sample, as part of the mean.
const FIRST_SPREAD: f64 = 0.2;

/// What is kept between blocks.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PaceMemory {
    /// Mean, milliseconds per block.
    pub mean: f64,
    /// Variance, milliseconds squared.
    pub variance: f64,
    /// Samples seen.
    pub samples: u64,
}

impl PaceMemory {
    /// After `blocks` blocks that took `millis` in all.
    #[must_use]
    pub fn advanced(self, blocks: i64, millis: i64) -> Self {
        if blocks <= 0 || millis < 0 {
            return self;
        }
        let sample = millis as f64 / blocks as f64;
        if self.samples == 0 {
            let spread = FIRST_SPREAD * sample;
            return Self {
                mean: sample,
                variance: spread * spread,
                samples: 1,
            };
        }
        let sample = sample.min(HALT * self.mean.max(1.0));
        let weight = (1.0 / (self.samples + 1) as f64).max(WEIGHT);
        let off = sample - self.mean;
        let mean = self.mean + weight * off;
        // A sample over several blocks hides their spread: their mean varies by 1/n of it.
        let variance = (1.0 - weight) * (self.variance + weight * off * off * blocks.min(64) as f64);
        Self {
            mean,
            variance,
            samples: self.samples.saturating_add(1),
        }
    }

    /// As published.
    pub fn pace(self) -> Pace {
        if self.samples == 0 || !self.mean.is_finite() || !self.variance.is_finite() {
            return Pace::default();
        }
        Pace {
            block_millis: self.mean,
            spread_millis: self.variance.max(0.0).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settles_on_the_mean_and_the_spread() {
        let mut pace = PaceMemory::default();
        for block in 0..400 {
            pace = pace.advanced(1, if block % 2 == 0 { 5200 } else { 4800 });
        }
        assert!((pace.mean - 5000.0).abs() < 20.0, "{}", pace.mean);
        assert!((pace.variance.sqrt() - 200.0).abs() < 20.0, "{}", pace.variance.sqrt());
    }

    #[test]
    fn a_halt_of_hours_moves_the_mean_by_less_than_half() {
        let mut pace = PaceMemory::default();
        for _ in 0..100 {
            pace = pace.advanced(1, 5000);
        }
        let after = pace.advanced(1, 3 * 3_600_000);
        assert!(after.mean < 7500.0, "{}", after.mean);
    }

    #[test]
    fn clocks_that_run_backwards_are_ignored() {
        let pace = PaceMemory::default().advanced(1, 5000);
        assert_eq!(pace.advanced(1, -5), pace);
        assert_eq!(pace.advanced(0, 5), pace);
        assert_eq!(PaceMemory::default().pace(), Pace::default());
    }
}
