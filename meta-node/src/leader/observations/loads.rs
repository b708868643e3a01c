//! Loads of the routes of each group in the last windows, as the leaders' nodes have measured them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidewater_common::agreed_limits::{
    LOAD_KEY_BYTES, LOAD_KEYS, LOAD_ROUTES, LOAD_WINDOW_MS, WRITE_SCORE,
};
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_proto::v1;
use tokio::time::Instant;

/// Number of windows that are kept of each group.
pub(crate) const WINDOWS_KEPT: usize = 10;
/// Longest time between the reports of two windows in a row, and since the last one.
const MAX_GAP: Duration = Duration::from_millis(5 * LOAD_WINDOW_MS / 2);
/// Shortest time between the reports of two windows of a group.
const MIN_DISTANCE: Duration = Duration::from_millis(LOAD_WINDOW_MS / 2);
/// Shortest window that counts: the score per minute of a shorter one is a guess.
const MIN_WINDOW_MS: u64 = LOAD_WINDOW_MS / 2;

/// Last windows of each group, newest last.
#[derive(Debug, Default)]
pub(super) struct GroupLoads {
    by_group: BTreeMap<GroupId, VecDeque<(Instant, Arc<WindowLoad>)>>,
}

/// Load of the routes of a group in one window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WindowLoad {
    /// Loads of the busiest routes.
    pub(crate) routes: BTreeMap<RegionId, RouteLoad>,
    /// Greatest score of the others.
    pub(crate) rest_score: u64,
}

/// Load of a route in one window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RouteLoad {
    /// Weighted accesses per minute.
    pub(crate) score: u64,
    /// Sampled row keys, each of which stands for the same part of the load.
    pub(crate) keys: Vec<Bytes>,
}

impl WindowLoad {
    /// Upper bound of a route's score.
    pub(crate) fn at_most(&self, route: RegionId) -> u64 {
        self.routes.get(&route).map_or(self.rest_score, |load| load.score)
    }

    fn from_report(report: &v1::GroupLoad) -> Self {
        let per_minute = |route: &v1::RouteLoad| {
            let score =
                u128::from(route.writes) * u128::from(WRITE_SCORE) + u128::from(route.reads);
            u64::try_from(score * 60_000 / u128::from(report.window_ms.max(1))).unwrap_or(u64::MAX)
        };
        let load = |route: &v1::RouteLoad| {
            let keys = route.keys.iter().take(LOAD_KEYS);
            // Copies: a part of the heartbeat would keep all of it in memory.
            let keys = keys.filter(|key| key.len() <= LOAD_KEY_BYTES);
            let keys = keys.map(|key| Bytes::copy_from_slice(key)).collect();
            (RegionId(route.route_id), RouteLoad { score: per_minute(route), keys })
        };
        let routes = report.routes.iter().take(LOAD_ROUTES).map(load).collect();
        Self { routes, rest_score: report.rest_score }
    }
}

impl GroupLoads {
    /// Records the window in the report of a group's leader.
    pub(super) fn record(&mut self, group: GroupId, report: &v1::GroupLoad, now: Instant) {
        if report.window_ms < MIN_WINDOW_MS {
            return;
        }
        let windows = self.by_group.entry(group).or_default();
        // A heartbeat that was repeated, or the overlapping window of a new leader.
        let is_repeated =
            windows.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) < MIN_DISTANCE);
        if is_repeated {
            return;
        }
        if windows.len() >= WINDOWS_KEPT {
            windows.pop_front();
        }
        windows.push_back((now, Arc::new(WindowLoad::from_report(report))));
    }

    /// Removes the windows of other groups.
    pub(super) fn retain(&mut self, is_live: impl Fn(GroupId) -> bool) {
        self.by_group.retain(|group, _| is_live(*group));
    }

    /// Returns the windows that follow each other without a gap until now.
    pub(super) fn snapshot(&self, now: Instant) -> ObservedLoads {
        let mut groups = BTreeMap::new();
        for (group, windows) in &self.by_group {
            let mut before = now;
            let recent = windows.iter().rev().take_while(|(at, _)| {
                let is_next = before.saturating_duration_since(*at) <= MAX_GAP;
                before = *at;
                is_next
            });
            let recent: Vec<_> = recent.map(|(_, load)| Arc::clone(load)).collect();
            groups.insert(*group, recent);
        }
        ObservedLoads { groups }
    }
}

/// A frozen copy of the loads: the windows of each group without a gap until now, newest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObservedLoads {
    pub(crate) groups: BTreeMap<GroupId, Vec<Arc<WindowLoad>>>,
}

impl ObservedLoads {
    /// Returns the last windows of a group; `None`: they are not all known.
    pub(crate) fn last(&self, group: GroupId, windows: usize) -> Option<&[Arc<WindowLoad>]> {
        self.groups.get(&group)?.get(..windows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(writes: u64) -> v1::GroupLoad {
        let keys = vec![Bytes::from_static(b"k"), vec![0; LOAD_KEY_BYTES + 1].into()];
        let route = v1::RouteLoad { route_id: 7, writes, reads: 2, keys };
        v1::GroupLoad { window_ms: LOAD_WINDOW_MS, routes: vec![route], rest_score: 5 }
    }

    #[test]
    fn windows_are_kept_until_a_gap() {
        let begun = Instant::now();
        let at = |window: u64| begun + Duration::from_millis(window * LOAD_WINDOW_MS);
        let mut loads = GroupLoads::default();
        let group = GroupId(1);
        for window in 0..20 {
            loads.record(group, &report(window), at(window));
        }
        loads.record(group, &v1::GroupLoad { window_ms: 9, ..report(999) }, at(19));
        // Repeated heartbeats add no window.
        for _ in 0..5 {
            loads.record(group, &report(888), at(19) + Duration::from_secs(1));
        }
        let known = loads.snapshot(at(20));
        let last = known.last(group, WINDOWS_KEPT).unwrap();
        assert_eq!(last[0].routes[&RegionId(7)].score, (19 * WRITE_SCORE + 2) * 10);
        assert_eq!(last[0].routes[&RegionId(7)].keys, [Bytes::from_static(b"k")]);
        assert_eq!((last[0].at_most(RegionId(7)), last[0].at_most(RegionId(8))), (780, 5));
        assert!(known.last(group, WINDOWS_KEPT + 1).is_none());
        assert!(known.last(GroupId(2), 1).is_none());
        // A leader was silent for three windows.
        loads.record(group, &report(1), at(23));
        assert_eq!(loads.snapshot(at(23)).groups[&group].len(), 1);
        assert!(loads.snapshot(at(26)).last(group, 1).is_none(), "it is too old");
        loads.retain(|_| false);
        assert!(loads.snapshot(at(23)).groups.is_empty());
    }
}
