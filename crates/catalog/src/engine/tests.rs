use std::sync::atomic::{AtomicBool, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;
use tidewater_proto::v1;

use super::*;
use crate::testing::route;

fn snapshot(version: u64, routes: Vec<RouteDescriptor>) -> RouteSnapshot {
    RouteSnapshot { incarnation: Incarnation(1), version: CatalogVersion(version), routes }
}

fn delta(version: u64, upserts: Vec<RouteDescriptor>, deletes: &[u64]) -> RouteDelta {
    RouteDelta {
        previous: CatalogVersion(version - 1),
        version: CatalogVersion(version),
        upserts,
        deletes: deletes.iter().copied().map(RegionId).collect(),
    }
}

/// An engine at version 5 with the routes 1 (b to d), 2 (d to f) and 3 (from h on).
fn engine() -> RouteEngine {
    let engine = RouteEngine::new();
    assert_eq!(engine.apply_snapshot(snapshot(5, three())), Ok(true));
    engine
}

fn three() -> Vec<RouteDescriptor> {
    vec![route(1, b"b", Some(b"d")), route(2, b"d", Some(b"f")), route(3, b"h", None)]
}

fn id_of(route: Option<Arc<EngineRoute>>) -> Option<u64> {
    route.map(|route| route.descriptor().route_id.get())
}

fn found(engine: &RouteEngine, key: &[u8]) -> Option<u64> {
    id_of(engine.get_route(key))
}

/// Id, start, end and group of a route.
type RouteRange = (u64, Vec<u8>, Option<Vec<u8>>, u64);

fn ranges(engine: &RouteEngine) -> Vec<RouteRange> {
    let (_, routes) = engine.routes();
    let all = routes.iter().map(|route| route.descriptor().clone());
    all.map(|route| (route.route_id.get(), route.start, route.end, route.group_id.get())).collect()
}

#[test]
fn snapshot_serves_lookups() {
    let engine = engine();
    assert_eq!(engine.version(), CatalogVersion(5));
    assert_eq!(engine.incarnation(), Incarnation(1));
    assert_eq!(found(&engine, b"a"), None);
    assert_eq!(found(&engine, b"b"), Some(1));
    assert_eq!(found(&engine, b"f"), None);
    assert_eq!(found(&engine, b"z"), Some(3));
    let intersecting = |start: &[u8], end: Option<&[u8]>| {
        let routes = engine.intersecting_routes(start, end);
        routes.iter().map(|route| route.descriptor().route_id.get()).collect::<Vec<_>>()
    };
    assert_eq!(intersecting(b"c", None), [1, 2, 3]);
    assert_eq!(intersecting(b"", Some(b"d")), [1]);
    assert_eq!(intersecting(b"f", Some(b"h")), [0; 0]);
}

#[test]
fn older_snapshot_is_stale() {
    let engine = engine();
    let at = |incarnation, version| EngineVersion {
        incarnation: Incarnation(incarnation),
        version: CatalogVersion(version),
    };
    let stale = EngineError::SnapshotVersionStale { have: at(1, 5), got: at(1, 4) };
    assert_eq!(engine.apply_snapshot(snapshot(4, three())), Err(stale));
    let restored = RouteSnapshot { incarnation: Incarnation(2), ..snapshot(3, three()) };
    assert_eq!(engine.apply_snapshot(restored), Ok(true), "a restored catalog goes back");
    let stale = EngineError::SnapshotVersionStale { have: at(2, 3), got: at(1, 9) };
    assert_eq!(engine.apply_snapshot(snapshot(9, three())), Err(stale));
    assert_eq!(engine.version(), CatalogVersion(3));
}

#[test]
fn other_routes_at_the_same_version_diverge() {
    let engine = engine();
    assert_eq!(engine.apply_snapshot(snapshot(5, three())), Ok(false));
    let changes: [fn(&mut RouteDescriptor); 8] = [
        |route| route.route_id = RegionId(9),
        |route| route.start = b"bb".to_vec(),
        |route| route.end = Some(b"cc".to_vec()),
        |route| route.group_id = GroupId(9),
        |route| route.state = RouteState::WriteFenced,
        |route| route.parent_route_id = Some(RegionId(9)),
        |route| route.epoch = Epoch(9),
        |route| route.incarnation = Incarnation(9),
    ];
    for change in changes {
        let mut routes = three();
        change(&mut routes[0]);
        let (known, received) = (routes_digest(&three()), routes_digest(&routes));
        let error = EngineError::CatalogDivergence { version: CatalogVersion(5), known, received };
        assert_eq!(engine.apply_snapshot(snapshot(5, routes)), Err(error));
    }
    let mut fewer = three();
    fewer.pop();
    assert!(matches!(
        engine.apply_snapshot(snapshot(5, fewer)),
        Err(EngineError::CatalogDivergence { .. })
    ));
    assert_eq!(ranges(&engine).len(), 3);
}

#[test]
fn digest_is_the_same_in_every_process() {
    let routes = [
        RouteDescriptor { parent_route_id: Some(RegionId(7)), ..route(1, b"b", Some(b"d")) },
        route(3, b"h", None),
    ];
    assert_eq!(routes_digest(&routes), GOLDEN_DIGEST);
    // Bytes at the border of two keys belong to one of them.
    let moved = [route(1, b"bd", Some(b"e")), route(1, b"b", Some(b"de"))];
    assert_ne!(routes_digest(&moved[..1]), routes_digest(&moved[1..]));
}

const GOLDEN_DIGEST: u64 = 0x5f44_feb3_04da_9d65;

#[test]
fn invalid_snapshot_changes_nothing() {
    let engine = engine();
    let invalid = |routes, error: RouteError| {
        assert_eq!(engine.apply_snapshot(snapshot(6, routes)), Err(error.into()));
        assert_eq!(ranges(&engine).len(), 3);
        assert_eq!(engine.version(), CatalogVersion(5));
    };
    let (one, two) = (RegionId(1), RegionId(2));
    invalid(
        vec![route(1, b"a", Some(b"b")), route(1, b"b", None)],
        RouteError::DuplicateRouteId(one),
    );
    invalid(vec![route(1, b"b", None), route(2, b"c", None)], RouteError::Order(one, two));
    invalid(vec![route(1, b"b", Some(b"d")), route(2, b"c", None)], RouteError::Overlap(one, two));
    invalid(vec![route(0, b"b", None)], RouteError::RouteIdRequired);
    invalid(vec![route(1, b"b", Some(b"b"))], RouteError::InvalidRange(one));
    let homeless = RouteDescriptor { group_id: GroupId(0), ..route(1, b"b", None) };
    invalid(vec![homeless], RouteError::GroupIdRequired(one));
}

#[test]
fn delta_leads_to_the_next_version_only() {
    let engine = engine();
    for (previous, version) in [(4, 5), (5, 7), (6, 7), (4, 6), (5, 5), (0, 1)] {
        let delta = RouteDelta {
            previous: CatalogVersion(previous),
            version: CatalogVersion(version),
            upserts: vec![],
            deletes: vec![],
        };
        let gap = EngineError::DeltaVersionGap {
            have: CatalogVersion(5),
            previous: delta.previous,
            version: delta.version,
        };
        assert_eq!(engine.apply_delta(delta), Err(gap));
    }
    let split = vec![route(4, b"d", Some(b"e")), route(5, b"e", Some(b"f"))];
    assert_eq!(engine.apply_delta(delta(6, split, &[2])), Ok(()));
    assert_eq!((found(&engine, b"d"), found(&engine, b"e")), (Some(4), Some(5)));
    assert_eq!(engine.version(), CatalogVersion(6));
    let last = CatalogVersion(u64::MAX);
    let full = RouteSnapshot { version: last, ..snapshot(0, three()) };
    engine.apply_snapshot(full).unwrap();
    let beyond = RouteDelta { previous: last, version: last, upserts: vec![], deletes: vec![] };
    assert_eq!(engine.apply_delta(beyond), Err(RouteError::VersionOverflow.into()));
}

#[test]
fn invalid_delta_changes_nothing() {
    let engine = engine();
    let before = ranges(&engine);
    let overlap = RouteError::Overlap(RegionId(9), RegionId(3));
    for (upserts, deletes, error) in [
        (vec![route(9, b"f", None)], &[][..], overlap.clone()),
        // The delete of another route does not remain.
        (vec![route(9, b"f", None)], &[1], overlap),
        (
            vec![route(9, b"f", Some(b"g")), route(9, b"g", Some(b"h"))],
            &[],
            RouteError::DuplicateRouteId(RegionId(9)),
        ),
        (vec![route(0, b"f", Some(b"g"))], &[], RouteError::RouteIdRequired),
    ] {
        assert_eq!(engine.apply_delta(delta(6, upserts, deletes)), Err(error.into()));
        assert_eq!(ranges(&engine), before);
        assert_eq!(engine.version(), CatalogVersion(5));
    }
}

#[test]
fn earlier_versions_are_kept_up_to_a_limit() {
    let engine = engine();
    engine.apply_delta(delta(6, vec![], &[1])).unwrap();
    engine.apply_delta(delta(7, vec![route(1, b"b", Some(b"d"))], &[])).unwrap();
    let at = |version, key: &[u8]| engine.route_at(CatalogVersion(version), key).map(id_of);
    assert_eq!(at(5, b"b"), Ok(Some(1)));
    assert_eq!(at(6, b"b"), Ok(None));
    assert_eq!(at(7, b"b"), Ok(Some(1)));
    engine.apply_snapshot(snapshot(9, three())).unwrap();
    let not_kept = |version, kept, oldest, newest| {
        let [version, oldest, newest] = [version, oldest, newest].map(CatalogVersion);
        Err(EngineError::VersionNotKept { version, kept, oldest, newest })
    };
    assert_eq!(at(8, b"b"), not_kept(8, 4, 5, 9), "the snapshot has jumped over it");
    assert_eq!(at(10, b"b"), not_kept(10, 4, 5, 9));
    for version in 10..200 {
        engine.apply_delta(delta(version, vec![], &[])).unwrap();
    }
    let oldest = 199 - KEPT_VERSIONS as u64;
    assert_eq!(at(oldest, b"b"), Ok(Some(1)));
    assert_eq!(at(oldest - 1, b"b"), not_kept(oldest - 1, KEPT_VERSIONS + 1, oldest, 199));
    let restored = RouteSnapshot { incarnation: Incarnation(2), ..snapshot(150, vec![]) };
    engine.apply_snapshot(restored).unwrap();
    assert_eq!(at(149, b"b"), not_kept(149, 1, 150, 150), "a version of another incarnation");
}

#[test]
fn counters_of_unchanged_routes_survive() {
    let engine = engine();
    for key in [b"b", b"d", b"h"] {
        assert!(engine.record_access(key, AccessKind::Read, 10));
        assert!(engine.record_access(key, AccessKind::Write, 3));
        assert!(engine.record_access(key, AccessKind::Write, 4));
    }
    assert!(!engine.record_access(b"a", AccessKind::Read, 1), "no route");
    let once = RouteLoad { reads: 1, read_bytes: 10, writes: 2, written_bytes: 7 };
    let load = |key: &[u8]| engine.get_route(key).unwrap().load();
    assert_eq!((load(b"b"), once.score()), (once, 9));
    // Route 1 is untouched, route 2 gets another range, and route 3 another group.
    let moved = RouteDescriptor { group_id: GroupId(2), ..route(3, b"h", None) };
    engine.apply_delta(delta(6, vec![route(2, b"d", Some(b"e")), moved], &[])).unwrap();
    assert_eq!((load(b"b"), load(b"d"), load(b"h")), (once, RouteLoad::default(), once));
    // Later accesses through an earlier version count, too.
    let held = engine.get_route(b"b").unwrap();
    engine.apply_snapshot(snapshot(9, three())).unwrap();
    engine.record_access(b"b", AccessKind::Read, 0);
    assert_eq!(held.load().reads, 2);
    assert_eq!(load(b"b").reads, 2);
}

#[test]
fn stats_sum_loads_and_name_hot_routes() {
    let engine = engine().with_threshold(8);
    for _ in 0..8 {
        engine.record_access(b"b", AccessKind::Read, 1);
    }
    for _ in 0..3 {
        engine.record_access(b"d", AccessKind::Write, 2);
    }
    engine.record_access(b"h", AccessKind::Write, 5);
    let stats = engine.stats();
    assert_eq!((stats.version, stats.routes), (CatalogVersion(5), 3));
    assert_eq!((stats.ephemeral_routes, stats.kept_versions), (0, 1));
    let load = RouteLoad { reads: 8, read_bytes: 8, writes: 4, written_bytes: 11 };
    assert_eq!(stats.load, load);
    let hot: Vec<_> = stats.hot.iter().map(|hot| (hot.route.get(), hot.load.score())).collect();
    assert_eq!(hot, [(2, 12), (1, 8)], "one write counts as four reads");
    let all = RouteEngine::new().with_threshold(0);
    let many = (1u8..=100).map(|id| route(u64::from(id), &[id], Some(&[id, 0])));
    all.apply_snapshot(snapshot(1, many.collect())).unwrap();
    all.record_access(&[77], AccessKind::Read, 1);
    let hot = all.stats().hot;
    assert_eq!((hot.len(), hot[0].route), (16, RegionId(77)));
}

#[test]
fn ephemeral_routes_replace_each_other() {
    let engine = RouteEngine::with_default_route(GroupId(1)).unwrap();
    assert_eq!(ranges(&engine), [(0, vec![], None, 1)]);
    let range = |start: &[u8], end: Option<&[u8]>| KeyRange::new(start, end.map(<[u8]>::to_vec));
    engine.update_route(range(b"f", Some(b"m")), GroupId(2)).unwrap();
    engine.update_route(range(b"k", Some(b"p")), GroupId(3)).unwrap();
    let bytes = |text: &[u8]| text.to_vec();
    let expected = [
        (0, bytes(b""), Some(bytes(b"f")), 1),
        (0, bytes(b"f"), Some(bytes(b"k")), 2),
        (0, bytes(b"k"), Some(bytes(b"p")), 3),
        (0, bytes(b"p"), None, 1),
    ];
    assert_eq!(ranges(&engine), expected);
    assert_eq!(engine.stats().ephemeral_routes, 4);
    engine.update_route(range(b"a", None), GroupId(4)).unwrap();
    assert_eq!(ranges(&engine), [(0, bytes(b""), Some(bytes(b"a")), 1), (0, bytes(b"a"), None, 4)]);
    assert_eq!(engine.version(), CatalogVersion(0), "the version is the catalog's");
    let without_group = engine.update_route(KeyRange::whole(), GroupId(0)).unwrap_err();
    assert_eq!(without_group, RouteError::GroupIdRequired(RegionId(0)).into());
    let empty = engine.update_route(range(b"b", Some(b"b")), GroupId(1)).unwrap_err();
    assert_eq!(empty, RouteError::InvalidRange(RegionId(0)).into());
    assert!(RouteEngine::with_default_route(GroupId(0)).is_err());
}

#[test]
fn ephemeral_routes_end_with_the_first_version() {
    let with_default = || RouteEngine::with_default_route(GroupId(1)).unwrap();
    let by_delta = with_default();
    by_delta.apply_delta(delta(1, three(), &[])).unwrap();
    let by_snapshot = with_default();
    by_snapshot.apply_snapshot(snapshot(1, three())).unwrap();
    for engine in [by_delta, by_snapshot] {
        assert_eq!(ranges(&engine).len(), 3);
        assert_eq!(found(&engine, b"a"), None);
        // Keys without a route of the catalog can have an ephemeral one.
        let free = KeyRange::new(b"f", Some(b"h".to_vec()));
        engine.update_route(free, GroupId(7)).unwrap();
        assert_eq!(found(&engine, b"g"), Some(0));
        let taken = KeyRange::new(b"e", Some(b"h".to_vec()));
        let refused = engine.update_route(taken, GroupId(7)).unwrap_err();
        assert_eq!(refused, EngineError::RouteOfCatalog(RegionId(2)));
        engine.apply_delta(delta(2, vec![route(4, b"f", Some(b"h"))], &[])).unwrap();
        assert_eq!(found(&engine, b"g"), Some(4));
    }
}

#[test]
fn readers_see_one_version_during_changes() {
    // All routes of a version have the group of the version.
    let routes = |version: u64| -> Vec<RouteDescriptor> {
        let tile = |number: u8| RouteDescriptor {
            group_id: GroupId(version),
            ..route(version * 1_000 + u64::from(number) + 1, &[number], Some(&[number + 1]))
        };
        (0..100).map(tile).collect()
    };
    let engine = RouteEngine::new();
    engine.apply_snapshot(snapshot(1, routes(1))).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let seen = engine.intersecting_routes(&[], None);
                    let group = seen[0].descriptor().group_id;
                    assert_eq!(seen.len(), 100);
                    assert!(seen.iter().all(|route| route.descriptor().group_id == group));
                    let (position, _) = engine.routes();
                    assert!(position.version.get() >= group.get(), "versions never go back");
                }
            });
        }
        for version in 2..60 {
            if version % 2 == 0 {
                engine.apply_snapshot(snapshot(version, routes(version))).unwrap();
            } else {
                let deletes: Vec<u64> =
                    routes(version - 1).iter().map(|route| route.route_id.get()).collect();
                engine.apply_delta(delta(version, routes(version), &deletes)).unwrap();
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(engine.version(), CatalogVersion(59));
}

#[test]
fn changes_of_the_catalog_become_changes_of_routes() {
    let wire: Vec<v1::Route> = three().iter().map(Into::into).collect();
    let catalog = v1::CatalogSnapshot {
        incarnation: 1,
        catalog_version: 5,
        routes: wire.clone(),
        ..Default::default()
    };
    assert_eq!(RouteSnapshot::try_from(&catalog), Ok(snapshot(5, three())));
    let change = v1::CatalogDelta {
        previous_catalog_version: 5,
        catalog_version: 6,
        route_upserts: wire,
        route_deletes: vec![9],
        ..Default::default()
    };
    assert_eq!(RouteDelta::from_catalog(&change), Ok(Some(delta(6, three(), &[9]))));
    let unrelated = v1::CatalogDelta { catalog_version: 5, ..change.clone() };
    assert_eq!(RouteDelta::from_catalog(&unrelated), Ok(None));
    let mut invalid = change;
    invalid.route_upserts[0].route_id = 0;
    assert_eq!(RouteDelta::from_catalog(&invalid), Err(RouteError::RouteIdRequired));
}

proptest! {
    /// Splits and merges of tiles: an engine that follows the deltas equals one with the snapshot.
    #[test]
    fn engine_of_deltas_equals_engine_of_snapshot(
        steps in vec((any::<bool>(), any::<usize>(), 0u8..255), 1..60),
    ) {
        let mut tiles = vec![route(1, b"", None)];
        let engine = RouteEngine::new();
        engine.apply_snapshot(snapshot(1, tiles.clone())).unwrap();
        let mut version = 1;
        for (splits, number, byte) in steps {
            let at = number % tiles.len();
            let changed = if splits {
                let parent = tiles[at].clone();
                let key = [parent.start.as_slice(), &[byte]].concat();
                if parent.end.as_ref().is_some_and(|end| *end <= key) {
                    continue;
                }
                let next = tiles.iter().map(|tile| tile.route_id.get()).max().unwrap() + 1;
                let left = route(next, &parent.start, Some(&key));
                let right = route(next + 1, &key, parent.end.as_deref());
                tiles.splice(at..=at, [left.clone(), right.clone()]);
                delta(version + 1, vec![left, right], &[parent.route_id.get()])
            } else {
                if at + 1 == tiles.len() {
                    continue;
                }
                let gone = tiles.remove(at + 1);
                tiles[at].end = gone.end;
                delta(version + 1, vec![tiles[at].clone()], &[gone.route_id.get()])
            };
            version += 1;
            prop_assert_eq!(engine.apply_delta(changed), Ok(()));
            prop_assert_eq!(engine.apply_snapshot(snapshot(version, tiles.clone())), Ok(false));
            for tile in &tiles {
                prop_assert_eq!(found(&engine, &tile.start), Some(tile.route_id.get()));
            }
        }
    }
}
