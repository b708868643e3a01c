//! Dates and timestamps. PostgreSQL counts from 2000-01-01, Arrow from 1970-01-01.

use arrow::datatypes::{
    Date32Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use tidewater_common::schema::ColumnType;

use super::{ColumnBuilder, ValueError, fixed, fixed_column};

/// Days from 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i32 = 10_957;
const DAY_US: i64 = 86_400_000_000;

/// Returns the builder of a column whose fields are dates. A date is also the timestamp of its midnight, if neither has
/// a zone.
pub(super) fn date(to: &ColumnType) -> Option<Box<dyn ColumnBuilder>> {
    match to {
        ColumnType::Date32 => fixed_column::<Date32Type, _>(to, days),
        ColumnType::Timestamp(unit, None) => instants(*unit, to, |field| {
            let days = days(field)?;
            i64::from(days)
                .checked_mul(DAY_US)
                .ok_or_else(|| ValueError::DoesNotFit(format!("day {days} since 1970-01-01")))
        }),
        _ => None,
    }
}

/// Returns the builder of a column whose fields are timestamps without a zone.
pub(super) fn timestamp(to: &ColumnType) -> Option<Box<dyn ColumnBuilder>> {
    match to {
        ColumnType::Timestamp(unit, None) => instants(*unit, to, micros),
        _ => None,
    }
}

/// Returns the builder of a column whose fields are instants.
pub(super) fn timestamptz(to: &ColumnType) -> Option<Box<dyn ColumnBuilder>> {
    match to {
        ColumnType::Timestamp(unit, Some(_)) => instants(*unit, to, micros),
        _ => None,
    }
}

fn days(field: &[u8]) -> Result<i32, ValueError> {
    match i32::from_be_bytes(fixed(field)?) {
        i32::MAX => Err(ValueError::does_not_fit("infinity")),
        i32::MIN => Err(ValueError::does_not_fit("-infinity")),
        days => days
            .checked_add(EPOCH_DAYS)
            .ok_or_else(|| ValueError::Damaged(format!("a date is {days} days after 2000-01-01"))),
    }
}

/// Returns microseconds since 1970-01-01.
fn micros(field: &[u8]) -> Result<i64, ValueError> {
    match i64::from_be_bytes(fixed(field)?) {
        i64::MAX => Err(ValueError::does_not_fit("infinity")),
        i64::MIN => Err(ValueError::does_not_fit("-infinity")),
        micros => micros.checked_add(i64::from(EPOCH_DAYS) * DAY_US).ok_or_else(|| {
            ValueError::Damaged(format!("a timestamp is {micros} us after 2000-01-01"))
        }),
    }
}

fn instants<F>(unit: TimeUnit, to: &ColumnType, read: F) -> Option<Box<dyn ColumnBuilder>>
where
    F: Fn(&[u8]) -> Result<i64, ValueError> + Send + 'static,
{
    let coarser = |divisor: i64| {
        move |micros: i64| (micros % divisor == 0).then_some(micros / divisor).ok_or(micros)
    };
    match unit {
        TimeUnit::Second => {
            let convert = coarser(1_000_000);
            fixed_column::<TimestampSecondType, _>(to, move |f| convert(read(f)?).map_err(unfit))
        }
        TimeUnit::Millisecond => {
            let convert = coarser(1_000);
            fixed_column::<TimestampMillisecondType, _>(to, move |f| {
                convert(read(f)?).map_err(unfit)
            })
        }
        TimeUnit::Microsecond => fixed_column::<TimestampMicrosecondType, _>(to, read),
        TimeUnit::Nanosecond => fixed_column::<TimestampNanosecondType, _>(to, move |field| {
            let micros = read(field)?;
            micros.checked_mul(1_000).ok_or_else(|| unfit(micros))
        }),
    }
}

/// A timestamp between two values of the column's unit, or outside of its range.
fn unfit(micros: i64) -> ValueError {
    let text = arrow::temporal_conversions::timestamp_us_to_datetime(micros)
        .map_or_else(|| format!("{micros} us since 1970-01-01"), |time| time.to_string());
    ValueError::DoesNotFit(text)
}
