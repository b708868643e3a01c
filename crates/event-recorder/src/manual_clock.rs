//! Clock for tests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidewater_common::clock::MonotonicClock;

/// Clock that a test sets, in seconds.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl MonotonicClock for ManualClock {
    fn elapsed(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}
