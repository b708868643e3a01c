//! Clocks and ids of a recorder.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tidewater_common::clock::{Clock, MonotonicClock, SystemClock};
use uuid::Uuid;

/// Source of random bytes.
type RandomBytes = Arc<dyn Fn() -> [u8; 10] + Send + Sync>;

/// Clocks and randomness of a recorder.
#[derive(Clone)]
pub struct RecorderEnv {
    /// Time of events.
    pub clock: Arc<dyn Clock>,
    /// Time between summaries and log lines.
    pub monotonic: Arc<dyn MonotonicClock>,
    random: RandomBytes,
    last_ns: Arc<AtomicI64>,
}

impl RecorderEnv {
    /// Creates an environment. `random` makes the random part of ids.
    pub fn new(
        clock: Arc<dyn Clock>,
        monotonic: Arc<dyn MonotonicClock>,
        random: impl Fn() -> [u8; 10] + Send + Sync + 'static,
    ) -> Self {
        Self { clock, monotonic, random: Arc::new(random), last_ns: Arc::default() }
    }

    /// Returns the time of an event, nanoseconds since the Unix epoch. Times of one recorder increase with each
    /// event, so that they give the order of its events.
    pub(crate) fn next_timestamp_ns(&self) -> i64 {
        let now = i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let next = |last: i64| Some(now.max(last.saturating_add(1)));
        match self.last_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(last) | Err(last) => now.max(last.saturating_add(1)),
        }
    }

    /// Returns a new id, a UUIDv7 of a time.
    pub(crate) fn id_at(&self, timestamp_ns: i64) -> Uuid {
        let ms = u64::try_from(timestamp_ns / 1_000_000).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(ms, &(self.random)()).into_uuid()
    }
}

impl Default for RecorderEnv {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock), Arc::new(SystemClock), rand::random)
    }
}

impl fmt::Debug for RecorderEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecorderEnv").field("clock", &self.clock).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct FrozenClock;

    impl Clock for FrozenClock {
        fn now_ms(&self) -> u64 {
            5
        }
    }

    #[test]
    fn times_increase_while_the_clock_does_not() {
        let env = RecorderEnv::new(Arc::new(FrozenClock), Arc::new(SystemClock), || [0; 10]);
        let times = [(); 3].map(|()| env.next_timestamp_ns());
        assert_eq!(times, [5_000_000, 5_000_001, 5_000_002]);
        assert_eq!(env.id_at(times[2]).get_version_num(), 7);
    }
}
