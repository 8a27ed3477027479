//! Observe: the wall clock. Decisions take its value as an argument.

#![expect(clippy::disallowed_methods, reason = "this is the edge at which the clock is read")]

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix milliseconds.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}
