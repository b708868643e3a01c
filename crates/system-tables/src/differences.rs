//! Differences between the rows of a table and the rows that it should have (pure).

use std::collections::BTreeMap;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

/// Changes that turn present rows into desired ones.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Differences {
    /// Rows that are missing or have other values.
    pub(crate) puts: RecordBatch,
    /// Keys of the rows that are not desired, in the order of the key columns.
    pub(crate) deletes: RecordBatch,
}

/// Returns the differences. All batches have the columns of `schema`; `key`: positions of the key columns, in key order.
///
/// # Errors
/// A batch has other columns.
pub(crate) fn differences(
    schema: &SchemaRef,
    key: &[usize],
    present: &[RecordBatch],
    desired: &RecordBatch,
) -> Result<Differences, ArrowError> {
    let present = concat_batches(schema, present)?;
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let (keys, values) = (Encoder::new(schema, key)?, Encoder::new(schema, &all)?);
    let (present_keys, desired_keys) = (keys.rows(&present)?, keys.rows(desired)?);
    let (present_values, desired_values) = (values.rows(&present)?, values.rows(desired)?);
    let mut left: BTreeMap<&[u8], u32> =
        (0..).zip(&present_keys).map(|(row, key)| (key.data(), row)).collect();
    let mut puts = Vec::new();
    for (row, key) in (0u32..).zip(&desired_keys) {
        let known = left.remove(key.data());
        let is_same = known.is_some_and(|known| {
            present_values.row(known as usize) == desired_values.row(row as usize)
        });
        if !is_same {
            puts.push(row);
        }
    }
    let deletes: UInt32Array = left.into_values().collect();
    Ok(Differences {
        puts: take_record_batch(desired, &UInt32Array::from(puts))?,
        deletes: take_record_batch(&present.project(key)?, &deletes)?,
    })
}

/// Encodes some columns of rows so that equal rows have equal bytes.
struct Encoder<'a> {
    converter: RowConverter,
    columns: &'a [usize],
}

impl<'a> Encoder<'a> {
    fn new(schema: &SchemaRef, columns: &'a [usize]) -> Result<Self, ArrowError> {
        let field = |column: &usize| SortField::new(schema.field(*column).data_type().clone());
        let converter = RowConverter::new(columns.iter().map(field).collect())?;
        Ok(Self { converter, columns })
    }

    fn rows(&self, batch: &RecordBatch) -> Result<Rows, ArrowError> {
        let columns = batch.project(self.columns)?;
        self.converter.convert_columns(columns.columns())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray, UInt64Array};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("v", DataType::Utf8, true),
            Field::new("k", DataType::UInt64, false),
        ]))
    }

    fn batch(rows: &[(u64, Option<&str>)]) -> RecordBatch {
        let values: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>());
        let keys: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<UInt64Array>());
        RecordBatch::try_new(schema(), vec![values, keys]).unwrap()
    }

    fn keys(keys: &[u64]) -> RecordBatch {
        batch(&keys.iter().map(|key| (*key, None)).collect::<Vec<_>>()).project(&[1]).unwrap()
    }

    #[test]
    fn only_rows_that_differ_are_written() {
        let present = [batch(&[(1, Some("a")), (2, None)]), batch(&[]), batch(&[(4, Some("d"))])];
        let desired = batch(&[(4, Some("D")), (3, Some("c")), (2, None)]);
        let found = differences(&schema(), &[1], &present, &desired).unwrap();
        assert_eq!(found.puts, batch(&[(4, Some("D")), (3, Some("c"))]));
        assert_eq!(found.deletes, keys(&[1]));
    }

    #[test]
    fn rows_differ_by_all_columns_of_the_key() {
        let present = [batch(&[(1, Some("a")), (1, Some("b")), (2, Some("a"))])];
        let desired = batch(&[(2, Some("b")), (1, Some("a"))]);
        let found = differences(&schema(), &[1, 0], &present, &desired).unwrap();
        assert_eq!(found.puts, batch(&[(2, Some("b"))]));
        let deleted = batch(&[(1, Some("b")), (2, Some("a"))]);
        assert_eq!(found.deletes, deleted.project(&[1, 0]).unwrap());
    }

    #[test]
    fn null_differs_from_a_value() {
        let found = differences(&schema(), &[1], &[batch(&[(1, Some(""))])], &batch(&[(1, None)]));
        let found = found.unwrap();
        assert_eq!((found.puts.num_rows(), found.deletes.num_rows()), (1, 0));
    }

    #[test]
    fn same_contents_have_no_differences() {
        for rows in [&[][..], &[(1, Some("a")), (2, None)]] {
            let found = differences(&schema(), &[1], &[batch(rows)], &batch(rows)).unwrap();
            assert_eq!((found.puts.num_rows(), found.deletes.num_rows()), (0, 0));
        }
        let emptied = differences(&schema(), &[1], &[batch(&[(7, None)])], &batch(&[])).unwrap();
        assert_eq!(emptied.deletes, keys(&[7]));
    }
}
