//! A catalog of many tables, and a change of it.

use tidewater_common::ids::{ColumnId, SchemaVersion, TableId};
use tidewater_common::keys::{global_key, table_range};
use tidewater_common::schema::{Column, ColumnType, TableOptions, TableSchema};
use tidewater_proto::v1;

/// Regions of each table.
const REGIONS: u64 = 10;
/// Tables for each node and group.
const TABLES_PER_NODE: u32 = 10;

fn schema(version: u32) -> v1::TableSchema {
    let column = |id| Column {
        id: ColumnId(id),
        name: format!("column_{id}"),
        data_type: ColumnType::Int64,
        nullable: id > 1,
        default: None,
    };
    let columns = (1..=13).map(column).collect();
    let schema =
        TableSchema::new(SchemaVersion(version), columns, vec![ColumnId(1)], None, ColumnId(14));
    (&schema.unwrap()).into()
}

fn table(id: u32, version: u32) -> v1::Table {
    v1::Table {
        table_id: id,
        name: format!("table_{id}"),
        state: v1::TableState::Active.into(),
        schema: Some(schema(version)),
        options: Some((&TableOptions::upsert()).into()),
        ..v1::Table::default()
    }
}

fn route(table: u32, number: u64, group: u64) -> v1::Route {
    let bound = |number: u64| match number {
        0 => global_key(TableId(table), &[]),
        REGIONS => table_range(TableId(table)).end.unwrap(),
        _ => global_key(TableId(table), &(number << 48).to_be_bytes()),
    };
    v1::Route {
        route_id: u64::from(table) * REGIONS + number,
        start: bound(number).into(),
        end: Some(bound(number + 1).into()),
        group_id: group,
        ..v1::Route::default()
    }
}

/// A catalog with this number of tables, at revision 1.
pub(crate) fn snapshot(tables: u32) -> v1::CatalogSnapshot {
    let nodes = 1..=u64::from(tables / TABLES_PER_NODE);
    let group = |table: u32| u64::from(table % (tables / TABLES_PER_NODE)) + 1;
    let routes = |table: u32| (0..REGIONS).map(move |number| route(table, number, group(table)));
    v1::CatalogSnapshot {
        cluster_id: "018f3c1e-0000-7000-8000-000000000001".into(),
        incarnation: 1,
        revision: 1,
        catalog_version: 1,
        tables: (1..=tables).map(|id| table(id, 1)).collect(),
        routes: (1..=tables).flat_map(routes).collect(),
        groups: nodes.clone().map(group_led_by).collect(),
        nodes: nodes.map(node).collect(),
        ..v1::CatalogSnapshot::default()
    }
}

fn group_led_by(leader: u64) -> v1::Group {
    let voters = vec![leader, leader + 1, leader + 2];
    v1::Group { group_id: leader, leader, voters, ..v1::Group::default() }
}

fn node(id: u64) -> v1::Node {
    let address = format!("node-{id}:7400");
    v1::Node { node_id: id, address, ..v1::Node::default() }
}

/// A delta after [`snapshot`] that alters a table, moves a region, and changes a leader and a node.
pub(crate) fn delta(tables: u32) -> v1::CatalogDelta {
    let altered = tables / 2;
    v1::CatalogDelta {
        revision: 2,
        previous_catalog_version: 1,
        catalog_version: 2,
        table_upserts: vec![table(altered, 2)],
        route_upserts: vec![route(altered, 3, 1)],
        group_upserts: vec![group_led_by(1)],
        node_upserts: vec![node(1)],
        ..v1::CatalogDelta::default()
    }
}
