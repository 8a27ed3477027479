//! Observe: the clocks. Decisions take their value as an argument.

#![expect(clippy::disallowed_methods, reason = "this is the edge at which the clock is read")]

pub mod steady;

use std::{
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use steady::Steady;

static CLOCK: LazyLock<(Instant, Mutex<Steady>)> =
    LazyLock::new(|| (Instant::now(), Mutex::new(Steady::new(wall_ms(), 0))));

fn steady() -> (i64, MutexGuard<'static, Steady>) {
    let (begin, steady) = &*CLOCK;
    let steady = steady.lock().unwrap_or_else(PoisonError::into_inner);
    (begin.elapsed().as_millis() as i64, steady)
}

/// Unix milliseconds as this process counts them on: no step of the wall clock moves them.
pub fn now_ms() -> i64 {
    let (monotonic_ms, steady) = steady();
    steady.now_ms(monotonic_ms)
}

/// Unix milliseconds as everybody else sees them: for tokens.
pub fn wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

/// Lets [`now_ms`] follow a step of the wall clock: for a moment in which nothing depends on it. Answers by how much it moved.
pub fn follow_wall() -> i64 {
    let (monotonic_ms, mut steady) = steady();
    steady.follow(wall_ms(), monotonic_ms)
}
