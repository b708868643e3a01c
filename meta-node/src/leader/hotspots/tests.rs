use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{LogIndex, NodeId, Term};
use tidewater_common::keys::split_global_key;
use tidewater_proto::v1::{self, HotspotMode, ProcedureKind, meta_command::Kind};

use super::*;
use crate::commands::procedures::testing::{begin, complete};
use crate::commands::testing::{
    directory, pass, raise_to_highest, registration, run, table, with_groups,
};
use crate::leader::ObservedGroup;
use crate::leader::balance::BALANCE_AFTER;
use crate::leader::observations::{RouteLoad, WindowLoad};
use crate::leader::route_balance::{LoadLimits, plan_moves};

/// Split score of these clusters.
const HOT: u64 = 1_000;
const TABLE: TableId = TableId(1);

/// A table whose load is given by key. Group `n` is led by node `100 + n`.
struct Cluster {
    state: MetaState,
    /// Row keys with their scores.
    load: BTreeMap<Vec<u8>, u64>,
    number: u64,
}

impl Cluster {
    fn new(groups: u64, regions: u32) -> Self {
        let mut state = with_groups(groups, groups);
        raise_to_highest(&mut state);
        let create = v1::CreateTableRequest { regions, ..table(1, "t") };
        run(&mut state, Kind::CreateTable(create)).unwrap();
        run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: TABLE.get() })).unwrap();
        let mut cluster = Self { state, load: BTreeMap::new(), number: 100 };
        cluster.set(v1::SetBalanceRequest {
            hotspots: Some(HotspotMode::On.into()),
            split_score: Some(HOT),
            ..v1::SetBalanceRequest::default()
        });
        cluster
    }

    fn set(&mut self, request: v1::SetBalanceRequest) {
        run(&mut self.state, Kind::SetBalance(request)).unwrap();
    }

    /// Spreads a score evenly over all first bytes of a key.
    fn load_evenly(&mut self, from: u8, to: u8, score: u64) {
        let keys = u64::from(to - from) + 1;
        self.load = (from..=to).map(|first| (vec![first, 1], score / keys)).collect();
    }

    fn score_of(&self, route: &RouteDescriptor) -> u64 {
        self.keys_of(route).map(|(_, score)| score).sum()
    }

    fn keys_of(&self, route: &RouteDescriptor) -> impl Iterator<Item = (&Vec<u8>, u64)> {
        let (_, start) = split_global_key(&route.start).unwrap();
        let end = route.end.as_deref().and_then(split_global_key);
        let end = end.filter(|(table, _)| *table == TABLE).map(|(_, key)| key.to_vec());
        let start = start.to_vec();
        let is_in =
            move |key: &&Vec<u8>| **key >= start && end.as_ref().is_none_or(|end| *key < end);
        self.load.iter().filter(move |(key, _)| is_in(key)).map(|(key, score)| (key, *score))
    }

    /// One window with the current load of a group.
    fn window(&self, group: GroupId) -> Arc<WindowLoad> {
        let routes = self.state.routes_of(TABLE).filter(|route| route.group_id == group);
        let loads = routes.filter(|route| self.score_of(route) > 0).map(|route| {
            let score = self.score_of(route);
            // 64 samples in proportion to the scores.
            let samples = self.keys_of(route).flat_map(|(key, of_key)| {
                let times = usize::try_from((of_key * 64).div_ceil(score)).unwrap();
                std::iter::repeat_n(Bytes::from(key.clone()), times)
            });
            (route.route_id, RouteLoad { score, keys: samples.collect() })
        });
        Arc::new(WindowLoad { routes: loads.collect(), rest_score: 0 })
    }

    /// Windows in which the load was always as it is now.
    fn loads(&self) -> ObservedLoads {
        let groups = self.state.live_groups();
        let windows = |group: GroupId| vec![self.window(group); WINDOWS_KEPT];
        ObservedLoads { groups: groups.map(|group| (group.id, windows(group.id))).collect() }
    }

    fn observed(&self) -> ObservedCluster {
        let report = |group: GroupId| ObservedGroup {
            term: Term(1),
            leader: NodeId(100 + group.get()),
            voters: BTreeSet::new(),
            learners: BTreeSet::new(),
            membership: (Term(1), LogIndex(4)),
            effective: Some((Term(1), LogIndex(4))),
            caught_up: BTreeSet::new(),
        };
        let groups: Vec<GroupId> = self.state.live_groups().map(|group| group.id).collect();
        ObservedCluster {
            quiet_for: BALANCE_AFTER,
            leading_for: BALANCE_AFTER,
            groups: groups.iter().map(|group| (*group, report(*group))).collect(),
            reported_for: groups.iter().map(|group| (*group, Duration::ZERO)).collect(),
            ..ObservedCluster::default()
        }
    }

    fn find(&self) -> Vec<RouteAdvice> {
        find_hotspots(&self.state, &self.observed(), &self.loads()).advice
    }

    /// The steps that a round begins.
    fn plan(&self) -> Vec<PlacementStep> {
        let (observed, loads) = (self.observed(), self.loads());
        let hotspots = find_hotspots(&self.state, &observed, &loads);
        if let Some(step) = next_step(&self.state, &hotspots) {
            return vec![step];
        }
        let gathered = cold_routes(&self.state, &loads);
        let is_settled = is_settled(&self.state);
        let limits = LoadLimits { nodes: &hotspots.nodes, gathered, is_settled };
        plan_moves(&self.state, &observed, Some(&limits))
    }

    fn perform(&mut self, step: &PlacementStep) {
        self.number += 1;
        let number = self.number;
        let request_id = directory(number);
        let (command, steps) = match step {
            PlacementStep::SplitRoute { route, key } => {
                let request = v1::SplitRouteRequest {
                    request_id,
                    route_id: route.get(),
                    split_key: key.clone(),
                    expected_version: 0,
                    for_load: true,
                };
                (begin(ProcedureKind::Split, number, &request), 3)
            }
            PlacementStep::MergeRoutes { left, right } => {
                let request = v1::MergeRoutesRequest {
                    request_id,
                    route_id: left.get(),
                    neighbour_id: right.get(),
                    expected_version: 0,
                };
                (begin(ProcedureKind::Merge, number, &request), 4)
            }
            PlacementStep::MoveRoute { route, to } => {
                let request = v1::MoveRouteRequest {
                    request_id,
                    route_id: route.get(),
                    target_group_id: to.get(),
                    expected_version: 0,
                };
                (begin(ProcedureKind::Move, number, &request), 6)
            }
            other => panic!("{other:?}"),
        };
        run(&mut self.state, command).unwrap();
        (0..steps).for_each(|_| complete(&mut self.state, number));
    }

    /// Performs what the rounds plan until there is nothing left to do for longer than all rests; returns the number of
    /// operations.
    fn settle(&mut self) -> usize {
        let mut performed = 0;
        let mut idle = 0;
        while idle < 2 {
            let steps = self.plan();
            for step in &steps {
                self.perform(step);
                performed += 1;
            }
            assert!(performed < 500, "the balance does not end: {:?}", self.plan());
            idle = if steps.is_empty() { idle + 1 } else { 0 };
            pass(&mut self.state, if steps.is_empty() { 70 } else { 7 });
        }
        performed
    }

    /// Score of the busiest node as a multiple of the mean, in percent.
    fn busiest(&self) -> u64 {
        let hotspots = find_hotspots(&self.state, &self.observed(), &self.loads());
        let (busiest, mean) = hotspots.nodes.busiest_and_mean();
        busiest * 100 / mean.max(1)
    }

    fn routes(&self) -> usize {
        self.state.routes_of(TABLE).count()
    }
}

