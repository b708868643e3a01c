//! Time of the cluster, from which commands count back: the clock of the machine that they run on may be wrong.

use std::time::Duration;

use tidewater_client::{Client, ClientError};
use tidewater_common::clock::{Clock, MonotonicClock};

use crate::output::terminal::note;

/// Time of the cluster, which a monotonic clock continues.
#[derive(Debug)]
pub(super) struct ClusterTime<'a> {
    /// Nanoseconds since the Unix epoch when the time was read.
    read_ns: i64,
    read_at: Duration,
    monotonic: &'a dyn MonotonicClock,
}

impl<'a> ClusterTime<'a> {
    /// Reads the time of the cluster. If it is unknown, that of `clock` is used.
    pub(super) async fn read(
        client: &Client,
        clock: &dyn Clock,
        monotonic: &'a dyn MonotonicClock,
    ) -> Self {
        let replicated_ms = match client.cluster_status().await {
            Ok(status) => status.time_ms,
            Err(error) => {
                note_unknown(&error);
                0
            }
        };
        Self::new(replicated_ms, clock, monotonic)
    }

    /// `replicated_ms`: replicated time, milliseconds since the Unix epoch; 0: it is unknown.
    fn new(replicated_ms: u64, clock: &dyn Clock, monotonic: &'a dyn MonotonicClock) -> Self {
        let ms = if replicated_ms == 0 { clock.now_ms() } else { replicated_ms };
        let read_ns = i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        Self { read_ns, read_at: monotonic.elapsed(), monotonic }
    }

    /// Returns the time now, nanoseconds since the Unix epoch.
    pub(super) fn now_ns(&self) -> i64 {
        let since_read = self.monotonic.elapsed().saturating_sub(self.read_at);
        self.read_ns.saturating_add(i64::try_from(since_read.as_nanos()).unwrap_or(i64::MAX))
    }
}

fn note_unknown(error: &ClientError) {
    note(&format!("the time of the cluster is unknown, that of this machine is used: {error}"));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const NOON_MS: u64 = 1_700_000_000_000;
    const HOUR_MS: u64 = 3_600_000;
    const SECOND_NS: i64 = 1_000_000_000;

    /// Clock of a machine that is an hour ahead.
    #[derive(Debug)]
    struct ClockAhead;

    impl Clock for ClockAhead {
        fn now_ms(&self) -> u64 {
            NOON_MS + HOUR_MS
        }
    }

    #[derive(Debug, Default)]
    struct ManualClock(AtomicU64);

    impl MonotonicClock for ManualClock {
        fn elapsed(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
    }

    fn ns(ms: u64) -> i64 {
        i64::try_from(ms).unwrap() * 1_000_000
    }

    #[test]
    fn clock_that_is_ahead_does_not_change_the_time() {
        let monotonic = ManualClock::default();
        monotonic.0.store(50, Ordering::Relaxed);
        let time = ClusterTime::new(NOON_MS, &ClockAhead, &monotonic);
        assert_eq!(time.now_ns(), ns(NOON_MS));
        monotonic.0.store(53, Ordering::Relaxed);
        assert_eq!(time.now_ns(), ns(NOON_MS) + 3 * SECOND_NS);
    }

    #[test]
    fn clock_replaces_an_unknown_time_of_the_cluster() {
        let monotonic = ManualClock::default();
        let time = ClusterTime::new(0, &ClockAhead, &monotonic);
        assert_eq!(time.now_ns(), ns(NOON_MS + HOUR_MS));
    }
}
