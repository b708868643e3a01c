//! Tables of tests.

use std::sync::Arc;

use tidewater_common::ids::{ColumnId, SchemaVersion};
use tidewater_common::keys::KeyCodec;
use tidewater_common::schema::{Column, TableOptions, TableSchema};

use crate::SourceTable;

/// A table with these columns: name, type, and whether it may be null. The first is the key.
pub(super) fn table(columns: &[(&str, &str, bool)]) -> TableSchema {
    let column = |(index, (name, data_type, nullable)): (usize, &(&str, &str, bool))| Column {
        id: ColumnId(u32::try_from(index).unwrap() + 1),
        name: (*name).to_owned(),
        data_type: data_type.parse().unwrap(),
        nullable: *nullable,
        default: None,
    };
    let next = ColumnId(u32::try_from(columns.len()).unwrap() + 1);
    let columns = columns.iter().enumerate().map(column).collect();
    TableSchema::new(SchemaVersion(1), columns, vec![ColumnId(1)], None, next).unwrap()
}

/// A table that a source is read for.
pub(super) fn source_table(columns: &[(&str, &str, bool)]) -> SourceTable {
    let schema = Arc::new(table(columns));
    let codec = KeyCodec::new(&schema, &TableOptions::upsert()).unwrap();
    SourceTable { schema, codec }
}