fn actions(advice: &[RouteAdvice]) -> Vec<&RouteAction> {
    advice.iter().map(|advice| &advice.action).collect()
}

#[test]
fn hot_route_is_split_at_its_median() {
    let mut cluster = Cluster::new(1, 1);
    cluster.load_evenly(0x10, 0x4f, 2 * HOT);
    let advice = cluster.find();
    let key = Bytes::from_static(&[0x30, 1]);
    assert_eq!(actions(&advice), [&RouteAction::Split { key: key.clone() }]);
    assert!(advice[0].score > HOT);
    let step = cluster.plan().remove(0);
    assert!(matches!(&step, PlacementStep::SplitRoute { key: at, .. } if *at == key));
    cluster.perform(&step);
    assert_eq!(cluster.routes(), 2);
    assert!(cluster.find().is_empty(), "the children rest, and have half of the load");
}

#[test]
fn flood_of_load_splits_nothing() {
    let mut cluster = Cluster::new(1, 1);
    let idle = cluster.loads();
    cluster.load_evenly(0, 0xff, 50 * HOT);
    for (flooded, splits) in [(HOT_WINDOWS - 1, false), (HOT_WINDOWS, true)] {
        let mut loads = cluster.loads();
        let windows = loads.groups.get_mut(&GroupId(1)).unwrap();
        windows.truncate(flooded);
        windows.extend(idle.groups[&GroupId(1)].iter().take(WINDOWS_KEPT - flooded).cloned());
        let found = find_hotspots(&cluster.state, &cluster.observed(), &loads).advice;
        assert_eq!(!found.is_empty(), splits, "{flooded} windows: {found:?}");
    }
    // Windows are missing: a leader was silent.
    let mut loads = cluster.loads();
    loads.groups.get_mut(&GroupId(1)).unwrap().truncate(2);
    let found = find_hotspots(&cluster.state, &cluster.observed(), &loads);
    assert_eq!((found.advice, found.unknown), (Vec::new(), vec![GroupId(1)]));
}

