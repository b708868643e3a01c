//! A node's view of the cluster's time: the last times that the meta service sent, aged by the node's
//! monotonic clock, and the node's own wall clock.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Clock, ClockDifference, MonotonicClock};

/// A time that the meta service sent, with the monotonic time of its receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ReceivedTime {
    ms: u64,
    at: Duration,
}

impl ReceivedTime {
    fn aged(self, at: Duration) -> u64 {
        let age = at.saturating_sub(self.at).as_millis();
        self.ms.saturating_add(u64::try_from(age).unwrap_or(u64::MAX))
    }
}

/// A node's knowledge of the cluster's time. Pure: all clock readings are arguments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClusterTime {
    replicated: Option<ReceivedTime>,
    clocks: Option<ReceivedTime>,
    /// Time by the cluster's clocks when the difference was found; `None` while the clock agrees.
    differs_since_ms: Option<u64>,
}

impl ClusterTime {
    /// Records a response of the meta service: replicated time, and the agreed time of the cluster's
    /// clocks; 0: unknown. `at`: the monotonic time of the receipt.
    pub fn record(&mut self, replicated_ms: u64, clocks_ms: u64, at: Duration) {
        let received = |ms: u64| (ms > 0).then_some(ReceivedTime { ms, at });
        // A response without a time, by an older release or while too few clocks are known, leaves the
        // last known time, whose age is known.
        self.replicated = received(replicated_ms).or(self.replicated);
        self.clocks = received(clocks_ms).or(self.clocks);
    }

    /// Returns the cluster's time: replicated time and its age, or the wall clock while no replicated
    /// time is known.
    #[must_use]
    pub fn now_ms(&self, wall_ms: u64, at: Duration) -> u64 {
        self.replicated.map_or(wall_ms, |received| received.aged(at))
    }

    /// Returns the time by which rows may expire: neither ahead of the wall clock nor of replicated
    /// time. `None` while no replicated time is known.
    #[must_use]
    pub fn expiry_ms(&self, wall_ms: u64, at: Duration) -> Option<u64> {
        self.replicated.map(|received| received.aged(at).min(wall_ms))
    }

    /// Compares the wall clock with the agreed time of the cluster's clocks. `None` while it is unknown,
    /// or while the difference is within the bound.
    pub fn difference(
        &mut self,
        wall_ms: u64,
        at: Duration,
        bound_ms: u64,
    ) -> Option<ClockDifference> {
        let reference_ms = self.clocks?.aged(at);
        let Some(difference_ms) = ClockDifference::beyond(bound_ms, wall_ms, reference_ms) else {
            self.differs_since_ms = None;
            return None;
        };
        let since_ms = *self.differs_since_ms.get_or_insert(reference_ms);
        Some(ClockDifference { difference_ms, bound_ms, since_ms })
    }
}

/// Clock of a node of a cluster: follows replicated time.
///
/// Manifests, ids and deadlines of all nodes carry the same time line, which no node's wall clock can
/// drag away. Rows expire by the least of it and the node's wall clock.
#[derive(Debug)]
pub struct ClusterClock {
    wall: Arc<dyn Clock>,
    monotonic: Arc<dyn MonotonicClock>,
    bound_ms: u64,
    time: Mutex<ClusterTime>,
}

impl ClusterClock {
    /// Default of the greatest allowed difference: 10 minutes.
    pub const DEFAULT_BOUND: Duration = Duration::from_secs(600);

    /// Creates a clock that has not received any time yet. `bound`: greatest allowed difference between
    /// `wall` and the cluster's clocks.
    pub fn new(wall: Arc<dyn Clock>, monotonic: Arc<dyn MonotonicClock>, bound: Duration) -> Self {
        let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        Self { wall, monotonic, bound_ms, time: Mutex::default() }
    }

    /// Records the times in a response of the meta service; 0: unknown.
    pub fn record(&self, replicated_ms: u64, clocks_ms: u64) {
        self.time.lock().record(replicated_ms, clocks_ms, self.monotonic.elapsed());
    }

    /// Reading of the node's own wall clock, milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> u64 {
        self.wall.now_ms()
    }
}

