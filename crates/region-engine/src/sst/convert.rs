//! Types of columns in files, where those differ from the table's.
//!
//! Format 2 stores instants as other systems expect them:
//!
//! - Seconds and milliseconds are stored as microseconds. Parquet has no unit of seconds, Iceberg
//!   has neither, and Spark compares microseconds with the statistics of a column of milliseconds.
//!   A column of a file whose values overflow as microseconds is stored as milliseconds, as in
//!   format 1: the first 292,000 years are portable, and no value that an earlier release accepted
//!   prevents a flush or a compaction.
//! - An instant with a time zone has the zone `UTC` in the Arrow schema of a file. Some readers
//!   refuse other zones. The table's schema has the zone, which does not change the instant.
//!
//! Format 1 stores milliseconds as they are, seconds as milliseconds or, in its oldest files, as
//! plain integers, and the table's zone. Each file records its types, so all are read the same
//! way. Values out of the range of milliseconds are rejected by the write: see
//! [`check_storable`](tidewater_common::rows::check_storable).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options, max, min};
use arrow::datatypes::{
    ArrowTimestampType, DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampSecondType,
};

use crate::EngineError;

/// Unit in which a file stores a column of seconds or milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StoredUnit {
    /// Microseconds, unless a value overflows.
    Micros,
    /// Milliseconds, which hold all values that a write accepts.
    Millis,
}

/// Returns the type that a column of `data_type` has in a file of format 2. `unit` concerns seconds
/// and milliseconds only.
pub(crate) fn stored_type(data_type: &DataType, unit: StoredUnit) -> DataType {
    let DataType::Timestamp(own, zone) = data_type else { return data_type.clone() };
    let stored = match (own, unit) {
        (TimeUnit::Second | TimeUnit::Millisecond, StoredUnit::Micros) => TimeUnit::Microsecond,
        (TimeUnit::Second | TimeUnit::Millisecond, StoredUnit::Millis) => TimeUnit::Millisecond,
        (unit, _) => *unit,
    };
    DataType::Timestamp(stored, zone.as_ref().map(|_| Arc::from("UTC")))
}

/// Returns whether a file of `format` may store a column of `data_type` as `stored`.
pub(crate) fn is_stored_type(format: u32, stored: &DataType, data_type: &DataType) -> bool {
    match (format, data_type) {
        (1, DataType::Timestamp(TimeUnit::Second, zone)) => {
            *stored == DataType::Timestamp(TimeUnit::Millisecond, zone.clone())
        }
        (1, _) => stored == data_type,
        _ => [StoredUnit::Micros, StoredUnit::Millis]
            .into_iter()
            .any(|unit| *stored == stored_type(data_type, unit)),
    }
}

/// Converts a column to its type in a file.
///
/// # Errors
/// [`EngineError::BadRows`] when a value is out of range.
pub(crate) fn to_stored(
    name: &str,
    array: &ArrayRef,
    unit: StoredUnit,
) -> Result<ArrayRef, EngineError> {
    let stored = stored_type(array.data_type(), unit);
    if *array.data_type() == stored {
        return Ok(array.clone());
    }
    rescaled(array, &stored).map_err(|why| EngineError::BadRows {
        detail: format!("column {name:?} has a value that cannot be stored: {why}"),
    })
}

