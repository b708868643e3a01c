//! Load windows of the regions that this node leads, for heartbeats: the busiest routes, and sampled keys of a few.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use tidewater_common::agreed_limits::{LOAD_ROUTES, LOAD_SAMPLED_ROUTES, LOAD_WINDOW_MS};
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_proto::v1;
use tokio::time::Instant;

use crate::group::region_load::MeasuredLoad;
use crate::groups::Groups;

/// Ends windows, and keeps the last one until the meta leader has accepted it.
#[derive(Debug)]
pub(super) struct LoadWindows {
    begun: Instant,
    unsent: BTreeMap<GroupId, v1::GroupLoad>,
}

impl LoadWindows {
    pub(super) fn new(now: Instant) -> Self {
        Self { begun: now, unsent: BTreeMap::new() }
    }

    /// Ends the current window if it is time, and adds the last one to the reports of the groups.
    pub(super) fn report(
        &mut self,
        groups: &Groups,
        reports: &mut [v1::GroupReport],
        now: Instant,
    ) {
        let length = now.saturating_duration_since(self.begun);
        if length >= Duration::from_millis(LOAD_WINDOW_MS) {
            self.begun = now;
            // Of all regions: a replica that begins to lead reports no load from before.
            let mut measured = Vec::new();
            for replica in groups.all() {
                let regions = replica.shared.regions.current().into_iter();
                let loads = regions.map(|hosted| (hosted.descriptor.region_id, hosted.load.take()));
                let loads: Vec<_> = loads.collect();
                if replica.leadership().is_leader {
                    measured.push((replica.group(), loads));
                }
            }
            self.unsent = summarize(measured, length);
        }
        for report in reports {
            report.load = self.unsent.get(&GroupId(report.group_id)).cloned();
        }
    }

    /// The meta leader has accepted a heartbeat with the last window.
    pub(super) fn mark_sent(&mut self) {
        self.unsent.clear();
    }
}

/// Returns the loads to report: those of the routes with the highest scores. Each group has one, also without load: its
/// absence would mean that nothing is known.
fn summarize(
    measured: Vec<(GroupId, Vec<(RegionId, MeasuredLoad)>)>,
    length: Duration,
) -> BTreeMap<GroupId, v1::GroupLoad> {
    let window_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX).max(1);
    let mut loads: BTreeMap<GroupId, v1::GroupLoad> = BTreeMap::new();
    let mut routes = Vec::new();
    for (group, regions) in measured {
        loads.insert(group, v1::GroupLoad { window_ms, ..v1::GroupLoad::default() });
        let busy = regions.into_iter().filter(|(_, load)| load.score() > 0);
        routes.extend(busy.map(|(region, load)| (group, region, load)));
    }
    routes.sort_by_key(|(_, region, load)| (Reverse(load.score()), *region));
    let mut sampled = 0;
    for (rank, (group, region, load)) in routes.into_iter().enumerate() {
        let Some(of_group) = loads.get_mut(&group) else { continue };
        if rank >= LOAD_ROUTES {
            let score = u128::from(load.score()) * 60_000 / u128::from(window_ms);
            let score = u64::try_from(score).unwrap_or(u64::MAX);
            of_group.rest_score = of_group.rest_score.max(score);
            continue;
        }
        // Scans have no keys.
        let keys = if sampled < LOAD_SAMPLED_ROUTES { load.keys } else { Vec::new() };
        sampled += usize::from(!keys.is_empty());
        of_group.routes.push(v1::RouteLoad {
            route_id: region.get(),
            writes: load.writes,
            reads: load.reads,
            keys: keys.into_iter().map(Into::into).collect(),
        });
    }
    loads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busiest_routes_are_listed_and_the_others_bounded() {
        let load = |writes| MeasuredLoad { writes, reads: 1, keys: vec![vec![1]] };
        let first = (1..=40).map(|id| (RegionId(id), load(id * 10))).collect();
        let second = (41..=80).map(|id| (RegionId(id), load(1_000 + id))).collect();
        let idle = vec![(RegionId(90), MeasuredLoad::default())];
        let measured = vec![(GroupId(1), first), (GroupId(2), second), (GroupId(3), idle)];
        let loads = summarize(measured, Duration::from_secs(6));
        let listed: usize = loads.values().map(|load| load.routes.len()).sum();
        assert_eq!(listed, LOAD_ROUTES);
        assert_eq!(loads[&GroupId(2)].routes.len(), 40, "they are busier");
        assert_eq!(loads[&GroupId(2)].rest_score, 0);
        // The busiest one that is not listed has 160 writes and a read in 6 s.
        assert_eq!(loads[&GroupId(1)].rest_score, (160 * 4 + 1) * 10);
        assert!(loads[&GroupId(3)].routes.is_empty(), "it has a window without load");
        let sampled = loads.values().flat_map(|load| &load.routes);
        assert_eq!(sampled.filter(|route| !route.keys.is_empty()).count(), LOAD_SAMPLED_ROUTES);
        assert_eq!(loads[&GroupId(2)].routes[0].route_id, 80);
    }
}
