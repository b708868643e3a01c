//! Queue of the calls of an attempt (pure): limits and waits of each group.
//!
//! A group has at most [`MAX_CALLS_PER_GROUP`] calls in progress. After a failure, no call of its group begins for some
//! time, and the failed region is the first one that is called again. Calls in progress continue, those of other groups begin.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

use crate::commands::procedures::kind::StepRegion;
use crate::leader::group_permits::MAX_CALLS_PER_GROUP;

/// Wait before a region is called again.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(10) };

/// Calls of a group.
#[derive(Debug)]
struct GroupCalls {
    /// Regions to call, with the times from which on they can be called.
    queued: VecDeque<(RegionId, Instant)>,
    in_progress: usize,
    /// Failures of regions in this attempt.
    failures: BTreeMap<RegionId, u32>,
    /// Time before which no call begins.
    paused_until: Instant,
}

/// Calls of an attempt that are not complete.
#[derive(Debug)]
pub(super) struct CallQueue {
    groups: BTreeMap<GroupId, GroupCalls>,
}

impl CallQueue {
    /// Queues the calls to regions, by group.
    pub(super) fn new(regions: BTreeMap<GroupId, Vec<RegionId>>, now: Instant) -> Self {
        let calls = |regions: Vec<RegionId>| GroupCalls {
            queued: regions.into_iter().map(|region| (region, now)).collect(),
            in_progress: 0,
            failures: BTreeMap::new(),
            paused_until: now,
        };
        let groups = regions.into_iter().map(|(group, regions)| (group, calls(regions)));
        Self { groups: groups.collect() }
    }

    /// Takes the calls that begin at `now`.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<StepRegion> {
        let mut due = Vec::new();
        for (group, calls) in &mut self.groups {
            while calls.in_progress < MAX_CALLS_PER_GROUP && calls.paused_until <= now {
                let first_due = calls.queued.iter().position(|(_, due)| *due <= now);
                let Some((region, _)) = first_due.and_then(|at| calls.queued.remove(at)) else {
                    break;
                };
                calls.in_progress += 1;
                due.push(StepRegion { region, group: *group });
            }
        }
        due
    }

    /// Returns the time of the next call that waits; `None`: no call begins before another one has ended.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let has_room = |calls: &&GroupCalls| calls.in_progress < MAX_CALLS_PER_GROUP;
        let first = |calls: &GroupCalls| {
            // Most regions have no wait of their own: the search ends at the first of them.
            if calls.queued.iter().any(|(_, due)| *due <= calls.paused_until) {
                return Some(calls.paused_until);
            }
            calls.queued.iter().map(|(_, due)| *due).min()
        };
        self.groups.values().filter(has_room).filter_map(first).min()
    }

    /// Records that a region has completed its part.
    pub(super) fn record_completed(&mut self, at: StepRegion) {
        let Some(calls) = self.groups.get_mut(&at.group) else { return };
        calls.in_progress = calls.in_progress.saturating_sub(1);
        calls.failures.remove(&at.region);
    }

    /// Records that a call has failed. A group that does not have one of its regions may have the others.
    pub(super) fn record_failed(&mut self, at: StepRegion, reason: Reason, now: Instant) {
        let Some(calls) = self.groups.get_mut(&at.group) else { return };
        calls.in_progress = calls.in_progress.saturating_sub(1);
        let failures = calls.failures.entry(at.region).or_default();
        *failures = failures.saturating_add(1);
        let until = now + BACKOFF.without_jitter(*failures);
        calls.queued.push_front((at.region, until));
        if reason != Reason::RegionNotFound {
            calls.paused_until = calls.paused_until.max(until);
        }
    }

    /// Returns whether all regions have completed their part.
    pub(super) fn is_complete(&self) -> bool {
        self.groups.values().all(|calls| calls.in_progress == 0 && calls.queued.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    const FIRST: GroupId = GroupId(1);
    const SECOND: GroupId = GroupId(2);

    fn queue(regions: &[(GroupId, Range<u64>)], now: Instant) -> CallQueue {
        let ids =
            |numbers: &Range<u64>| -> Vec<RegionId> { numbers.clone().map(RegionId).collect() };
        let regions: BTreeMap<GroupId, Vec<RegionId>> =
            regions.iter().map(|(group, numbers)| (*group, ids(numbers))).collect();
        CallQueue::new(regions, now)
    }

    fn regions(calls: &[StepRegion]) -> Vec<u64> {
        calls.iter().map(|at| at.region.get()).collect()
    }

    fn at(group: GroupId, region: u64) -> StepRegion {
        StepRegion { region: RegionId(region), group }
    }

    #[test]
    fn each_group_has_few_calls_at_a_time() {
        let now = Instant::now();
        let mut queue = queue(&[(FIRST, 0..10), (SECOND, 20..22)], now);
        assert_eq!(queue.next_due(), Some(now));
        assert_eq!(regions(&queue.take_due(now)), [0, 1, 2, 3, 4, 5, 6, 7, 20, 21]);
        assert!(queue.take_due(now).is_empty());
        assert_eq!(queue.next_due(), None);
        queue.record_completed(at(FIRST, 3));
        assert_eq!(regions(&queue.take_due(now)), [8]);
        assert!(!queue.is_complete());
        for region in [0, 1, 2, 4, 5, 6, 7, 8] {
            queue.record_completed(at(FIRST, region));
        }
        assert_eq!(regions(&queue.take_due(now)), [9]);
        queue.record_completed(at(FIRST, 9));
        queue.record_completed(at(SECOND, 20));
        assert!(!queue.is_complete(), "a call is in progress");
        queue.record_completed(at(SECOND, 21));
        assert!(queue.is_complete());
    }

    #[test]
    fn failed_region_is_called_again_before_others() {
        let now = Instant::now();
        let mut queue = queue(&[(FIRST, 0..10), (SECOND, 20..21)], now);
        queue.take_due(now);
        queue.record_failed(at(FIRST, 2), Reason::NotLeader, now);
        queue.record_completed(at(FIRST, 3));
        // Its group gets no calls, the other one does.
        assert!(queue.take_due(now).is_empty());
        let first = now + BACKOFF.first;
        assert_eq!(queue.next_due(), Some(first));
        assert_eq!(regions(&queue.take_due(first)), [2, 8]);
        // The waits grow.
        queue.record_failed(at(FIRST, 2), Reason::NotLeader, first);
        assert_eq!(queue.next_due(), Some(first + BACKOFF.first * 2));
        queue.record_completed(at(SECOND, 20));
        assert!(!queue.is_complete());
    }

    #[test]
    fn lost_region_delays_no_other_region() {
        let now = Instant::now();
        let mut queue = queue(&[(FIRST, 0..10)], now);
        queue.take_due(now);
        queue.record_failed(at(FIRST, 2), Reason::RegionNotFound, now);
        assert_eq!(regions(&queue.take_due(now)), [8]);
        queue.record_completed(at(FIRST, 3));
        assert_eq!(regions(&queue.take_due(now)), [9]);
        queue.record_completed(at(FIRST, 4));
        assert_eq!(queue.next_due(), Some(now + BACKOFF.first));
        assert_eq!(regions(&queue.take_due(now + BACKOFF.first)), [2]);
    }
}