#[test]
fn hot_key_and_full_table_are_only_reported() {
    let mut cluster = Cluster::new(1, 1);
    cluster.load = BTreeMap::from([(vec![7], 10 * HOT)]);
    assert_eq!(actions(&cluster.find()), [&RouteAction::NoSplitKey]);
    assert_eq!(cluster.plan(), []);
    cluster.load_evenly(0, 0xff, 10 * HOT);
    cluster.set(v1::SetBalanceRequest { max_routes: Some(1), ..Default::default() });
    assert_eq!(actions(&cluster.find()), [&RouteAction::TooManyRoutes]);
    assert_eq!(cluster.plan(), []);
}

#[test]
fn split_for_load_needs_the_mode_on() {
    let mut cluster = Cluster::new(1, 1);
    cluster.load_evenly(0, 0xff, 10 * HOT);
    let route = cluster.state.routes_of(TABLE).next().unwrap().route_id;
    for mode in [HotspotMode::Off, HotspotMode::Advise] {
        cluster.set(v1::SetBalanceRequest { hotspots: Some(mode.into()), ..Default::default() });
        let request = v1::SplitRouteRequest {
            request_id: directory(90),
            route_id: route.get(),
            split_key: Bytes::from_static(&[9]),
            expected_version: 0,
            for_load: true,
        };
        let refused = run(&mut cluster.state, begin(ProcedureKind::Split, 90, &request));
        assert!(refused.unwrap_err().to_string().contains("hotspots are not on"));
    }
}

/// A load on a part of the keys is spread over all nodes by splits and moves, and they end.
#[test]
fn hot_range_is_spread_over_the_nodes() {
    for (groups, regions) in [(3, 1), (3, 3), (4, 9), (2, 8)] {
        let mut cluster = Cluster::new(groups, regions);
        cluster.load_evenly(0, 0x1f, 8 * HOT);
        cluster.settle();
        assert!(cluster.busiest() <= 150, "{groups} groups: {} %", cluster.busiest());
        let hottest = cluster.state.routes_of(TABLE).map(|route| cluster.score_of(route)).max();
        assert!(hottest <= Some(HOT), "{hottest:?}");
    }
}

/// The load wanders, so that a route is hot after each split: a move that relieves the node is not held up for long.
#[test]
fn splits_do_not_hold_up_relief() {
    let mut cluster = Cluster::new(2, 1);
    cluster.set(v1::SetBalanceRequest { rest_ms: Some(1_000), ..Default::default() });
    let mut operations = Vec::new();
    for seconds in (0_u8..240).step_by(4) {
        cluster.load_evenly(seconds / 2, seconds / 2 + 0x7f, 60 * HOT);
        let steps = cluster.plan();
        steps.iter().for_each(|step| cluster.perform(step));
        operations.extend(steps);
        pass(&mut cluster.state, 4);
    }
    let is_move = |step: &PlacementStep| matches!(step, PlacementStep::MoveRoute { .. });
    let first = operations.iter().position(is_move).unwrap();
    assert!((10..40).contains(&first), "{first} splits precede the first move");
    assert!(operations.len() > first + 10, "splits continue after it");
}

