mod deltas;

use tidewater_common::ids::{ColumnId, GroupId, RegionId, SchemaVersion, TableId};
use tidewater_common::keys::{KeyRange, global_key, table_range};
use tidewater_common::schema::{Column, ColumnType, TableOptions, TableSchema};
use tidewater_proto::v1;

use super::{Catalog, CatalogError, CatalogStep};
use crate::RouteError;

const ONE: &str = "018f3c1e-0000-7000-8000-000000000001";
const TWO: &str = "018f3c1e-0000-7000-8000-000000000002";

fn schema() -> TableSchema {
    let column = |id, name: &str, data_type| Column {
        id: ColumnId(id),
        name: name.into(),
        data_type,
        nullable: id > 1,
        default: None,
    };
    let columns = vec![column(1, "id", ColumnType::Int64), column(2, "v", ColumnType::Utf8)];
    TableSchema::new(SchemaVersion(1), columns, vec![ColumnId(1)], None, ColumnId(3)).unwrap()
}

fn table(id: u32, name: &str) -> v1::Table {
    v1::Table {
        table_id: id,
        name: name.into(),
        state: v1::TableState::Active.into(),
        schema: Some((&schema()).into()),
        options: Some((&TableOptions::upsert()).into()),
        ..Default::default()
    }
}

fn route(id: u64, table: u32, start: &[u8], end: Option<&[u8]>) -> v1::Route {
    let end = match end {
        Some(end) => Some(global_key(TableId(table), end)),
        None => table_range(TableId(table)).end,
    };
    v1::Route {
        route_id: id,
        start: global_key(TableId(table), start).into(),
        end: end.map(Into::into),
        group_id: 1,
        ..Default::default()
    }
}

fn snapshot() -> v1::CatalogSnapshot {
    v1::CatalogSnapshot {
        cluster_id: ONE.into(),
        incarnation: 1,
        revision: 10,
        catalog_version: 5,
        tables: vec![table(1, "a"), table(2, "b")],
        routes: vec![
            route(11, 1, b"", Some(b"g")),
            route(12, 1, b"g", Some(b"p")),
            route(13, 1, b"p", None),
            route(14, 2, b"", None),
        ],
        groups: vec![v1::Group {
            group_id: 1,
            leader: 21,
            voters: vec![21, 22],
            ..Default::default()
        }],
        nodes: [21, 22]
            .into_iter()
            .map(|id| v1::Node {
                node_id: id,
                role: v1::NodeRole::Data.into(),
                address: format!("node{id}:1"),
                state: v1::NodeState::Up.into(),
                ..v1::Node::default()
            })
            .collect(),
        hooks: vec![],
        has_table_changes: true,
        next_route_id: 15,
    }
}

pub(crate) fn catalog() -> Catalog {
    Catalog::from_snapshot(&snapshot()).unwrap()
}

pub(crate) fn delta() -> v1::CatalogDelta {
    v1::CatalogDelta {
        revision: 11,
        previous_catalog_version: 5,
        catalog_version: 5,
        ..Default::default()
    }
}

#[test]
fn route_that_overlaps_a_later_one_is_rejected() {
    // Region 12, from g to p, is replaced; region 13 begins at p.
    for (end, is_rejected) in [(Some(&b"p"[..]), false), (Some(b"p\0"), true), (None, true)] {
        let delta = v1::CatalogDelta {
            catalog_version: 6,
            route_deletes: vec![12],
            route_upserts: vec![route(99, 1, b"g", end)],
            ..delta()
        };
        let applied = catalog().with_delta(&delta);
        let overlap = RouteError::Overlap(RegionId(99), RegionId(13));
        let rejected = matches!(&applied, Err(CatalogError::Routes(error)) if *error == overlap);
        assert_eq!((rejected, applied.is_ok()), (is_rejected, !is_rejected), "{end:?}");
    }
}

