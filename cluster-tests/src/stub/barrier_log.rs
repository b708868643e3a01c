//! Barriers as the stub nodes receive them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::GroupId;
use tokio::time::Instant;

/// Calls and groups of one barrier.
#[derive(Debug, Clone, Copy)]
pub struct BarrierTimes {
    first_call: Instant,
    last_group: Instant,
    /// Calls that named the barrier.
    pub calls: usize,
    /// Groups that have applied it.
    pub groups: usize,
}

impl BarrierTimes {
    /// Time from the first call until the last group has applied the barrier.
    pub fn spread(&self) -> Duration {
        self.last_group.duration_since(self.first_call)
    }
}

/// Log of barriers, and the groups that apply none.
#[derive(Debug, Default)]
pub struct BarrierLog {
    state: Mutex<LogState>,
}

#[derive(Debug, Default)]
struct LogState {
    barriers: BTreeMap<u64, BarrierTimes>,
    stalled: BTreeSet<GroupId>,
}

impl BarrierLog {
    /// Forgets all barriers.
    pub fn clear(&self) {
        self.state.lock().barriers.clear();
    }

    /// Sets the groups that apply no barriers.
    pub fn stall(&self, groups: impl IntoIterator<Item = GroupId>) {
        self.state.lock().stalled = groups.into_iter().collect();
    }

    /// Returns the barriers in the order of their epochs. Calls of the last one may be in progress.
    pub fn barriers(&self) -> Vec<BarrierTimes> {
        self.state.lock().barriers.values().copied().collect()
    }

    pub(super) fn is_stalled(&self, group: GroupId) -> bool {
        self.state.lock().stalled.contains(&group)
    }

    /// Records a call, and the number of groups that have applied its barrier.
    pub(super) fn record(&self, epoch: u64, begun: Instant, groups: usize) {
        let mut state = self.state.lock();
        let times = state.barriers.entry(epoch).or_insert(BarrierTimes {
            first_call: begun,
            last_group: begun,
            calls: 0,
            groups: 0,
        });
        times.first_call = times.first_call.min(begun);
        times.calls += 1;
        times.groups += groups;
        if groups > 0 {
            times.last_group = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn log_has_the_calls_and_groups_of_each_barrier() {
        let log = BarrierLog::default();
        let begun = Instant::now();
        for (epoch, groups) in [(7, 2), (7, 3), (9, 0)] {
            tokio::time::advance(Duration::from_secs(1)).await;
            log.record(epoch, begun, groups);
        }
        let found: Vec<_> =
            log.barriers().iter().map(|b| (b.calls, b.groups, b.spread())).collect();
        assert_eq!(found, [(2, 5, Duration::from_secs(2)), (1, 0, Duration::ZERO)]);
        log.clear();
        assert!(log.barriers().is_empty());
    }

    #[test]
    fn stalled_groups_are_replaced() {
        let log = BarrierLog::default();
        log.stall([GroupId(1), GroupId(2)]);
        log.stall([GroupId(3)]);
        assert_eq!([1, 2, 3].map(|id| log.is_stalled(GroupId(id))), [false, false, true]);
    }
}
