//! Work on regions that fails again and again, for the operator.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::RegionId;
use tokio::time::Instant;

/// Consecutive failures from which work counts as failing: single failures are retried and pass.
const FAILING_FROM: u32 = 3;
/// Time after which repeated failures count as failing in any case: one attempt at a store that does not
/// answer may take a minute.
const FAILING_FOR: Duration = Duration::from_secs(15);

/// Consecutive failures of one kind of work on a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionFailures {
    /// Time of the first failure.
    pub since: Instant,
    /// Number of failures.
    pub count: u32,
    /// Last error.
    pub error: String,
}

/// Consecutive failures of one kind of work, by region.
#[derive(Debug, Default)]
pub struct FailingWork {
    by_region: Mutex<BTreeMap<RegionId, RegionFailures>>,
}

impl FailingWork {
    /// Records a failure.
    pub fn record_failure(&self, region: RegionId, error: String, now: Instant) {
        let mut by_region = self.by_region.lock();
        let failures = by_region.entry(region).or_insert_with(|| RegionFailures {
            since: now,
            count: 0,
            error: String::new(),
        });
        failures.count = failures.count.saturating_add(1);
        failures.error = error;
    }

    /// Records a success, or that the region has no such work any more.
    pub fn clear(&self, region: RegionId) {
        self.by_region.lock().remove(&region);
    }

    /// Forgets all failures: the work has ended with the term.
    pub fn clear_all(&self) {
        self.by_region.lock().clear();
    }

    /// Returns the failures of a region on which the work fails repeatedly.
    pub fn failing(&self, region: RegionId, now: Instant) -> Option<RegionFailures> {
        let by_region = self.by_region.lock();
        let is_failing = |failures: &&RegionFailures| {
            let lasts = now.saturating_duration_since(failures.since) >= FAILING_FOR;
            failures.count >= FAILING_FROM || (failures.count > 1 && lasts)
        };
        by_region.get(&region).filter(is_failing).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_fails_from_the_third_failure_in_a_row() {
        let work = FailingWork::default();
        let region = RegionId(7);
        let first = Instant::now();
        let fail = |error: &str| work.record_failure(region, error.to_owned(), Instant::now());
        work.record_failure(region, "a".to_owned(), first);
        assert_eq!(work.failing(region, first + FAILING_FOR), None);
        fail("b");
        assert_eq!(work.failing(region, first), None);
        assert!(work.failing(region, first + FAILING_FOR).is_some());
        fail("c");
        let failing = RegionFailures { since: first, count: 3, error: "c".to_owned() };
        assert_eq!(work.failing(region, first), Some(failing));
        work.clear(region);
        fail("d");
        assert_eq!(work.failing(region, first), None);
        fail("d");
        fail("d");
        work.clear_all();
        assert_eq!(work.failing(region, first), None);
    }
}