#[test]
fn row_key_maps_to_its_route() {
    let catalog = catalog();
    let table = [
        (1, &b""[..], Some(11)),
        (1, b"f\xff", Some(11)),
        (1, b"g", Some(12)),
        (1, b"o", Some(12)),
        (1, b"p", Some(13)),
        (1, b"\xff\xff", Some(13)),
        (2, b"x", Some(14)),
        (3, b"x", None),
        (0, b"x", None),
    ];
    for (table, key, expected) in table {
        let found = catalog.route_for(TableId(table), key).map(|route| route.region.get());
        assert_eq!(found, expected, "table {table} key {key:?}");
    }
}

#[test]
fn key_range_maps_to_overlapping_routes() {
    let catalog = catalog();
    let range = |start: &[u8], end: Option<&[u8]>| KeyRange::new(start, end.map(<[u8]>::to_vec));
    let table = [
        (1, KeyRange::whole(), vec![11, 12, 13]),
        (1, range(b"h", None), vec![12, 13]),
        (1, range(b"h", Some(b"i")), vec![12]),
        (1, range(b"a", Some(b"g")), vec![11]),
        (1, range(b"a", Some(b"g\0")), vec![11, 12]),
        (2, KeyRange::whole(), vec![14]),
        (9, KeyRange::whole(), vec![]),
    ];
    for (table, range, expected) in table {
        let found: Vec<u64> =
            catalog.routes_in(TableId(table), &range).map(|route| route.region.get()).collect();
        assert_eq!(found, expected, "table {table} {range:?}");
    }
}

#[test]
fn catalog_resolves_leader_and_replica_addresses() {
    let catalog = catalog();
    assert_eq!(catalog.leader_address(GroupId(1)), Some("node21:1"));
    assert_eq!(catalog.replica_addresses(GroupId(1)), ["node21:1", "node22:1"]);
    assert_eq!(catalog.leader_address(GroupId(2)), None);
}

#[test]
fn table_name_is_free_once_its_table_is_dropping() {
    let mut snapshot = snapshot();
    snapshot.tables[0].state = v1::TableState::Dropping.into();
    snapshot.tables.push(table(3, "a"));
    let catalog = Catalog::from_snapshot(&snapshot).unwrap();
    assert_eq!(catalog.table_named("a").unwrap().id, TableId(3));
}

#[test]
fn delta_yields_next_catalog_and_keeps_the_previous() {
    let before = catalog();
    let mut split = v1::CatalogDelta {
        catalog_version: 6,
        route_deletes: vec![12, 14],
        route_upserts: vec![route(15, 1, b"g", Some(b"k")), route(16, 1, b"k", Some(b"p"))],
        table_upserts: vec![table(3, "c")],
        table_deletes: vec![2],
        ..delta()
    };
    split.group_upserts.push(v1::Group { group_id: 1, leader: 22, ..Default::default() });
    split.node_deletes.push(21);
    let after = before.with_delta(&split).unwrap();
    assert_eq!(after.nodes().map(|node| node.node_id).collect::<Vec<_>>(), [22]);
    assert_eq!((after.revision().get(), after.version().get()), (11, 6));
    assert_eq!(after.route_for(TableId(1), b"h").unwrap().region, RegionId(15));
    assert_eq!(after.route_for(TableId(1), b"m").unwrap().region, RegionId(16));
    assert!(after.route(RegionId(12)).is_none());
    assert!(after.table_named("b").is_none());
    assert!(after.table_named("c").is_some());
    assert_eq!(after.leader_address(GroupId(1)), Some("node22:1"));
    // The previous value is unchanged.
    assert_eq!(before.route_for(TableId(1), b"h").unwrap().region, RegionId(12));
}

#[test]
fn delta_moves_start_key_of_a_shrinking_route() {
    let change = v1::CatalogDelta {
        catalog_version: 6,
        route_upserts: vec![route(15, 1, b"g", Some(b"k")), route(12, 1, b"k", Some(b"p"))],
        ..delta()
    };
    let after = catalog().with_delta(&change).unwrap();
    assert_eq!(after.route_for(TableId(1), b"h").unwrap().region, RegionId(15));
    assert_eq!(after.route_for(TableId(1), b"k").unwrap().region, RegionId(12));
}

