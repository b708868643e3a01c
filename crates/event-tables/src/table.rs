//! Events tables: definition of a new one, and check of an existing one (pure).

use tidewater_client::NewTable;
use tidewater_client::admin::NewColumn;
use tidewater_common::quote::quoted;
use tidewater_common::schema::{Column, TableOptions, TableSchema};
use tidewater_events::{COMMON_COLUMNS, ExtraColumn, ValueType};

use crate::hints::TableHints;

/// Column with the id of an event.
pub const ID: &str = "id";
/// Column with the type of an event.
pub const TYPE: &str = "type";
/// Column with the payload of an event; null: none.
pub const PAYLOAD: &str = "payload";
/// Column with the time of an event.
pub const TIMESTAMP: &str = "timestamp";

/// Columns of the primary key.
pub const EVENT_KEY: [&str; 3] = [TYPE, TIMESTAMP, ID];

/// An existing table that takes no events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "table {table} takes no events: {problem}; keep its rows with `tidewater table clone` and drop it, so that it is created \
     again, or start the nodes with --events jsonl",
    table = quoted(.name)
)]
pub(crate) struct NotForEvents {
    name: String,
    problem: String,
}

/// Returns the type of a column of all events.
fn common_type(name: &str) -> Option<ValueType> {
    match name {
        ID | PAYLOAD => Some(ValueType::Binary),
        TYPE => Some(ValueType::Text),
        TIMESTAMP => Some(ValueType::Timestamp),
        _ => None,
    }
}

/// Returns the column of a table for an extra column.
pub(crate) fn new_column(column: &ExtraColumn) -> NewColumn {
    NewColumn::new(&column.name, column.value_type.as_str(), true)
}

/// Returns the definition of a missing table.
pub(crate) fn definition(name: &str, hints: TableHints) -> NewTable {
    let columns = COMMON_COLUMNS.into_iter().filter_map(|column| {
        let value_type = common_type(column)?;
        Some(NewColumn::new(column, value_type.as_str(), !EVENT_KEY.contains(&column)))
    });
    NewTable {
        name: name.to_owned(),
        columns: columns.collect(),
        primary_key: EVENT_KEY.map(str::to_owned).to_vec(),
        time_column: Some(TIMESTAMP.to_owned()),
        write_mode: hints.write_mode,
        hash_columns: Vec::new(),
        vnode_count: 0,
        regions: 0,
        ttl_ms: hints.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        compaction_window: hints.compaction_window,
        holds_events: true,
        refresh: None,
    }
}

/// Checks that a table has the key and the columns of all events, that rows may be without its other columns, and that
/// nodes record no events about it.
///
/// # Errors
/// [`NotForEvents`]: an operator has to change the table.
pub(crate) fn check(
    name: &str,
    schema: &TableSchema,
    options: &TableOptions,
) -> Result<(), NotForEvents> {
    let not = |problem: String| Err(NotForEvents { name: name.to_owned(), problem });
    let keys = schema.key_indices().iter().filter_map(|index| schema.columns().get(*index));
    let key: Vec<&str> = keys.map(|column| column.name.as_str()).collect();
    if key != EVENT_KEY {
        let expected = EVENT_KEY.join(", ");
        return not(format!("its key is ({}) instead of ({expected})", key.join(", ")));
    }
    for name in COMMON_COLUMNS {
        let expected = common_type(name).map_or("", ValueType::as_str);
        match schema.column_named(name) {
            None => return not(format!("it has no column {name}")),
            Some(column) if column.data_type.to_string() != expected => {
                return not(format!(
                    "its column {name} is {} instead of {expected}",
                    column.data_type
                ));
            }
            Some(_) => {}
        }
    }
    let must_have_values = |column: &&Column| {
        !column.nullable && column.default.is_none() && !EVENT_KEY.contains(&column.name.as_str())
    };
    if let Some(column) = schema.columns().iter().find(must_have_values) {
        return not(format!("its column {} must not be null", quoted(&column.name)));
    }
    if !options.holds_events {
        return not("it was not made for events, and nodes record events about it".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidewater_common::schema::WriteMode;

    use super::*;
    use crate::testing::{column, events_table, schema_of, table_options};

    #[test]
    fn new_table_is_an_events_table() {
        let hints = TableHints::parse([("ttl", "90d"), ("compaction_window", "1d")]).unwrap();
        let mut new = definition("events", hints);
        new.columns.push(new_column(&ExtraColumn::new("node_id", ValueType::UInt64)));
        assert_eq!(new.ttl_ms, Some(7_776_000_000));
        assert_eq!((new.write_mode, new.holds_events), (WriteMode::AppendOnly, true));
        let columns: Vec<_> = new
            .columns
            .iter()
            .map(|column| format!("{} {} {}", column.name, column.data_type, column.nullable))
            .collect();
        assert_eq!(
            columns,
            [
                "id binary false",
                "type utf8 false",
                "payload binary true",
                "timestamp timestamp(ns, UTC) false",
                "node_id uint64 true",
            ]
        );
        let columns = new.columns.iter().map(|new| column(&new.name, &new.data_type, new.nullable));
        let schema = schema_of(columns.collect(), &EVENT_KEY);
        assert_eq!(check("events", &schema, &table_options()), Ok(()));
    }

    #[test]
    fn other_tables_take_no_events() {
        let valid = events_table(&[]);
        let changed = |change: &dyn Fn(&mut Vec<Column>)| {
            let mut columns = valid.columns().to_vec();
            change(&mut columns);
            schema_of(columns, &EVENT_KEY)
        };
        let upsert = TableOptions { holds_events: false, ..table_options() };
        let cases = [
            (schema_of(valid.columns().to_vec(), &[ID]), table_options(), "its key is (id)"),
            (
                changed(&|columns| columns.retain(|column| column.name != PAYLOAD)),
                table_options(),
                "it has no column payload",
            ),
            (
                changed(&|columns| columns[2] = column(PAYLOAD, "utf8", true)),
                table_options(),
                "its column payload is utf8 instead of binary",
            ),
            (
                changed(&|columns| columns.push(column("x", "int64", false))),
                table_options(),
                r#"its column "x" must not be null"#,
            ),
            (valid.clone(), upsert, "it was not made for events"),
        ];
        for (schema, options, expected) in cases {
            let error = check("events", &schema, &options).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("drop it"), "{error}");
        }
        assert_eq!(check("events", &valid, &table_options()), Ok(()));
    }
}
