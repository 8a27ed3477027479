//! Decide: how many nonces per second, over the last ten seconds. Pure; the clock is an argument.

use std::collections::VecDeque;

/// Length of the window.
const WINDOW_MS: i64 = 10_000;
/// Entries closer together than this are merged, so that the memory stays small.
const MERGE_MS: i64 = 100;

/// Counts per moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateMeter {
    counts: VecDeque<(i64, u64)>,
    since_ms: Option<i64>,
}

impl RateMeter {
    /// Notes `count` nonces at `now_ms`.
    pub fn record(&mut self, now_ms: i64, count: u64) {
        self.since_ms.get_or_insert(now_ms);
        match self.counts.back_mut() {
            Some((at, sum)) if now_ms - *at < MERGE_MS => *sum += count,
            _ => self.counts.push_back((now_ms, count)),
        }
        while self.counts.front().is_some_and(|(at, _)| now_ms - at > WINDOW_MS) {
            self.counts.pop_front();
        }
    }

    /// Thousandths of a nonce per second. A meter younger than its window divides by its age, at least one second.
    pub fn per_second_milli(&self, now_ms: i64) -> u64 {
        let Some(since) = self.since_ms else { return 0 };
        let span = (now_ms - since).clamp(1_000, WINDOW_MS) as u64;
        let sum: u64 = self
            .counts
            .iter()
            .filter(|(at, _)| now_ms - at <= WINDOW_MS)
            .map(|(_, count)| count)
            .sum();
        sum * 1_000_000 / span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_measured_and_forgotten_after_the_window() {
        let mut meter = RateMeter::default();
        for second in 0..20 {
            meter.record(second * 1_000, 7);
        }
        assert_eq!(meter.per_second_milli(19_500), 7_000);
        assert_eq!(meter.per_second_milli(40_000), 0);
        assert_eq!(RateMeter::default().per_second_milli(5), 0);
    }

    #[test]
    fn a_young_meter_does_not_divide_by_nothing() {
        let mut meter = RateMeter::default();
        meter.record(1_000, 3);
        assert_eq!(meter.per_second_milli(1_000), 3_000);
    }
}
