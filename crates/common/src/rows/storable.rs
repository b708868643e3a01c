//! Checks that a file can hold a value, while the writer can still be notified.
//!
//! Arrow carries values that Parquet does not. If such a value were accepted, its region could
//! never be flushed, or the value would change. The result depends on the rows alone, so all
//! replicas return the same.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{max, min};
use arrow::datatypes::{DataType, Decimal128Type, Schema, TimeUnit, TimestampSecondType};

const MILLIS_PER_SECOND: i64 = 1_000;

/// A value that Parquet files cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotStorable {
    /// An instant that overflows when converted to milliseconds.
    #[error(
        "column {column:?} has the value {seconds} s, which is out of range: files store \
         milliseconds in 64 bits"
    )]
    TooFar {
        /// The column's name.
        column: String,
        /// The value.
        seconds: i64,
    },
    /// A decimal with more digits than its type allows: a file would keep only the lower ones.
    #[error(
        "column {column:?} has the value {unscaled} (unscaled), which has more than \
         {precision} digits"
    )]
    TooManyDigits {
        /// The column's name.
        column: String,
        /// The value, in units of its last digit.
        unscaled: i128,
        /// Digits that the type has.
        precision: u8,
    },
}

/// Checks all values of columns that match `schema`, in its order.
///
/// # Errors
/// [`NotStorable`] names a column and one of its values.
pub fn check_storable(schema: &Schema, columns: &[ArrayRef]) -> Result<(), NotStorable> {
    for (field, array) in schema.fields().iter().zip(columns) {
        match array.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => check_seconds(field.name(), array)?,
            DataType::Decimal128(precision, _) => check_digits(field.name(), array, *precision)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_seconds(column: &str, array: &ArrayRef) -> Result<(), NotStorable> {
    let seconds = array.as_primitive::<TimestampSecondType>();
    let extremes = [min(seconds), max(seconds)].into_iter().flatten();
    match extremes.into_iter().find(|value| value.checked_mul(MILLIS_PER_SECOND).is_none()) {
        None => Ok(()),
        Some(seconds) => Err(NotStorable::TooFar { column: column.to_owned(), seconds }),
    }
}

fn check_digits(column: &str, array: &ArrayRef, precision: u8) -> Result<(), NotStorable> {
    let decimals = array.as_primitive::<Decimal128Type>();
    let bound = 10_u128.saturating_pow(u32::from(precision));
    let extremes = [min(decimals), max(decimals)].into_iter().flatten();
    match extremes.into_iter().find(|value| value.unsigned_abs() >= bound) {
        None => Ok(()),
        Some(unscaled) => {
            Err(NotStorable::TooManyDigits { column: column.to_owned(), unscaled, precision })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, TimestampSecondArray};
    use arrow::datatypes::Field;

    use super::*;

    fn check(array: ArrayRef) -> Result<(), NotStorable> {
        let schema = Schema::new(vec![Field::new("c", array.data_type().clone(), true)]);
        check_storable(&schema, &[array])
    }

    #[test]
    fn timestamps_in_seconds_must_fit_as_milliseconds() {
        let most = i64::MAX / MILLIS_PER_SECOND;
        let array = |values: Vec<Option<i64>>| Arc::new(TimestampSecondArray::from(values));
        assert_eq!(check(array(vec![Some(most), None, Some(-most)])), Ok(()));
        assert_eq!(check(array(vec![None])), Ok(()));
        for seconds in [most + 1, i64::MAX, i64::MIN] {
            let column = "c".to_owned();
            let expected = Err(NotStorable::TooFar { column, seconds });
            assert_eq!(check(array(vec![Some(0), None, Some(seconds)])), expected);
        }
    }
    #[test]
    fn decimals_may_not_exceed_their_precision() {
        for (precision, most) in [(1, 9), (9, 999_999_999), (38, 10_i128.pow(38) - 1)] {
            let array = |values: Vec<Option<i128>>| {
                let array = Decimal128Array::from(values);
                Arc::new(array.with_precision_and_scale(precision, 1).unwrap())
            };
            assert_eq!(check(array(vec![Some(most), None, Some(-most)])), Ok(()));
            assert_eq!(check(array(vec![None])), Ok(()));
            for unscaled in [most + 1, -most - 1, i128::MAX, i128::MIN] {
                let column = "c".to_owned();
                let expected = Err(NotStorable::TooManyDigits { column, unscaled, precision });
                assert_eq!(check(array(vec![Some(0), None, Some(unscaled)])), expected);
            }
        }
    }
}
