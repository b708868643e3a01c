//! Columns of system tables: their definitions, and their values (pure).

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, UInt64Array};
use tidewater_client::admin::{NewColumn, NewTable};

/// Name and type of a column, and whether it may be null.
pub(crate) type ColumnDefinition = (&'static str, &'static str, bool);

/// Returns the definition of a table with one region. Its primary key has the first `key` columns.
pub(crate) fn definition(name: &str, columns: &[ColumnDefinition], key: usize) -> NewTable {
    let key: Vec<&str> = columns.iter().take(key).map(|(name, ..)| *name).collect();
    let column =
        |(name, data_type, nullable): &ColumnDefinition| NewColumn::new(name, data_type, *nullable);
    let columns = columns.iter().map(column).collect();
    NewTable { regions: 1, ..NewTable::upsert(name, columns, &key) }
}

/// Returns a column with a number of each row.
pub(crate) fn numbers<T>(rows: &[T], number: impl Fn(&T) -> Option<u64>) -> ArrayRef {
    Arc::new(rows.iter().map(number).collect::<UInt64Array>())
}

/// Returns a column with a text of each row.
pub(crate) fn texts<'a, T>(rows: &'a [T], text: impl Fn(&'a T) -> Option<&'a str>) -> ArrayRef {
    Arc::new(rows.iter().map(text).collect::<StringArray>())
}
