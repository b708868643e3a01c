//! Types of columns in files, where those differ from the table's.
//!
//! Parquet has no unit of seconds: other readers would see such a column as plain numbers. It is
//! stored as milliseconds, the next unit that Parquet has, and is converted back to seconds. Each
//! file records which of the two it holds, so older files remain readable. Values out of range are
//! rejected by the write: see [`check_storable`](tidewater_common::rows::check_storable).

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};

use crate::EngineError;

const PER_SECOND: i64 = 1_000;

/// Returns the type that a column of `data_type` has in a file.
pub(crate) fn stored_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(TimeUnit::Second, zone) => {
            DataType::Timestamp(TimeUnit::Millisecond, zone.clone())
        }
        other => other.clone(),
    }
}

/// Converts a column to its type in a file.
///
/// # Errors
/// [`EngineError::BadRows`] when a value is out of range.
pub(crate) fn to_stored(name: &str, array: &ArrayRef) -> Result<ArrayRef, EngineError> {
    let target = stored_type(array.data_type());
    if *array.data_type() == target {
        return Ok(array.clone());
    }
    exact(array, &target).map_err(|why| EngineError::BadRows {
        detail: format!("column {name:?} has a value that cannot be stored: {why}"),
    })
}

/// Converts a column of a file to the table's type; a value that does not fit exactly is an error,
/// never null.
pub(crate) fn from_stored(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, String> {
    if array.data_type() == target {
        return Ok(array.clone());
    }
    if let (
        DataType::Timestamp(TimeUnit::Millisecond, _),
        DataType::Timestamp(TimeUnit::Second, _),
    ) = (array.data_type(), target)
    {
        let values = array.as_primitive::<TimestampMillisecondType>();
        if let Some(value) = values.iter().flatten().find(|value| value % PER_SECOND != 0) {
            return Err(format!("{value} ms is not a whole number of seconds"));
        }
    }
    exact(array, target)
}

fn exact(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, String> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, target, &options).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{TimestampMillisecondArray, TimestampSecondArray};

    use super::*;

    fn seconds(values: Vec<Option<i64>>) -> ArrayRef {
        Arc::new(TimestampSecondArray::from(values).with_timezone("UTC"))
    }

    #[test]
    fn seconds_are_stored_as_milliseconds() {
        let most = i64::MAX / PER_SECOND;
        let array = seconds(vec![Some(-1), None, Some(most), Some(-most)]);
        let stored = to_stored("t", &array).unwrap();
        let expected: ArrayRef = Arc::new(
            TimestampMillisecondArray::from(vec![
                Some(-1_000),
                None,
                Some(most * 1_000),
                Some(-most * 1_000),
            ])
            .with_timezone("UTC"),
        );
        assert_eq!(&stored, &expected);
        assert_eq!(&from_stored(&stored, array.data_type()).unwrap(), &array);
        // The encoding of older files.
        assert_eq!(&from_stored(&array, array.data_type()).unwrap(), &array);
    }

    #[test]
    fn values_out_of_range_are_errors_not_null() {
        for value in [i64::MAX, i64::MIN, i64::MAX / PER_SECOND + 1] {
            let error = to_stored("t", &seconds(vec![Some(value)])).unwrap_err();
            assert!(matches!(error, EngineError::BadRows { .. }), "{error}");
        }
        let odd: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![1_500]));
        let target = DataType::Timestamp(TimeUnit::Second, None);
        assert!(from_stored(&odd, &target).unwrap_err().contains("1500 ms"));
    }
}
