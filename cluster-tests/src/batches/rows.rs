//! Rows of batches: built with the columns that the table has, and checked value by value.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int64Type, SchemaRef};

use crate::{HarnessError, Result};

/// Columns before those that are added and dropped.
const FIXED: usize = 3;

fn note(batch: i64, number: i64) -> String {
    format!("note {number} of batch {batch}")
}

/// Returns the value of an added column in each row: the number in its name.
pub(super) fn added_value(column: &str) -> Option<i64> {
    column.strip_prefix('c')?.parse().ok()
}

/// Returns the rows of a batch with these numbers.
pub(super) fn batch_rows(
    schema: SchemaRef,
    batch: i64,
    numbers: std::ops::Range<i64>,
) -> Result<RecordBatch> {
    let notes = numbers.clone().map(|number| note(batch, number));
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(numbers.clone().map(|_| batch))),
        Arc::new(Int64Array::from_iter_values(numbers.clone())),
        Arc::new(StringArray::from_iter_values(notes)),
    ];
    for field in schema.fields().iter().skip(FIXED) {
        let values = Int64Array::from_iter(numbers.clone().map(|_| added_value(field.name())));
        columns.push(Arc::new(values));
    }
    RecordBatch::try_new(schema, columns)
        .map_err(|error| HarnessError::violated(format!("build rows: {error}")))
}

/// Returns batch and number of each row.
///
/// # Errors
/// The first value that is not the one that was written.
pub(super) fn names(rows: &RecordBatch) -> std::result::Result<Vec<(i64, i64)>, String> {
    let batches = rows.column(0).as_primitive::<Int64Type>();
    let numbers = rows.column(1).as_primitive::<Int64Type>();
    let notes = rows.column(2).as_string::<i32>();
    let names: Vec<(i64, i64)> =
        batches.values().iter().copied().zip(numbers.values().iter().copied()).collect();
    for (row, (batch, number)) in names.iter().enumerate() {
        if notes.value(row) != note(*batch, *number) {
            return Err(format!("row {number} of batch {batch}: note {:?}", notes.value(row)));
        }
    }
    let schema = rows.schema();
    for (field, column) in schema.fields().iter().zip(rows.columns()).skip(FIXED) {
        let values = column.as_primitive::<Int64Type>();
        let other = values.iter().find(|value| *value != added_value(field.name()));
        if let Some(other) = other {
            return Err(format!("value {other:?} in column {}", field.name()));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn rows_have_the_values_of_their_names() {
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let fields = vec![
            field("batch", DataType::Int64),
            field("number", DataType::Int64),
            field("note", DataType::Utf8),
            field("c7", DataType::Int64),
        ];
        let schema = Arc::new(Schema::new(fields));
        let rows = batch_rows(schema.clone(), 5, 1..3).unwrap();
        assert_eq!(names(&rows), Ok(vec![(5, 1), (5, 2)]));
        for (column, text) in [(0, "note"), (3, "value Some(5) in column c7")] {
            let mut columns = rows.columns().to_vec();
            columns[column] = Arc::new(Int64Array::from(vec![if column == 0 { 6 } else { 5 }; 2]));
            let other = RecordBatch::try_new(schema.clone(), columns).unwrap();
            assert!(names(&other).unwrap_err().contains(text));
        }
    }
}
