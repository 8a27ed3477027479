//! Decide: the rate cap. A token bucket that holds a second: a machine that gives the engine no core for a moment does not
//! lower the rate, and what is away for longer is lost. Pure; the clock is an argument.

use std::time::Duration;

/// How much unused rate may be saved up.
const SAVED: Duration = Duration::from_secs(1);

/// One engine's cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Time one nonce stands for; zero without a cap.
    period: Duration,
    /// When the next nonce would be due at exactly the capped rate.
    due: Duration,
}

impl Pace {
    /// At most this many nonces per second; 0 = as many as can be computed.
    pub fn new(max_per_second: u64) -> Self {
        let period = match max_per_second {
            0 => Duration::ZERO,
            rate => Duration::from_nanos(1_000_000_000 / rate.min(1_000_000_000)),
        };
        Self {
            period,
            due: Duration::ZERO,
        }
    }

    /// Takes one nonce at `now` (time since the round's start); the answer is how long to wait before computing it.
    pub fn take(&mut self, now: Duration) -> Duration {
        if self.period.is_zero() {
            return Duration::ZERO;
        }
        let start = self.due.max(now.saturating_sub(SAVED));
        self.due = start + self.period;
        start.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nonces computed within `span` when each wait is kept to and computing takes `cost`.
    fn computed(rate: u64, span: Duration, cost: Duration) -> u64 {
        let mut pace = Pace::new(rate);
        let (mut now, mut count) = (Duration::ZERO, 0);
        loop {
            now += pace.take(now) + cost;
            if now > span {
                return count;
            }
            count += 1;
        }
    }

    #[test]
    fn a_cap_is_kept_and_used() {
        let count = computed(20, Duration::from_secs(10), Duration::from_millis(3));
        assert!((199..=201).contains(&count), "{count}");
    }

    #[test]
    fn an_engine_slower_than_its_cap_never_waits() {
        assert_eq!(computed(1_000, Duration::from_secs(1), Duration::from_millis(100)), 10);
    }

    #[test]
    fn time_not_used_is_saved_for_a_second_only() {
        let mut pace = Pace::new(10);
        assert_eq!(pace.take(Duration::ZERO), Duration::ZERO);
        // Nothing for five seconds: the nonces of one may follow one another closely, those of five may not.
        assert!((0..=10).all(|_| pace.take(Duration::from_secs(5)).is_zero()));
        assert_eq!(pace.take(Duration::from_secs(5)), Duration::from_millis(100));
    }

    #[test]
    fn no_cap_is_no_wait() {
        let mut pace = Pace::new(0);
        assert!((0..1_000).all(|_| pace.take(Duration::ZERO).is_zero()));
    }
}
