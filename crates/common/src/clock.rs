//! Clocks as traits, so that decisions can be tested and simulated, and the clock of a cluster.

mod cluster;
mod difference;

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use cluster::{ClusterClock, ClusterTime};
pub use difference::ClockDifference;

/// A wall clock. State machines never read one: they take times from their log.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// Time by which rows may expire, milliseconds since the Unix epoch; `None` while it is unknown.
    /// Never ahead of any clock that the implementation knows.
    fn expiry_ms(&self) -> Option<u64> {
        Some(self.now_ms())
    }

    /// Checks that this clock agrees with the cluster's clocks.
    ///
    /// # Errors
    /// [`ClockDifference`] when it differs by more than the configured bound: the caller must neither
    /// commit nor expire anything.
    fn check(&self) -> Result<(), ClockDifference> {
        Ok(())
    }
}

/// A clock that never jumps: it measures ages.
pub trait MonotonicClock: Debug + Send + Sync + 'static {
    /// Time since an arbitrary origin, the same for all calls. Never decreases.
    fn elapsed(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl MonotonicClock for SystemClock {
    fn elapsed(&self) -> Duration {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        ORIGIN.get_or_init(Instant::now).elapsed()
    }
}
