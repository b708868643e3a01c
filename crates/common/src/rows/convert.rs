//! Rows of one version of a table's schema as rows of another version.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::take;

use super::RowsError;
use crate::schema::{Column, TableSchema};

/// Converts rows with all columns of the schema `from` to rows with all columns of `to`. Columns are matched by
/// id: one that the rows do not have gets its default, one that `to` does not have is left out.
///
/// # Errors
/// [`RowsError::Malformed`]: the rows are not those of `from`, or lack a column of `to` that must have a value.
pub fn convert_batch(
    rows: &RecordBatch,
    from: &TableSchema,
    to: &TableSchema,
) -> Result<RecordBatch, RowsError> {
    let malformed = |error: String| RowsError::Malformed(error);
    if rows.num_columns() != from.columns().len() {
        let (have, need) = (rows.num_columns(), from.columns().len());
        return Err(malformed(format!("{have} columns instead of {need}")));
    }
    let column = |column: &Column| match from.index_of(column.id) {
        Some(index) => Ok(rows.column(index).clone()),
        None => missing_column(column, rows.num_rows()),
    };
    let columns = to.columns().iter().map(column).collect::<Result<Vec<_>, RowsError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(to.arrow(), columns, &options)
        .map_err(|error| malformed(error.to_string()))
}

/// Returns a column that no row was written with.
fn missing_column(column: &Column, rows: usize) -> Result<ArrayRef, RowsError> {
    if column.default.is_none() {
        return Ok(new_null_array(&column.data_type.arrow(), rows));
    }
    let malformed = |error: String| RowsError::Malformed(error);
    let value = column.missing_value().map_err(|error| malformed(error.to_string()))?;
    take(&value, &UInt32Array::from_value(0, rows), None)
        .map_err(|error| malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::ids::{ColumnId, SchemaVersion};
    use crate::schema::SchemaChange;

    fn column(id: u32, name: &str, data_type: &str, nullable: bool) -> Column {
        let data_type = data_type.parse().unwrap();
        Column { id: ColumnId(id), name: name.to_owned(), data_type, nullable, default: None }
    }

    fn before() -> TableSchema {
        let columns = vec![column(1, "k", "int64", false), column(2, "v", "utf8", false)];
        let (version, key) = (SchemaVersion(1), vec![ColumnId(1)]);
        TableSchema::new(version, columns, key, None, ColumnId(3)).unwrap()
    }

    fn added(name: &str, default: Option<&str>) -> SchemaChange {
        SchemaChange::AddColumn {
            name: name.to_owned(),
            data_type: "int64".parse().unwrap(),
            nullable: default.is_none(),
            default: default.map(str::to_owned),
        }
    }

    fn rows() -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values([1, 2])),
            Arc::new(StringArray::from_iter_values(["a", "b"])),
        ];
        RecordBatch::try_new(before().arrow(), columns).unwrap()
    }

    #[test]
    fn converted_rows_have_defaults_of_added_columns() {
        let dropped = SchemaChange::DropColumn { name: "v".to_owned() };
        let after = before().altered(&[added("n", None), added("d", Some("7")), dropped]).unwrap();
        let converted = convert_batch(&rows(), &before(), &after).unwrap();
        assert_eq!(converted.schema(), after.arrow());
        assert_eq!(converted.column(0), rows().column(0));
        assert_eq!(converted.column(1).null_count(), 2);
        assert_eq!(converted.column(2).as_primitive::<Int64Type>().values().as_ref(), [7, 7]);
    }

    #[test]
    fn column_of_the_same_name_is_another_column() {
        let dropped = SchemaChange::DropColumn { name: "v".to_owned() };
        let after = before().altered(&[dropped]).unwrap();
        let after = after.altered(&[added("v", None)]).unwrap();
        let converted = convert_batch(&rows(), &before(), &after).unwrap();
        assert_eq!(converted.column(1).null_count(), 2);
    }

    #[test]
    fn rows_without_a_needed_column_are_refused() {
        let dropped = SchemaChange::DropColumn { name: "v".to_owned() };
        let after = before().altered(&[dropped]).unwrap();
        let rows = RecordBatch::try_new(after.arrow(), vec![rows().column(0).clone()]).unwrap();
        assert!(convert_batch(&rows, &after, &before()).is_err());
        assert!(convert_batch(&rows, &before(), &after).is_err());
    }
}
