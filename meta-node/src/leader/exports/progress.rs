//! Progress and failures of the step of an export, as this leader knows them (pure). In memory only.
//!
//! A part of a step fails from its first failure until it is completed: also during the backoff, and while other parts are
//! completed.

use std::collections::BTreeMap;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

/// Part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StepPart {
    /// Record of the begin.
    Begin,
    /// Files of a region.
    Region(RegionId),
    /// Object and record of the completed step.
    Completion,
}

/// Failure of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartFailure {
    reason: Reason,
    /// Last error, for people.
    pub(crate) message: String,
    /// Time of the first failure.
    pub(crate) since: Instant,
}

/// Progress of a step, over all attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ExportProgress {
    /// Regions of the table.
    pub(crate) regions: usize,
    /// Regions that the last attempt has written, or found written.
    pub(crate) done: usize,
    rows: BTreeMap<RegionId, u64>,
    failures: BTreeMap<StepPart, PartFailure>,
}

impl ExportProgress {
    /// Records the regions of the table, and the number of those that are not written. Failures of other regions end: a split,
    /// merge or another change of the routes has replaced the regions.
    pub(super) fn observe(&mut self, routes: &BTreeMap<RegionId, GroupId>, missing: usize) {
        self.regions = routes.len();
        self.done = routes.len().saturating_sub(missing);
        self.rows.retain(|region, _| routes.contains_key(region));
        self.failures.retain(|part, _| match part {
            StepPart::Region(region) => routes.contains_key(region),
            StepPart::Begin | StepPart::Completion => true,
        });
    }

    /// Records the number of rows of a region that are written so far.
    pub(super) fn record_rows(&mut self, region: RegionId, rows: u64) {
        self.rows.insert(region, rows);
    }

    /// Records that a part is completed. Returns whether the last failure has ended.
    pub(super) fn complete(&mut self, part: StepPart) -> bool {
        if let StepPart::Region(_) = part {
            self.done = (self.done + 1).min(self.regions);
        }
        self.failures.remove(&part).is_some() && self.failures.is_empty()
    }

    /// Records the failure of a part. Returns whether no other failure has its reason.
    pub(super) fn fail(&mut self, part: StepPart, problem: &Refusal, now: Instant) -> bool {
        let is_new = !self.failures.values().any(|known| known.reason == problem.reason);
        let since = self.failures.get(&part).map_or(now, |known| known.since);
        let failure = PartFailure { reason: problem.reason, message: problem.to_string(), since };
        self.failures.insert(part, failure);
        is_new
    }

    /// Returns whether a region fails.
    pub(super) fn is_failing(&self, region: RegionId) -> bool {
        self.failures.contains_key(&StepPart::Region(region))
    }

    /// Returns the failure of the part that has failed for longest; `None`: no part fails.
    pub(crate) fn failure(&self) -> Option<&PartFailure> {
        self.failures.values().min_by_key(|failure| failure.since)
    }

    /// Returns the number of rows that are written so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.values().fold(0, |sum, rows| sum.saturating_add(*rows))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ONE: StepPart = StepPart::Region(RegionId(1));
    const TWO: StepPart = StepPart::Region(RegionId(2));

    fn routes(ids: &[u64]) -> BTreeMap<RegionId, GroupId> {
        ids.iter().map(|id| (RegionId(*id), GroupId(1))).collect()
    }

    fn message(progress: &ExportProgress) -> Option<&str> {
        progress.failure().map(|failure| failure.message.as_str())
    }

    #[test]
    fn failure_ends_with_its_part() {
        let begun = Instant::now();
        let later = begun + Duration::from_secs(9);
        let full = |text: &str| Refusal::new(Reason::ExportTargetUnavailable, text);
        let mut progress = ExportProgress::default();
        progress.observe(&routes(&[1, 2, 3]), 3);
        assert!(progress.fail(ONE, &full("one"), begun));
        assert!(!progress.fail(TWO, &full("two"), later));
        assert!(progress.fail(ONE, &Refusal::new(Reason::Corrupt, "one again"), later));
        let failure = progress.failure().unwrap();
        assert_eq!((failure.message.as_str(), failure.since), ("one again", begun));
        // The next attempt completes another region first.
        progress.observe(&routes(&[1, 2, 3]), 3);
        assert!(!progress.complete(StepPart::Region(RegionId(3))));
        assert_eq!((message(&progress), progress.done), (Some("one again"), 1));
        assert!(!progress.complete(ONE));
        assert_eq!(message(&progress), Some("two"));
        assert!(progress.complete(TWO));
        assert_eq!((progress.failure(), progress.done), (None, 3));
        assert!(!progress.complete(StepPart::Completion));
    }

    #[test]
    fn former_regions_neither_fail_nor_count() {
        let mut progress = ExportProgress::default();
        progress.observe(&routes(&[1, 2]), 2);
        progress.record_rows(RegionId(1), 5);
        progress.record_rows(RegionId(2), 7);
        progress.record_rows(RegionId(2), 8);
        assert_eq!(progress.rows(), 13);
        progress.fail(ONE, &Refusal::new(Reason::Corrupt, "one"), Instant::now());
        progress.fail(StepPart::Begin, &Refusal::new(Reason::Corrupt, "begin"), Instant::now());
        assert!(progress.is_failing(RegionId(1)) && !progress.is_failing(RegionId(2)));
        progress.observe(&routes(&[2, 3, 4]), 2);
        assert_eq!((progress.rows(), progress.regions, progress.done), (8, 3, 1));
        assert!(!progress.is_failing(RegionId(1)));
        assert_eq!(message(&progress), Some("begin"));
    }
}