/// Converts a column of a file to the table's type; a value that does not fit exactly is an error,
/// never null.
pub(crate) fn from_stored(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, String> {
    match (array.data_type(), target) {
        (stored, target) if stored == target => Ok(array.clone()),
        (DataType::Timestamp(_, from), DataType::Timestamp(_, to))
            if from.is_some() == to.is_some() =>
        {
            rescaled(array, target)
        }
        _ => exact(array, target),
    }
}

/// Converts instants to another unit and zone. The zone does not change an instant.
fn rescaled(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, String> {
    use TimeUnit::{Microsecond, Millisecond, Second};
    type Seconds = TimestampSecondType;
    type Millis = TimestampMillisecondType;
    type Micros = TimestampMicrosecondType;
    let (DataType::Timestamp(from, _), DataType::Timestamp(to, zone)) = (array.data_type(), target)
    else {
        return exact(array, target);
    };
    let zone = zone.clone();
    match (from, to) {
        (Second, Millisecond) => multiplied::<Seconds, Millis, 1_000>(array, zone),
        (Second, Microsecond) => multiplied::<Seconds, Micros, 1_000_000>(array, zone),
        (Millisecond, Microsecond) => multiplied::<Millis, Micros, 1_000>(array, zone),
        (Millisecond, Second) => divided::<Millis, Seconds, 1_000>(array, zone),
        (Microsecond, Second) => divided::<Micros, Seconds, 1_000_000>(array, zone),
        (Microsecond, Millisecond) => divided::<Micros, Millis, 1_000>(array, zone),
        (from, to) if from == to => exact(array, target),
        (from, to) => Err(format!("{to:?}s are not stored as {from:?}s")),
    }
}

/// Returns a value that overflows when multiplied, if there is one.
pub(super) fn overflowing<T, const FACTOR: i64>(array: &ArrayRef) -> Option<i64>
where
    T: ArrowTimestampType,
{
    let values = array.as_primitive::<T>();
    let extremes = [min(values), max(values)].into_iter().flatten();
    extremes.into_iter().find(|value| value.checked_mul(FACTOR).is_none())
}

fn multiplied<F, T, const FACTOR: i64>(
    array: &ArrayRef,
    zone: Option<Arc<str>>,
) -> Result<ArrayRef, String>
where
    F: ArrowTimestampType,
    T: ArrowTimestampType,
{
    if let Some(value) = overflowing::<F, FACTOR>(array) {
        return Err(format!("{value} overflows when multiplied by {FACTOR}"));
    }
    // The slot of a null may hold any value.
    let values = array.as_primitive::<F>().unary::<_, T>(|value| value.wrapping_mul(FACTOR));
    Ok(Arc::new(values.with_timezone_opt(zone)))
}

fn divided<F, T, const DIVISOR: i64>(
    array: &ArrayRef,
    zone: Option<Arc<str>>,
) -> Result<ArrayRef, String>
where
    F: ArrowTimestampType,
    T: ArrowTimestampType,
{
    let values = array.as_primitive::<F>();
    let is_odd = |value: &i64| value % DIVISOR != 0;
    // The first check is fast; the slot of a null may hold any value.
    if values.values().iter().any(is_odd)
        && let Some(value) = values.iter().flatten().find(is_odd)
    {
        return Err(format!("{value} is not a multiple of {DIVISOR}"));
    }
    let values = values.unary::<_, T>(|value| value / DIVISOR);
    Ok(Arc::new(values.with_timezone_opt(zone)))
}

fn exact(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, String> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, target, &options).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::compute::cast;

    use super::*;
    use crate::sst::units::StoredUnits;

    fn at(unit: TimeUnit, zone: Option<&str>) -> DataType {
        DataType::Timestamp(unit, zone.map(Arc::from))
    }

    fn array(data_type: &DataType, values: &[Option<i64>]) -> ArrayRef {
        cast(&Int64Array::from(values.to_vec()), data_type).unwrap()
    }

    #[test]
    fn stored_types_are_micros_in_utc() {
        use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
        for (own, micros, millis) in [
            (Second, Microsecond, Millisecond),
            (Millisecond, Microsecond, Millisecond),
            (Microsecond, Microsecond, Microsecond),
            (Nanosecond, Nanosecond, Nanosecond),
        ] {
            for (zone, utc) in [(None, None), (Some("Europe/Paris"), Some("UTC"))] {
                let own = at(own, zone);
                assert_eq!(stored_type(&own, StoredUnit::Micros), at(micros, utc));
                assert_eq!(stored_type(&own, StoredUnit::Millis), at(millis, utc));
            }
        }
        assert_eq!(stored_type(&DataType::Date32, StoredUnit::Millis), DataType::Date32);
    }

    #[test]
    fn types_of_each_format_are_accepted_in_it_only() {
        use TimeUnit::{Microsecond, Millisecond, Second};
        let paris = Some("Europe/Paris");
        // Stored type, table's type, accepted in format 1, accepted in format 2.
        let cases = [
            (at(Millisecond, None), at(Second, None), true, true),
            (at(Microsecond, None), at(Second, None), false, true),
            (at(Second, None), at(Second, None), false, false),
            (at(Millisecond, None), at(Millisecond, None), true, true),
            (at(Microsecond, None), at(Millisecond, None), false, true),
            (at(Millisecond, None), at(Microsecond, None), false, false),
            (at(Microsecond, paris), at(Microsecond, paris), true, false),
            (at(Microsecond, Some("UTC")), at(Microsecond, paris), false, true),
            (at(Microsecond, None), at(Microsecond, paris), false, false),
            (DataType::Int32, DataType::Int32, true, true),
            (DataType::Int64, DataType::Int32, false, false),
        ];
        for (stored, own, first, second) in cases {
            assert_eq!(is_stored_type(1, &stored, &own), first, "1: {own} as {stored}");
            assert_eq!(is_stored_type(2, &stored, &own), second, "2: {own} as {stored}");
        }
    }

    #[test]
    fn stored_instants_are_read_back() {
        use TimeUnit::{Millisecond, Second};
        let near = i64::MAX / 1_000_000;
        let far = i64::MAX / 1_000;
        for (unit, factor, value, stored) in [
            (Second, 1_000_000, near, StoredUnit::Micros),
            (Second, 1_000, far, StoredUnit::Millis),
            (Millisecond, 1_000, far, StoredUnit::Micros),
            (Millisecond, 1, i64::MAX, StoredUnit::Millis),
        ] {
            for zone in [None, Some("+01:00")] {
                let own = at(unit, zone);
                let values = array(&own, &[Some(-1), None, Some(value), Some(-value), Some(0)]);
                let units = StoredUnits::of(std::slice::from_ref(&values));
                assert_eq!(units.iter().collect::<Vec<_>>(), [stored]);
                let found = to_stored("t", &values, stored).unwrap();
                let scaled = |value: i64| Some(value * factor);
                let expected = [scaled(-1), None, scaled(value), scaled(-value), Some(0)];
                assert_eq!(&found, &array(&stored_type(&own, stored), &expected));
                assert_eq!(&from_stored(&found, &own).unwrap(), &values);
                // The encoding of the oldest files.
                assert_eq!(&from_stored(&values, &own).unwrap(), &values);
            }
        }
    }

    #[test]
    fn values_out_of_range_are_errors_not_null() {
        let seconds = at(TimeUnit::Second, None);
        let millis = at(TimeUnit::Millisecond, None);
        for (own, unit, value) in [
            (&seconds, StoredUnit::Millis, i64::MAX / 1_000 + 1),
            (&seconds, StoredUnit::Micros, i64::MAX / 1_000_000 + 1),
            (&millis, StoredUnit::Micros, i64::MIN / 1_000 - 1),
            (&millis, StoredUnit::Micros, i64::MAX),
        ] {
            let error = to_stored("t", &array(own, &[Some(0), Some(value)]), unit).unwrap_err();
            assert!(matches!(error, EngineError::BadRows { .. }), "{error}");
        }
        let odd = array(&at(TimeUnit::Microsecond, None), &[None, Some(0), Some(1_500)]);
        for target in [seconds, millis] {
            assert!(from_stored(&odd, &target).unwrap_err().starts_with("1500 is not"));
        }
        let nanos = array(&at(TimeUnit::Nanosecond, None), &[Some(1_000)]);
        assert!(from_stored(&nanos, &at(TimeUnit::Microsecond, None)).is_err());
    }
}
