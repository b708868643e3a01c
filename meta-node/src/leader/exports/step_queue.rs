//! Order, number and retries of the attempts on the steps of exports (pure).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tokio::time::Instant;
use uuid::Uuid;

use super::due::StepEpochs;
use crate::catalog::Export;

/// Maximum number of attempts at a time.
const MAX_ATTEMPTS: usize = 16;
/// Maximum number of attempts at a time that follow a failure. A target that does not answer takes a slot until its
/// timeout: many exports to it leave the other slots to the rest.
const MAX_RETRIES: usize = MAX_ATTEMPTS / 2;
/// Wait after an attempt that has failed.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(10) };

/// Step of an export that is due.
pub(super) type DueStep = (Arc<Export>, StepEpochs);

/// Attempts on the step of an export.
#[derive(Debug, Clone, Copy)]
struct ExportAttempts {
    /// Failures in a row.
    failures: u32,
    /// Time of the next attempt; `None`: an attempt is in progress.
    due: Option<Instant>,
}

/// Exports with an attempt in progress, or whose last attempt has failed.
#[derive(Debug, Default)]
pub(super) struct StepQueue {
    exports: BTreeMap<Uuid, ExportAttempts>,
}

impl StepQueue {
    /// Begins attempts on steps, those of the exports with the least frontier first, and returns the steps. `due`: all steps that
    /// are due, also those with an attempt in progress.
    pub(super) fn begin_due(&mut self, mut due: Vec<DueStep>, now: Instant) -> Vec<DueStep> {
        // Other exports were dropped, or another leader has completed their steps.
        let ids: BTreeSet<Uuid> = due.iter().map(|(export, _)| export.id).collect();
        self.exports.retain(|id, attempts| attempts.due.is_none() || ids.contains(id));
        due.sort_by_key(|(export, _)| (export.frontier, export.id));
        due.retain(|(export, _)| self.begin(export.id, now));
        due
    }

    /// Begins an attempt, if it is due and a slot is free. Returns whether it has begun.
    fn begin(&mut self, export: Uuid, now: Instant) -> bool {
        let known = self.exports.get(&export);
        let failures = known.map_or(0, |known| known.failures);
        let is_due = known.is_none_or(|known| known.due.is_some_and(|due| due <= now));
        if !is_due || !self.has_slot(failures > 0) {
            return false;
        }
        self.exports.insert(export, ExportAttempts { failures, due: None });
        true
    }

    fn has_slot(&self, is_retry: bool) -> bool {
        let in_progress = || self.exports.values().filter(|attempts| attempts.due.is_none());
        let retries = in_progress().filter(|attempts| attempts.failures > 0).count();
        in_progress().count() < MAX_ATTEMPTS && (!is_retry || retries < MAX_RETRIES)
    }

    /// Ends an attempt. `bits`: random bits for the backoff.
    pub(super) fn end(&mut self, export: Uuid, has_failed: bool, now: Instant, bits: u64) {
        if !has_failed {
            self.exports.remove(&export);
        } else if let Some(attempts) = self.exports.get_mut(&export) {
            attempts.failures = attempts.failures.saturating_add(1);
            attempts.due = Some(now + BACKOFF.wait(attempts.failures, None, bits));
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::Epoch;

    use super::super::testing::export;
    use super::*;

    /// Steps of exports with these numbers and frontiers.
    fn due(exports: &[(u128, u64)]) -> Vec<DueStep> {
        let step = |(number, frontier): &(u128, u64)| {
            let frontier = Some(Epoch(*frontier));
            let epochs = StepEpochs { after: frontier, as_of: Epoch(1_000) };
            (Arc::new(Export { steps: 1, frontier, ..export(*number) }), epochs)
        };
        exports.iter().map(step).collect()
    }

    fn begun(queue: &mut StepQueue, exports: &[(u128, u64)], now: Instant) -> Vec<u128> {
        let begun = queue.begin_due(due(exports), now);
        begun.into_iter().map(|(export, _)| export.id.as_u128()).collect()
    }

    #[test]
    fn exports_with_the_least_frontier_begin_first() {
        let now = Instant::now();
        let mut queue = StepQueue::default();
        let exports: Vec<(u128, u64)> =
            (0..20).map(|number: u64| (number.into(), 100 - number)).collect();
        let expected: Vec<u128> = (4..20).rev().collect();
        assert_eq!(begun(&mut queue, &exports, now), expected);
        assert_eq!(begun(&mut queue, &exports, now), [0; 0], "all slots are taken");
        queue.end(Uuid::from_u128(19), false, now, 0);
        let rest = &exports[..19];
        assert_eq!(begun(&mut queue, rest, now), [3]);
    }

    #[test]
    fn failed_step_keeps_no_slot_during_its_backoff() {
        let now = Instant::now();
        let mut queue = StepQueue::default();
        let failing = Uuid::from_u128(1);
        for (failures, wait_ms) in [(1, 250), (2, 500), (3, 1_000), (9, 5_000), (99, 5_000)] {
            while queue.exports.get(&failing).map_or(0, |known| known.failures) < failures {
                if let Some(known) = queue.exports.get_mut(&failing) {
                    known.due = Some(now);
                }
                assert_eq!(begun(&mut queue, &[(1, 1)], now), [1]);
                queue.end(failing, true, now, 0);
            }
            let wait = Duration::from_millis(wait_ms);
            let early = now + wait - Duration::from_millis(1);
            assert_eq!(begun(&mut queue, &[(1, 1)], early), [0; 0], "{failures}");
            assert!(queue.exports[&failing].due.unwrap() <= now + wait, "{failures}");
            assert!(queue.has_slot(true));
        }
        let late = now + BACKOFF.longest;
        assert_eq!(begun(&mut queue, &[(1, 1)], late), [1]);
        queue.end(failing, false, late, 0);
        // The next step has not failed.
        assert_eq!(begun(&mut queue, &[(1, 2)], late), [1]);
    }

    #[test]
    fn retries_leave_slots_to_other_exports() {
        let now = Instant::now();
        let mut queue = StepQueue::default();
        let failing: Vec<(u128, u64)> = (0..16).map(|number| (number, 1)).collect();
        assert_eq!(begun(&mut queue, &failing, now).len(), MAX_ATTEMPTS);
        for (number, _) in &failing {
            queue.end(Uuid::from_u128(*number), true, now, 0);
        }
        let later = now + BACKOFF.longest;
        assert_eq!(begun(&mut queue, &failing, later).len(), MAX_RETRIES);
        let all: Vec<(u128, u64)> =
            failing.iter().copied().chain((100..120).map(|number| (number, 50))).collect();
        let expected: Vec<u128> = (100..108).collect();
        assert_eq!(begun(&mut queue, &all, later), expected);
    }

    #[test]
    fn dropped_exports_leave_the_queue() {
        let now = Instant::now();
        let mut queue = StepQueue::default();
        assert_eq!(begun(&mut queue, &[(1, 1), (2, 1)], now), [1, 2]);
        queue.end(Uuid::from_u128(1), true, now, 0);
        assert_eq!(begun(&mut queue, &[], now), [0; 0]);
        // The attempt that is in progress ends by itself.
        let known: Vec<u128> = queue.exports.keys().map(|id| id.as_u128()).collect();
        assert_eq!(known, [2]);
        queue.end(Uuid::from_u128(2), false, now, 0);
        assert!(queue.exports.is_empty());
    }
}
