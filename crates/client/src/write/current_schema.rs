//! Rows in the current schema of a table that was altered since the writer or loader was created.
//!
//! An alter neither changes key columns nor the type of a column, so that the rows take effect as if they
//! had been written just before it: columns that were added get their default, and values of columns that
//! were dropped are left out. A column that was dropped and added again under the same name is another
//! column.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::take;
use tidewater_common::schema::{Column, TableSchema};
use tidewater_proto::v1::RowOp;

use crate::catalog::{Catalog, TableInfo};
use crate::error::ClientError;

/// Returns the table as the catalog has it, if it was altered since.
pub(crate) fn altered(table: &TableInfo, catalog: &Catalog) -> Option<Arc<TableInfo>> {
    let current = catalog.table(table.id)?;
    (current.schema.version() > table.schema.version()).then(|| Arc::clone(current))
}

/// Converts a batch of the earlier schema.
///
/// # Errors
/// [`ClientError::BadInput`] if the default of a column cannot be decoded.
pub(crate) fn convert(
    op: RowOp,
    batch: &RecordBatch,
    earlier: &TableSchema,
    current: &TableSchema,
) -> Result<RecordBatch, ClientError> {
    let bad = |error: &dyn std::fmt::Display| ClientError::BadInput(error.to_string());
    if op == RowOp::Delete {
        return Ok(batch.clone());
    }
    let column = |column: &Column| match earlier.index_of(column.id) {
        Some(index) => Ok(batch.column(index).clone()),
        None => default_values(column, batch.num_rows()),
    };
    let columns = current.columns().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(current.arrow(), columns).map_err(|error| bad(&error))
}

fn default_values(column: &Column, rows: usize) -> Result<ArrayRef, ClientError> {
    let bad = |error: &dyn std::fmt::Display| {
        ClientError::BadInput(format!("default of column {:?}: {error}", column.name))
    };
    let Some(text) = &column.default else {
        return Ok(new_null_array(&column.data_type.arrow(), rows));
    };
    let value = column.data_type.constant(text).map_err(|error| bad(&error))?.into_inner();
    take(&value, &UInt32Array::from_value(0, rows), None).map_err(|error| bad(&error))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{Int8Type, Int64Type};
    use tidewater_common::schema::{ColumnType, SchemaChange};

    use super::*;
    use crate::fake::{keys, rows, table_info};

    fn add(name: &str, data_type: ColumnType, default: Option<&str>) -> SchemaChange {
        let default = default.map(str::to_owned);
        SchemaChange::AddColumn { name: name.to_owned(), data_type, nullable: true, default }
    }

    #[test]
    fn rows_are_converted_by_column_id() {
        let earlier = table_info().schema;
        let drop = SchemaChange::DropColumn { name: "v".to_owned() };
        let changes = [
            drop,
            add("v", ColumnType::Utf8, None),
            add("w", ColumnType::Int8, Some("7")),
            add("x", ColumnType::Int64, None),
        ];
        let current = earlier.altered(&changes).unwrap();
        let converted = convert(RowOp::Put, &rows([3, 1]), &earlier, &current).unwrap();
        assert_eq!(converted.schema(), current.arrow());
        assert_eq!(converted.column(0).as_primitive::<Int64Type>(), &Int64Array::from(vec![3, 1]));
        assert_eq!(converted.column(1).null_count(), 2, "another column of the same name");
        assert_eq!(converted.column(2).as_primitive::<Int8Type>().values(), &[7, 7]);
        assert_eq!(converted.column(3).null_count(), 2);
        let added = earlier.altered(&[add("w", ColumnType::Int8, None)]).unwrap();
        let converted = convert(RowOp::Put, &rows([3]), &earlier, &added).unwrap();
        assert_eq!(converted.column(1).as_string::<i32>(), &StringArray::from(vec!["v3"]));
        let deletes = convert(RowOp::Delete, &keys(&[3]), &earlier, &current).unwrap();
        assert_eq!(deletes, keys(&[3]));
    }
}
