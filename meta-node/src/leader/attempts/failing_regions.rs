//! Regions that fail in a step, and the failure that the catalog records for the step (pure).
//!
//! A region fails from its first failed call until it has completed its part, or its merge has progressed. The failure of
//! the step is that of one of these regions, and ends with the last of them: a failure that has passed is neither shown nor
//! copied to the history while the work continues.
//!
//! In memory only: a new leader keeps the recorded failure until its own calls would have failed.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, RegionMerge};
use tokio::time::Instant;

use crate::catalog::ProcedureFailure;
use crate::commands::procedures::MAX_MESSAGE;

/// Time for which the failure that another leader has recorded is kept: longer than a call to a node that does not answer.
const KEPT: Duration = Duration::from_secs(15);

/// Failure of a region.
#[derive(Debug)]
struct RegionFailure {
    refusal: Refusal,
    /// Time of the first failure since the region has last progressed.
    since: Instant,
    /// The region fails whenever it is called.
    is_permanent: bool,
    /// Progress of its merge in the first call after the failure.
    merge: Option<RegionMerge>,
}

/// Regions that fail in a step.
#[derive(Debug)]
pub(in crate::leader) struct FailingRegions {
    regions: BTreeMap<RegionId, RegionFailure>,
    /// Time until which a recorded failure is kept although no region fails.
    kept_until: Instant,
}

impl FailingRegions {
    /// Begins a step, or continues that of another leader.
    pub(in crate::leader) fn new(now: Instant) -> Self {
        Self { regions: BTreeMap::new(), kept_until: now + KEPT }
    }

    /// Records that the call of a region has failed. `is_permanent`: each other call fails, too.
    pub(in crate::leader) fn fail(
        &mut self,
        region: RegionId,
        refusal: Refusal,
        is_permanent: bool,
        now: Instant,
    ) {
        let since = self.regions.get(&region).map_or(now, |known| known.since);
        let failure = RegionFailure { refusal, since, is_permanent, merge: None };
        self.regions.insert(region, failure);
    }

    /// Records that a region has completed its part, or progressed.
    pub(in crate::leader) fn clear(&mut self, region: RegionId, now: Instant) {
        if self.regions.remove(&region).is_some() && self.regions.is_empty() {
            self.kept_until = now;
        }
    }

    /// Records the progress of a region's merge. The failure ends when all parts have progressed since: otherwise a part
    /// that fails repeatedly would not be shown while the others progress.
    pub(in crate::leader) fn record_merge(
        &mut self,
        region: RegionId,
        merge: &RegionMerge,
        now: Instant,
    ) {
        let Some(failure) = self.regions.get_mut(&region) else { return };
        let before = failure.merge.get_or_insert_with(|| merge.clone());
        if has_progressed(before, merge) {
            self.clear(region, now);
        }
    }

    /// Returns the failure of the step: a permanent one, otherwise that of the region that has failed for longest.
    pub(in crate::leader) fn failure(&self) -> Option<&Refusal> {
        let failures = self.regions.values();
        let first = failures.min_by_key(|failure| (!failure.is_permanent, failure.since))?;
        Some(&first.refusal)
    }

    /// Returns the failure that the catalog is to record in place of `recorded`; `None`: the step does not fail.
    pub(in crate::leader) fn to_record(
        &self,
        recorded: Option<v1::ProcedureFailure>,
        now: Instant,
    ) -> Option<v1::ProcedureFailure> {
        match self.failure() {
            Some(refusal) => Some(failure_of(refusal)),
            None => recorded.filter(|_| now < self.kept_until),
        }
    }
}

/// Returns whether all parts of a merge that were not complete have progressed.
fn has_progressed(before: &RegionMerge, now: &RegionMerge) -> bool {
    let mut parts = now.parts.iter().zip(&before.parts);
    parts.all(|(now, before)| now.is_complete || now.chunks > before.chunks)
}

/// Returns a failure as a command has it: the time is that of the command.
pub(in crate::leader) fn failure_of(refusal: &Refusal) -> v1::ProcedureFailure {
    let message = refusal.message.chars().take(MAX_MESSAGE).collect();
    v1::ProcedureFailure { reason: refusal.reason.into(), message, since_ms: 0 }
}

