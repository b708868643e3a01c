//! Events and tables of the tests.

use tidewater_common::ids::{ColumnId, SchemaVersion};
use tidewater_common::schema::{Column, TableOptions, TableSchema};
use tidewater_events::{DEFAULT_TABLE, ExtraColumn, Priority, RecordedEvent, Value};
use uuid::Uuid;

use crate::table::{EVENT_KEY, ID, PAYLOAD, TIMESTAMP, TYPE};

/// Returns an event whose id and time are a number.
pub(crate) fn event(
    number: u64,
    event_type: &str,
    extra: Vec<(ExtraColumn, Value)>,
) -> RecordedEvent {
    RecordedEvent {
        id: Uuid::from_u128(number.into()),
        table: DEFAULT_TABLE.to_owned(),
        event_type: event_type.to_owned(),
        payload: String::new(),
        timestamp_ns: i64::try_from(number).unwrap(),
        priority: Priority::Normal,
        extra,
    }
}

/// Returns a column without an id; [`schema_of`] gives it one.
pub(crate) fn column(name: &str, data_type: &str, nullable: bool) -> Column {
    Column {
        id: ColumnId(0),
        name: name.to_owned(),
        data_type: data_type.parse().unwrap(),
        nullable,
        default: None,
    }
}

/// Returns a table of these columns, with the time column if it has it.
pub(crate) fn schema_of(mut columns: Vec<Column>, key: &[&str]) -> TableSchema {
    for (id, column) in (1..).zip(&mut columns) {
        column.id = ColumnId(id);
    }
    let id_of = |name: &str| columns.iter().find(|column| column.name == name).map(|c| c.id);
    let key = key.iter().map(|name| id_of(name).unwrap()).collect();
    let time = id_of(TIMESTAMP);
    let next = ColumnId(u32::try_from(columns.len()).unwrap() + 1);
    TableSchema::new(SchemaVersion(1), columns, key, time, next).unwrap()
}

/// Returns an events table with further columns.
pub(crate) fn events_table(extra: &[(&str, &str)]) -> TableSchema {
    let mut columns = vec![
        column(ID, "binary", false),
        column(TYPE, "utf8", false),
        column(PAYLOAD, "binary", true),
        column(TIMESTAMP, "timestamp(ns, UTC)", false),
    ];
    columns.extend(extra.iter().map(|(name, data_type)| column(name, data_type, true)));
    schema_of(columns, &EVENT_KEY)
}

pub(crate) fn table_options() -> TableOptions {
    TableOptions { holds_events: true, ..TableOptions::append_only() }
}