impl Clock for ClusterClock {
    fn now_ms(&self) -> u64 {
        self.time.lock().now_ms(self.wall.now_ms(), self.monotonic.elapsed())
    }

    fn expiry_ms(&self) -> Option<u64> {
        self.time.lock().expiry_ms(self.wall.now_ms(), self.monotonic.elapsed())
    }

    fn check(&self) -> Result<(), ClockDifference> {
        let wall_ms = self.wall.now_ms();
        let at = self.monotonic.elapsed();
        self.time.lock().difference(wall_ms, at, self.bound_ms).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const BOUND_MS: u64 = 600_000;
    const NOW: u64 = 1_700_000_000_000;
    const YEAR: u64 = 365 * 86_400_000;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn rows_expire_by_the_least_of_all_clocks() {
        // Replicated time, wall clock ten seconds later, expiry.
        let cases = [
            (0, NOW, None),
            (NOW, NOW + 10_000, Some(NOW + 10_000)),
            (NOW, NOW + YEAR, Some(NOW + 10_000)),
            (NOW + YEAR, NOW, Some(NOW)),
            (NOW, NOW - YEAR, Some(NOW - YEAR)),
        ];
        for (replicated, wall, expected) in cases {
            let mut time = ClusterTime::default();
            time.record(replicated, 0, seconds(5));
            assert_eq!(time.expiry_ms(wall, seconds(15)), expected, "{replicated} {wall}");
        }
    }

    #[test]
    fn time_follows_replicated_time_and_its_age() {
        let mut time = ClusterTime::default();
        assert_eq!(time.now_ms(NOW + YEAR, seconds(1)), NOW + YEAR, "nothing else is known");
        time.record(NOW, NOW, seconds(1));
        assert_eq!(time.now_ms(NOW + YEAR, seconds(3)), NOW + 2_000);
        // A response without times does not forget them.
        time.record(0, 0, seconds(4));
        assert_eq!(time.now_ms(NOW + YEAR, seconds(5)), NOW + 4_000);
        // A monotonic reading taken before the response was recorded.
        assert_eq!(time.now_ms(0, seconds(0)), NOW);
    }

    #[test]
    fn difference_counts_from_its_first_observation() {
        let mut time = ClusterTime::default();
        assert_eq!(time.difference(NOW + YEAR, seconds(0), BOUND_MS), None, "nothing to compare");
        time.record(NOW, NOW, seconds(0));
        for within in [NOW, NOW + BOUND_MS, NOW - BOUND_MS] {
            assert_eq!(time.difference(within, seconds(0), BOUND_MS), None);
        }
        let ahead = time.difference(NOW + BOUND_MS + 1, seconds(0), BOUND_MS).unwrap();
        assert_eq!((ahead.difference_ms, ahead.since_ms), (BOUND_MS as i64 + 1, NOW));
        let behind = time.difference(NOW - YEAR, seconds(60), BOUND_MS).unwrap();
        assert_eq!((behind.difference_ms, behind.since_ms), (-(YEAR as i64) - 60_000, NOW));
        assert_eq!(time.difference(NOW + 60_000, seconds(60), BOUND_MS), None);
        let again = time.difference(NOW + YEAR, seconds(70), BOUND_MS).unwrap();
        assert_eq!(again.since_ms, NOW + 70_000);
    }

    #[derive(Debug, Default)]
    struct TestClock(AtomicU64);

    impl Clock for TestClock {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl MonotonicClock for TestClock {
        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn clock_beyond_its_bound_is_reported_until_it_agrees() {
        let wall = Arc::new(TestClock::default());
        let clock =
            ClusterClock::new(wall.clone(), Arc::<TestClock>::default(), seconds(BOUND_MS / 1_000));
        clock.record(NOW, NOW);
        for (wall_ms, agrees) in [(NOW, true), (NOW + YEAR, false), (NOW + 1, true)] {
            wall.0.store(wall_ms, Ordering::Relaxed);
            assert_eq!(clock.check().is_ok(), agrees, "{wall_ms}");
            assert_eq!(clock.expiry_ms(), Some(NOW), "{wall_ms}");
            assert_eq!((clock.now_ms(), clock.wall_ms()), (NOW, wall_ms));
        }
    }
}