/// Any load and any first place of the routes: splits, merges, moves for the load and moves that spread routes end.
#[test]
fn operations_end_under_any_load() {
    let mut bits: u64 = 7;
    let mut random = |limit: u64| {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (bits >> 33) % limit
    };
    for _ in 0..40 {
        let groups = 2 + random(4);
        let mut cluster = Cluster::new(groups, 1 + u32::try_from(random(20)).unwrap());
        for _ in 0..3 {
            cluster.load = (0..1 + random(40))
                .map(|_| (vec![u8::try_from(random(256)).unwrap(), 1], 1 + random(3 * HOT)))
                .collect();
            cluster.settle();
        }
    }
}

/// The load wanders over the keys and stops: the routes that it has made are merged again.
#[test]
fn routes_are_merged_after_the_load() {
    for groups in [1, 3] {
        let mut cluster = Cluster::new(groups, 3);
        for begin in [0, 0x40, 0x80, 0xc0] {
            cluster.load_evenly(begin, begin + 0x1f, 6 * HOT);
            cluster.settle();
            assert!(cluster.routes() > 3);
        }
        cluster.load.clear();
        cluster.settle();
        assert_eq!(cluster.routes(), 3, "{groups} groups");
        assert_eq!(cluster.state.soft_starts().count(), 0);
        let restored = MetaState::from_rows(cluster.state.rows().unwrap()).unwrap();
        assert_eq!(restored, cluster.state);
    }
}

#[test]
fn boundaries_of_operators_are_not_merged() {
    let mut cluster = Cluster::new(1, 4);
    assert_eq!(cluster.settle(), 0);
    let route = cluster.state.routes_of(TABLE).next().unwrap().route_id;
    let request = v1::SplitRouteRequest {
        request_id: directory(90),
        route_id: route.get(),
        split_key: Bytes::from_static(&[0x20]),
        expected_version: 0,
        for_load: false,
    };
    run(&mut cluster.state, begin(ProcedureKind::Split, 90, &request)).unwrap();
    (0..3).for_each(|_| complete(&mut cluster.state, 90));
    pass(&mut cluster.state, 120);
    assert_eq!((cluster.settle(), cluster.routes()), (0, 5));
}

#[test]
fn children_of_a_split_are_not_merged_soon() {
    let mut cluster = Cluster::new(1, 1);
    cluster.load_evenly(0, 0xff, 2 * HOT);
    let step = cluster.plan().remove(0);
    cluster.perform(&step);
    cluster.load.clear();
    // Windows of the group from before do not list them.
    pass(&mut cluster.state, 60);
    assert!(cluster.find().is_empty());
    pass(&mut cluster.state, 10);
    assert!(matches!(actions(&cluster.find())[..], [RouteAction::Merge { .. }]));
}

/// Each route moves to the group of the first one, in whatever order: not to that of its neighbour, which moves, too.
#[test]
fn chain_of_cold_routes_meets_in_one_group() {
    let mut cluster = Cluster::new(4, 1);
    cluster.set(v1::SetBalanceRequest { rest_ms: Some(1_000), ..Default::default() });
    // From the right to the left, so that ids are in another order than keys.
    for at in [0xc0, 0x80, 0x40] {
        let first = cluster.state.routes_of(TABLE).next().unwrap().route_id;
        let key = Bytes::from(vec![at]);
        cluster.perform(&PlacementStep::SplitRoute { route: first, key });
    }
    let routes: Vec<RegionId> =
        cluster.state.routes_of(TABLE).map(|route| route.route_id).collect();
    assert!(routes.len() == 4 && !routes.is_sorted(), "{routes:?}");
    for (route, to) in routes.into_iter().zip(1..) {
        if cluster.state.route(route).unwrap().group_id != GroupId(to) {
            cluster.perform(&PlacementStep::MoveRoute { route, to: GroupId(to) });
        }
    }
    pass(&mut cluster.state, 70);
    let performed = cluster.settle();
    assert_eq!((performed, cluster.routes()), (6, 1), "three moves and three merges");
}

