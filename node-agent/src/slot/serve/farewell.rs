//! Decide: how long a `serve` that is told to end stays. A slot that moves is found at its new pod only when every machine's
//! routing knows, a second later. A pod that is gone by then answers nothing at all, and whoever asks it waits for a time-out;
//! one that is still there refuses at once. And as long as nobody has taken the slot, this pod is the best it has. Pure.

/// After the slot was given up.
const REFUSES_MS: i64 = 3_000;

/// Whether to stay. `held`: the slot has not been given up; `released_ms`: when it was, 0 = never; `longest_ms`: how long a slot
/// that nobody takes is kept.
pub fn stays(told_ms: i64, held: bool, released_ms: i64, longest_ms: i64, now_ms: i64) -> bool {
    if held {
        now_ms - told_ms < longest_ms
    } else {
        released_ms > 0 && now_ms - released_ms < REFUSES_MS.min(longest_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_goes_at_once() {
        assert!(!stays(10_000, false, 0, 15_000, 10_000));
        assert!(!stays(10_000, false, 2_000, 15_000, 10_000), "it held a slot long ago");
    }

    #[test]
    fn a_slot_is_kept_until_it_is_taken_and_refused_for_a_moment_after() {
        assert!(stays(10_000, true, 0, 15_000, 24_999));
        assert!(!stays(10_000, true, 0, 15_000, 25_000), "nobody takes it");
        assert!(stays(10_000, false, 10_200, 15_000, 13_199));
        assert!(!stays(10_000, false, 10_200, 15_000, 13_200));
    }
}
