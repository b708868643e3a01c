//! A catalog of table 1 with the regions 11 (to g), 12 (g to p) and 13 (from p), at revision 10 and version 5.

use tidewater_common::ids::TableId;
use tidewater_common::keys::{global_key, table_range};
use tidewater_proto::v1;

use crate::catalog::Catalog;
use crate::fake::table_info;

const TABLE: TableId = TableId(1);

pub(super) fn catalog() -> Catalog {
    let info = table_info();
    let table = v1::Table {
        table_id: TABLE.get(),
        name: "a".into(),
        state: v1::TableState::Active.into(),
        schema: Some((&info.schema).into()),
        options: Some((&info.options).into()),
        ..v1::Table::default()
    };
    let route = |id: u64, start: &[u8], end: Option<&[u8]>| v1::Route {
        route_id: id,
        start: global_key(TABLE, start).into(),
        end: match end {
            Some(end) => Some(global_key(TABLE, end).into()),
            None => table_range(TABLE).end.map(Into::into),
        },
        group_id: 1,
        ..v1::Route::default()
    };
    let snapshot = v1::CatalogSnapshot {
        cluster_id: "018f3c1e-0000-7000-8000-000000000001".into(),
        incarnation: 1,
        revision: 10,
        catalog_version: 5,
        tables: vec![table],
        routes: vec![
            route(11, b"", Some(b"g")),
            route(12, b"g", Some(b"p")),
            route(13, b"p", None),
        ],
        ..v1::CatalogSnapshot::default()
    };
    Catalog::from_snapshot(&snapshot).unwrap()
}

/// The next change, without a record.
pub(super) fn delta() -> v1::CatalogDelta {
    v1::CatalogDelta {
        revision: 11,
        previous_catalog_version: 5,
        catalog_version: 5,
        ..v1::CatalogDelta::default()
    }
}