/// Numbers of routes are evened out by routes without load, and not at the cost of even loads.
#[test]
fn spread_of_routes_keeps_loads_even() {
    let mut cluster = Cluster::new(2, 4);
    let routes: Vec<RegionId> =
        cluster.state.routes_of(TABLE).map(|route| route.route_id).collect();
    let (from, to) = (GroupId(1), GroupId(2));
    assert_eq!(cluster.state.route(routes[2]).unwrap().group_id, from);
    cluster.perform(&PlacementStep::MoveRoute { route: routes[2], to });
    pass(&mut cluster.state, 70);
    let load = |scores: [u64; 4]| {
        [0x01, 0x41, 0x81, 0xc1].into_iter().map(|key| vec![key]).zip(scores).collect()
    };
    cluster.load = load([60, 20, 20, 20]);
    assert_eq!(plan_moves(&cluster.state, &cluster.observed(), None).len(), 1);
    assert_eq!(cluster.plan(), [], "the loads are even");
    cluster.load = load([60, 40, 20, 0]);
    let without_load = PlacementStep::MoveRoute { route: routes[3], to: from };
    assert_eq!(cluster.plan(), [without_load]);
}

/// Cold neighbours that would be the load of one node, and the routes that remain: no order of moves is better.
#[test]
fn gathering_does_not_make_loads_uneven() {
    let mut cluster = Cluster::new(2, 2);
    let first = cluster.state.routes_of(TABLE).next().unwrap().route_id;
    cluster.perform(&PlacementStep::SplitRoute { route: first, key: Bytes::from_static(&[0x20]) });
    let routes: Vec<RouteDescriptor> =
        cluster.state.routes_of(TABLE).map(|route| route.as_ref().clone()).collect();
    let [left, right, other] = &routes[..] else { panic!("{routes:?}") };
    cluster.perform(&PlacementStep::MoveRoute { route: right.route_id, to: GroupId(2) });
    cluster.perform(&PlacementStep::MoveRoute { route: other.route_id, to: left.group_id });
    pass(&mut cluster.state, 70);
    cluster.load = [(vec![0x01], 110), (vec![0x21], 130), (vec![0x81], 20)].into();
    assert_eq!(cluster.settle(), 0, "{:?}", cluster.plan());
    cluster.load.clear();
    cluster.settle();
    assert_eq!(cluster.routes(), 2);
}

/// Cold neighbours do not keep a group from retiring.
#[test]
fn routes_of_a_chain_leave_a_retiring_group() {
    let mut cluster = Cluster::new(3, 1);
    let first = cluster.state.routes_of(TABLE).next().unwrap().route_id;
    cluster.perform(&PlacementStep::SplitRoute { route: first, key: Bytes::from_static(&[0x20]) });
    let right = cluster.state.routes_of(TABLE).last().unwrap().route_id;
    cluster.perform(&PlacementStep::MoveRoute { route: right, to: GroupId(2) });
    pass(&mut cluster.state, 70);
    let retiring = v1::SetGroupRetiring { group_id: 1, retiring: true };
    run(&mut cluster.state, Kind::SetGroupRetiring(retiring)).unwrap();
    cluster.settle();
    assert_eq!((cluster.state.routes_in(GroupId(1)), cluster.routes()), (0, 1));
}

/// A node that has just joined leads no group yet: others are relieved to each other.
#[test]
fn node_without_groups_does_not_stop_relief() {
    let mut cluster = Cluster::new(2, 2);
    let routes: Vec<RegionId> =
        cluster.state.routes_of(TABLE).map(|route| route.route_id).collect();
    cluster.perform(&PlacementStep::MoveRoute { route: routes[1], to: GroupId(1) });
    run(&mut cluster.state, Kind::RegisterNode(registration(60))).unwrap();
    pass(&mut cluster.state, 70);
    cluster.load = [(vec![0x01], 500), (vec![0x81], 500)].into();
    let relief = RouteAction::Relieve { to: GroupId(2) };
    assert_eq!(actions(&cluster.find()), [&relief]);
}

/// Whenever it begins, a flood of less than three windows fills parts of fewer windows than make a route hot.
#[test]
fn flood_of_three_windows_is_no_hotspot() {
    for begin_ms in (0..LOAD_WINDOW_MS).step_by(10) {
        let end_ms = begin_ms + 3 * LOAD_WINDOW_MS - 1;
        let touched = end_ms / LOAD_WINDOW_MS - begin_ms / LOAD_WINDOW_MS + 1;
        assert!(touched < HOT_WINDOWS as u64, "{begin_ms}: {touched}");
    }
}
