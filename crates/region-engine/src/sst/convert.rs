//! Types as they stand in files, where those differ from the table's.
//!
//! Parquet knows no seconds: a column of them would reach other readers as plain numbers. It is
//! stored as milliseconds, the next unit that Parquet has, and comes back as seconds. Files say
//! themselves which of the two they hold, so those that were written before are still read. What does
//! not fit is refused when it is written: see [`check_storable`](tidewater_common::rows::check_storable).

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};

use crate::EngineError;

const PER_SECOND: i64 = 1_000;

/// The type under which a column of `data_type` stands in a file.
pub(crate) fn stored_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(TimeUnit::Second, zone) => {
            DataType::Timestamp(TimeUnit::Millisecond, zone.clone())
        }
        other => other.clone(),
    }
}

/// A column as a file holds it.
///
/// # Errors
/// [`EngineError::BadRows`] when a value does not fit.
pub(crate) fn to_stored(name: &str, array: &ArrayRef) -> Result<ArrayRef, EngineError> {
    let wanted = stored_type(array.data_type());
    if *array.data_type() == wanted {
        return Ok(array.clone());
    }
    exact(array, &wanted).map_err(|why| EngineError::BadRows {
        detail: format!("column {name:?} has a value that cannot be stored: {why}"),
    })
}

/// A column of a file as the table has it; what does not fit exactly is an error, never null.
pub(crate) fn from_stored(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, String> {
    if array.data_type() == wanted {
        return Ok(array.clone());
    }
    if let (
        DataType::Timestamp(TimeUnit::Millisecond, _),
        DataType::Timestamp(TimeUnit::Second, _),
    ) = (array.data_type(), wanted)
    {
        let values = array.as_primitive::<TimestampMillisecondType>();
        if let Some(value) = values.iter().flatten().find(|value| value % PER_SECOND != 0) {
            return Err(format!("{value} ms is no whole number of seconds"));
        }
    }
    exact(array, wanted)
}

fn exact(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, String> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, wanted, &options).map_err(|error| error.to_string())
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
    fn seconds_go_as_milliseconds_and_come_back() {
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
        // As it was written once.
        assert_eq!(&from_stored(&array, array.data_type()).unwrap(), &array);
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_never_null() {
        for value in [i64::MAX, i64::MIN, i64::MAX / PER_SECOND + 1] {
            let error = to_stored("t", &seconds(vec![Some(value)])).unwrap_err();
            assert!(matches!(error, EngineError::BadRows { .. }), "{error}");
        }
        let odd: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![1_500]));
        let wanted = DataType::Timestamp(TimeUnit::Second, None);
        assert!(from_stored(&odd, &wanted).unwrap_err().contains("1500 ms"));
    }
}
