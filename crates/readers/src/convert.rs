//! Lossless conversion of columns to the types of the table.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast_with_options, is_null};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use tidewater_common::schema::ColumnType;

use crate::value::builder::ColumnBuilder;
use crate::value::cell_error::{CellError, ParseError};
use crate::value::instants::in_zone;

/// A column of the table's type, and the rows that could not be converted (null in the array).
#[derive(Debug)]
pub struct Converted {
    /// The column.
    pub array: ArrayRef,
    /// Rejected rows, with their reasons.
    pub rejected: Vec<(usize, CellError)>,
}

/// Returns true if type `from` converts to type `to`, although single rows may fail.
pub fn is_convertible(from: &DataType, to: &ColumnType) -> bool {
    use DataType::{
        Binary, BinaryView, Boolean, Date32, Date64, Decimal128, Dictionary, FixedSizeBinary,
        LargeBinary, LargeUtf8, Timestamp, Utf8, Utf8View,
    };
    let arrow = to.arrow();
    if *from == arrow {
        return true;
    }
    match from {
        Dictionary(_, value) => is_convertible(value, to),
        Utf8 | LargeUtf8 | Utf8View => true,
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => *to == ColumnType::Binary,
        Boolean => *to == ColumnType::Bool,
        Date32 | Date64 => matches!(to, ColumnType::Date32 | ColumnType::Timestamp(..)),
        Timestamp(..) => matches!(to, ColumnType::Timestamp(..) | ColumnType::Date32),
        Decimal128(..) => arrow.is_numeric(),
        from if from.is_integer() || from.is_floating() => arrow.is_numeric(),
        _ => false,
    }
}

/// Converts a column; its type and `to` must be [convertible](is_convertible).
pub fn convert(array: &ArrayRef, to: &ColumnType) -> Result<Converted, ArrowError> {
    let arrow = to.arrow();
    if array.data_type() == &arrow {
        return Ok(Converted { array: array.clone(), rejected: Vec::new() });
    }
    match array.data_type() {
        DataType::Dictionary(_, value) => convert(&cast(array, value)?, to),
        DataType::Utf8 if *to != ColumnType::Utf8 => Ok(from_texts(array, to)),
        DataType::LargeUtf8 | DataType::Utf8View => convert(&cast(array, &DataType::Utf8)?, to),
        _ => {
            // Cast without zones: a cast between zones would shift the instants.
            let (target, zone) = match &arrow {
                DataType::Timestamp(unit, zone) => {
                    (DataType::Timestamp(*unit, None), zone.as_deref())
                }
                other => (other.clone(), None),
            };
            let mut converted = checked(&in_zone(array, None), &target, to)?;
            converted.array = in_zone(&converted.array, zone);
            Ok(converted)
        }
    }
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    // A value out of range becomes null, which the comparison in `checked` detects.
    cast_with_options(array, to, &CastOptions { safe: true, ..CastOptions::default() })
}

/// Casts an array and rejects rows whose values do not survive the round trip. `named` is the column
/// type in messages.
fn checked(array: &ArrayRef, to: &DataType, named: &ColumnType) -> Result<Converted, ArrowError> {
    let cast_array = cast(array, to)?;
    // A shorter float is the one loss that users accept by choosing the type.
    let same: BooleanArray = if *to == DataType::Float32 && array.data_type().is_floating() {
        not_distinct(&is_null(array)?, &is_null(&cast_array)?)?
    } else {
        not_distinct(array, &cast(&cast_array, array.data_type())?)?
    };
    let mut rejected = Vec::new();
    if same.true_count() < array.len() {
        for row in (0..array.len()).filter(|row| !same.value(*row)) {
            let text = array_value_to_string(array, row)?;
            let error =
                if cast_array.is_null(row) { ParseError::Range } else { ParseError::Precision };
            rejected.push((row, CellError::value(&text, named, error)));
        }
    }
    Ok(Converted { array: cast_array, rejected })
}

fn from_texts(array: &ArrayRef, to: &ColumnType) -> Converted {
    let texts = array.as_string::<i32>();
    let mut builder = ColumnBuilder::new(to, texts.len());
    let mut rejected = Vec::new();
    for (row, text) in texts.iter().enumerate() {
        match text.map(|text| builder.append_text(text)) {
            Some(Ok(())) => {}
            Some(Err(problem)) => {
                rejected.push((row, problem));
                builder.append_null();
            }
            None => builder.append_null(),
        }
    }
    Converted { array: builder.finish(), rejected }
}

/// Names of the fields of a batch.
pub fn field_names(batch_fields: &[std::sync::Arc<Field>]) -> Vec<&str> {
    batch_fields.iter().map(|field| field.name().as_str()).collect()
}

/// Returns a column of nulls with the length of the batch.
pub fn nulls(batch: &RecordBatch, data_type: &ColumnType) -> ArrayRef {
    arrow::array::new_null_array(&data_type.arrow(), batch.num_rows())
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
