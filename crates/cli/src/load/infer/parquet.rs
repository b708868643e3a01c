//! Inference from Parquet: the types are in the file; its rows are read for missing values.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::Array;
use arrow::datatypes::{DataType, TimeUnit};
use tidewater_common::schema::ColumnType;

use super::error::InferError;
use super::{Columns, InferOptions, Place};
use tidewater_readers::convert::field_names;
use tidewater_readers::error::{LoadError, RowPosition};
use tidewater_readers::input::Input;
use tidewater_readers::parquet::ParquetBatches;

/// Maximum rows that are decoded at a time.
const BATCH_ROWS: usize = 1_024;

/// Observes all rows of a Parquet file. Calls `observed` with the number of rows of each batch.
pub(super) fn observe(
    input: &Input,
    options: &InferOptions,
    read: &Arc<AtomicU64>,
    observed: &mut dyn FnMut(u64),
) -> Result<Columns, InferError> {
    let name = &input.name;
    let mut batches = ParquetBatches::open(input, BATCH_ROWS)?;
    let schema = Arc::clone(batches.schema());
    let names = field_names(schema.fields());
    let mut columns = Columns::with_names(name, names.into_iter(), options)?;
    for (column, field) in columns.list.iter_mut().zip(schema.fields()) {
        if column.given || *field.data_type() == DataType::Null {
            continue;
        }
        let data_type = column_type(field.data_type());
        column.exact = Some(data_type.ok_or_else(|| InferError::ParquetType {
            file: name.clone(),
            column: column.name.clone(),
            found: field.data_type().to_string(),
        })?);
    }
    if batches.rows() == 0 {
        return Err(LoadError::Empty { file: name.clone() }.into());
    }
    let file: Arc<str> = Arc::from(name.as_str());
    let mut rows = 0_u64;
    while let Some(batch) = batches.next_batch()? {
        for (column, array) in columns.list.iter_mut().zip(batch.columns()) {
            // Null arrays and dictionaries have nulls without a null buffer of their own.
            let Some(nulls) = array.logical_nulls() else { continue };
            if let Some(row) = (0..nulls.len()).find(|row| nulls.is_null(*row)) {
                let position = RowPosition::Row(rows + row as u64 + 1);
                column.observe_missing(|| Place { file: Arc::clone(&file), position });
            }
        }
        rows += batch.num_rows() as u64;
        observed(batch.num_rows() as u64);
    }
    read.fetch_add(input.size, Ordering::Relaxed);
    Ok(columns)
}

/// Returns the column type that stores all values of an Arrow type without loss.
fn column_type(data_type: &DataType) -> Option<ColumnType> {
    Some(match data_type {
        DataType::Boolean => ColumnType::Bool,
        DataType::Int8 => ColumnType::Int8,
        DataType::Int16 => ColumnType::Int16,
        DataType::Int32 => ColumnType::Int32,
        DataType::Int64 => ColumnType::Int64,
        DataType::UInt8 => ColumnType::UInt8,
        DataType::UInt16 => ColumnType::UInt16,
        DataType::UInt32 => ColumnType::UInt32,
        DataType::UInt64 => ColumnType::UInt64,
        DataType::Float16 | DataType::Float32 => ColumnType::Float32,
        DataType::Float64 => ColumnType::Float64,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ColumnType::Utf8,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => ColumnType::Binary,
        DataType::Date32 => ColumnType::Date32,
        // Milliseconds, which may have a time of day.
        DataType::Date64 => ColumnType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Timestamp(unit, zone) => ColumnType::Timestamp(*unit, zone.clone()),
        DataType::Decimal128(precision, scale) if (0..=38).contains(scale) => {
            ColumnType::Decimal128(*precision, *scale)
        }
        DataType::Dictionary(_, value) => return column_type(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;
    use tidewater_readers::convert::is_convertible;

    #[test]
    fn parquet_types_map_without_loss() {
        let zone: Option<Arc<str>> = Some(Arc::from("Europe/Berlin"));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        for (arrow, expected) in [
            (DataType::Boolean, "bool"),
            (DataType::Int16, "int16"),
            (DataType::UInt64, "uint64"),
            (DataType::Float16, "float32"),
            (DataType::LargeUtf8, "utf8"),
            (DataType::Utf8View, "utf8"),
            (dictionary, "utf8"),
            (DataType::LargeBinary, "binary"),
            (DataType::FixedSizeBinary(16), "binary"),
            (DataType::Date32, "date32"),
            (DataType::Date64, "timestamp(ms)"),
            (DataType::Timestamp(TimeUnit::Microsecond, zone), "timestamp(us, Europe/Berlin)"),
            (DataType::Decimal128(10, 2), "decimal128(10, 2)"),
        ] {
            let found = column_type(&arrow).unwrap();
            assert_eq!(found.to_string(), expected, "{arrow}");
            assert!(is_convertible(&arrow, &found), "{arrow}");
        }
    }

    #[test]
    fn nested_parquet_types_have_no_column_type() {
        let item = Arc::new(Field::new("item", DataType::Int8, true));
        for arrow in [
            DataType::List(item.clone()),
            DataType::Struct([item].into_iter().collect()),
            DataType::Time32(TimeUnit::Second),
            DataType::Duration(TimeUnit::Second),
            DataType::Decimal256(40, 2),
            DataType::Decimal128(10, -2),
        ] {
            assert_eq!(column_type(&arrow), None, "{arrow}");
        }
    }
}