#[test]
fn nonconsecutive_delta_is_a_gap() {
    let gaps = [
        v1::CatalogDelta { revision: 12, ..delta() },
        v1::CatalogDelta { revision: 10, ..delta() },
        v1::CatalogDelta { previous_catalog_version: 4, ..delta() },
    ];
    for gap in gaps {
        let error = catalog().with_delta(&gap).unwrap_err();
        assert!(matches!(error, CatalogError::Gap { .. }), "{error}");
    }
}

#[test]
fn inconsistent_catalog_is_rejected() {
    let is_duplicate = |error: &CatalogError, id| matches!(error, CatalogError::Routes(RouteError::DuplicateRouteId(RegionId(found))) if *found == id);
    let overlap = v1::CatalogDelta {
        catalog_version: 6,
        route_upserts: vec![route(15, 1, b"f", Some(b"h"))],
        ..delta()
    };
    let error = catalog().with_delta(&overlap).unwrap_err();
    assert!(matches!(error, CatalogError::Routes(RouteError::Overlap(..))), "{error}");

    let mut twice = snapshot();
    twice.routes.push(route(11, 1, b"zz", None));
    let error = Catalog::from_snapshot(&twice).unwrap_err();
    assert!(is_duplicate(&error, 11), "{error}");

    let change = v1::CatalogDelta {
        catalog_version: 6,
        route_deletes: vec![12],
        route_upserts: vec![route(15, 1, b"g", Some(b"h")), route(15, 1, b"h", Some(b"p"))],
        ..delta()
    };
    let error = catalog().with_delta(&change).unwrap_err();
    assert!(is_duplicate(&error, 15), "{error}");

    let mut backwards = snapshot();
    backwards.routes[0] = route(11, 1, b"g", Some(b"a"));
    let error = Catalog::from_snapshot(&backwards).unwrap_err();
    assert!(matches!(error, CatalogError::BadRange(RegionId(11))), "{error}");

    let mut short = snapshot();
    short.routes[0].start = vec![1, 2].into();
    let error = Catalog::from_snapshot(&short).unwrap_err();
    assert!(matches!(error, CatalogError::BadRange(RegionId(11))), "{error}");

    let mut without_id = snapshot();
    without_id.routes[0].route_id = 0;
    let error = Catalog::from_snapshot(&without_id).unwrap_err();
    assert!(matches!(error, CatalogError::Routes(RouteError::RouteIdRequired)), "{error}");

    let mut unreadable = snapshot();
    unreadable.tables[0].schema = None;
    let error = Catalog::from_snapshot(&unreadable).unwrap_err();
    assert!(matches!(error, CatalogError::Table { .. }), "{error}");

    let mut nameless = snapshot();
    nameless.cluster_id = "x".into();
    let error = Catalog::from_snapshot(&nameless).unwrap_err();
    assert!(matches!(error, CatalogError::BadClusterId(_)), "{error}");
}

#[test]
fn snapshots_are_ordered_by_incarnation_and_revision() {
    let at = |cluster: &str, incarnation, revision| {
        let cluster_id = cluster.into();
        let snapshot = v1::CatalogSnapshot { cluster_id, incarnation, revision, ..snapshot() };
        Catalog::from_snapshot(&snapshot).unwrap()
    };
    let known = at(ONE, 3, 10);
    assert_eq!(known.step_to(&at(ONE, 3, 10)).unwrap(), CatalogStep::Same);
    assert_eq!(known.step_to(&at(ONE, 3, 99)).unwrap(), CatalogStep::Newer);
    assert_eq!(known.step_to(&at(ONE, 4, 1)).unwrap(), CatalogStep::Restored);
    let stale = known.step_to(&at(ONE, 3, 9)).unwrap_err();
    assert!(matches!(stale, CatalogError::Stale { .. }), "{stale}");
    let old = known.step_to(&at(ONE, 2, 99)).unwrap_err();
    assert!(matches!(old, CatalogError::OldIncarnation { .. }), "{old}");
    let other = known.step_to(&at(TWO, 3, 99)).unwrap_err();
    assert!(matches!(other, CatalogError::OtherCluster { .. }), "{other}");
}