/// Returns a recorded failure as the command had it.
pub(in crate::leader) fn recorded(failure: &ProcedureFailure) -> v1::ProcedureFailure {
    let message = failure.message.clone();
    v1::ProcedureFailure { reason: failure.reason, message, since_ms: 0 }
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::{Reason, RegionMergePart};

    use super::*;

    const ONE: RegionId = RegionId(1);
    const TWO: RegionId = RegionId(2);

    fn refusal(text: &str) -> Refusal {
        Refusal::new(Reason::NotLeader, text)
    }

    /// Progress of a merge in parts with these numbers of chunks; `None`: the part is complete.
    fn merge(chunks: &[Option<u64>]) -> RegionMerge {
        let part = |chunks: &Option<u64>| RegionMergePart {
            chunks: chunks.unwrap_or_default(),
            is_complete: chunks.is_none(),
            ..RegionMergePart::default()
        };
        RegionMerge { parts: chunks.iter().map(part).collect(), ..RegionMerge::default() }
    }

    fn message(failing: &FailingRegions) -> Option<&str> {
        failing.failure().map(|refusal| refusal.message.as_str())
    }

    #[test]
    fn failure_ends_with_its_last_region() {
        let now = Instant::now();
        let mut failing = FailingRegions::new(now);
        failing.fail(TWO, refusal("two"), false, now);
        failing.fail(ONE, refusal("one"), false, now + Duration::from_secs(1));
        failing.fail(TWO, refusal("two again"), false, now + Duration::from_secs(2));
        assert_eq!(message(&failing), Some("two again"), "it has failed for longest");
        let shown = failing.to_record(None, now);
        assert_eq!(shown, Some(failure_of(&refusal("two again"))));
        failing.clear(TWO, now);
        assert_eq!(message(&failing), Some("one"));
        failing.clear(ONE, now);
        assert_eq!(failing.to_record(shown, now), None);
    }

    #[test]
    fn permanent_failure_is_recorded_before_transient_ones() {
        let now = Instant::now();
        let mut failing = FailingRegions::new(now);
        failing.fail(ONE, refusal("no leader"), false, now);
        failing.fail(TWO, refusal("a key occurs twice"), true, now + Duration::from_secs(1));
        assert_eq!(message(&failing), Some("a key occurs twice"));
    }

    #[test]
    fn merge_failure_ends_once_all_parts_progress() {
        let now = Instant::now();
        let mut failing = FailingRegions::new(now);
        failing.fail(ONE, refusal("one"), false, now);
        for (chunks, expected) in [
            ([Some(3), Some(5), None], Some("one")),
            ([Some(3), Some(5), None], Some("one")),
            // The other part may fail again.
            ([Some(4), Some(5), None], Some("one")),
            ([Some(9), Some(6), None], None),
        ] {
            failing.record_merge(ONE, &merge(&chunks), now);
            assert_eq!(message(&failing), expected, "{chunks:?}");
        }
        // Another failure counts from its own progress.
        failing.fail(ONE, refusal("again"), false, now);
        failing.record_merge(ONE, &merge(&[Some(9), None, None]), now);
        assert_eq!(message(&failing), Some("again"));
        failing.record_merge(ONE, &merge(&[None, None, None]), now);
        assert_eq!(message(&failing), None);
        failing.record_merge(TWO, &merge(&[Some(1)]), now);
        assert_eq!(message(&failing), None);
    }

    #[test]
    fn failure_of_another_leader_is_kept_briefly() {
        let now = Instant::now();
        let failing = FailingRegions::new(now);
        let known = Some(failure_of(&refusal("no leader")));
        assert_eq!(failing.to_record(known.clone(), now), known);
        assert_eq!(failing.to_record(known.clone(), now + KEPT), None);
        assert_eq!(failing.to_record(None, now), None);
    }

    #[test]
    fn recorded_failure_equals_that_of_its_command() {
        let long = refusal(&"é".repeat(MAX_MESSAGE + 1));
        let carried = failure_of(&long);
        assert_eq!(carried.message.chars().count(), MAX_MESSAGE);
        let (reason, message) = (carried.reason, carried.message.clone());
        let stored = ProcedureFailure { reason, message, since_ms: 7 };
        assert_eq!(recorded(&stored), carried);
    }
}
