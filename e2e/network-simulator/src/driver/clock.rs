//! The one place that asks what time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Unix time that never runs backwards, whatever is done to the machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    unix_ms: u64,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is where the driver stamps events")]
    pub fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self {
            started: Instant::now(),
            unix_ms: since.as_millis() as u64,
        }
    }

    pub fn unix_ms(&self) -> u64 {
        self.unix_ms + self.started.elapsed().as_millis() as u64
    }
}
