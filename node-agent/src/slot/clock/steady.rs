//! Decide: a wall clock without steps. Pure; both clocks are arguments.

/// Differences below this are the clocks' own affair.
const STEP_MS: i64 = 1_000;

/// Where the monotonic clock stands on the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steady {
    offset_ms: i64,
}

impl Steady {
    /// Set by the wall clock.
    pub fn new(wall_ms: i64, monotonic_ms: i64) -> Self {
        Self {
            offset_ms: wall_ms - monotonic_ms,
        }
    }

    /// Unix milliseconds.
    pub fn now_ms(&self, monotonic_ms: i64) -> i64 {
        monotonic_ms + self.offset_ms
    }

    /// Follows a step of the wall clock; answers by how much.
    pub fn follow(&mut self, wall_ms: i64, monotonic_ms: i64) -> i64 {
        let step_ms = wall_ms - self.now_ms(monotonic_ms);
        if step_ms.abs() < STEP_MS {
            return 0;
        }
        self.offset_ms += step_ms;
        step_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_the_wall_clock_are_followed_only_when_asked_to() {
        let mut steady = Steady::new(1_000_000, 50);
        assert_eq!(steady.now_ms(150), 1_000_100);
        assert_eq!(steady.follow(1_000_900, 150), 0, "no step");
        assert_eq!(steady.follow(1_005_100, 150), 5_000);
        assert_eq!(steady.now_ms(250), 1_005_200);
        assert_eq!(steady.follow(1_000_200, 250), -5_000);
        assert_eq!(steady.now_ms(250), 1_000_200);
    }
}
