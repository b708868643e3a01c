//! Time to live: which row versions have expired at a given time.
//!
//! Only the newest version of a key is looked at, by reads and by compaction alike: an expired one
//! counts as a delete. A row without a time, and a delete, never expires.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use tidewater_common::ids::ColumnId;
use tidewater_common::schema::{ColumnType, TableOptions, TableSchema, WriteMode};

use crate::EngineError;
use crate::file_meta::TimeRange;
use crate::row_versions::RowVersions;

const DAY_MS: i64 = 86_400_000;

/// What has expired at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expiry {
    column: ColumnId,
    data_type: ColumnType,
    /// In the column's unit: what lies before it has expired.
    before: i64,
    /// The same in milliseconds.
    pub(crate) before_ms: i64,
    /// All versions of a key expire together, so an expired one may go whatever lies beneath it.
    pub(crate) whole_keys: bool,
    /// Every row has a time.
    every_row: bool,
}

impl Expiry {
    /// `None` for tables whose rows live for ever.
    pub(crate) fn new(schema: &TableSchema, options: &TableOptions, now_ms: u64) -> Option<Self> {
        let ttl_ms = i64::try_from(options.ttl_ms?).unwrap_or(i64::MAX);
        let column = schema.time_column().and_then(|id| schema.column(id))?;
        let before_ms = i64::try_from(now_ms).unwrap_or(i64::MAX).saturating_sub(ttl_ms);
        Some(Self {
            column: column.id,
            data_type: column.data_type.clone(),
            before: first_unit_at_or_after(&column.data_type, before_ms),
            before_ms,
            whole_keys: options.write_mode == WriteMode::AppendOnly
                || schema.primary_key().contains(&column.id),
            every_row: !column.nullable,
        })
    }

    /// The time column.
    pub(crate) fn column(&self) -> ColumnId {
        self.column
    }

    /// Files may be dropped as a whole when their greatest time has expired.
    pub(crate) fn whole_files(&self) -> bool {
        self.whole_keys && self.every_row
    }

    /// Whether all rows of a file with these times have expired.
    pub(crate) fn all_of(&self, time: Option<TimeRange>) -> bool {
        self.whole_files() && time.is_some_and(|time| time.max < self.before)
    }

    /// Which rows have expired; `None`: none has. The rows carry the time column.
    pub(crate) fn expired(&self, rows: &RowVersions) -> Result<Option<BooleanArray>, EngineError> {
        let Some(times) = rows.column(self.column) else { return Ok(None) };
        let times = as_numbers(times)?;
        let times = times.as_primitive::<Int64Type>();
        let values = times.values();
        let old = BooleanBuffer::collect_bool(values.len(), |row| {
            values[row] < self.before && times.is_valid(row)
        });
        Ok((old.count_set_bits() > 0).then(|| BooleanArray::new(old, None)))
    }
}

/// A time column as numbers in its own unit.
pub(crate) fn as_numbers(times: &ArrayRef) -> Result<ArrayRef, EngineError> {
    // Arrow knows no direct way from dates to 64 bits.
    let times = match times.data_type() {
        DataType::Date32 => cast(times, &DataType::Int32)?,
        _ => times.clone(),
    };
    Ok(cast(&times, &DataType::Int64)?)
}

/// Least and greatest time of a file in milliseconds, rounded down.
pub(crate) fn to_ms(data_type: &ColumnType, time: TimeRange) -> (i64, i64) {
    let to_ms = |value: i64| match data_type {
        ColumnType::Date32 => value.saturating_mul(DAY_MS),
        ColumnType::Timestamp(TimeUnit::Second, _) => value.saturating_mul(1_000),
        ColumnType::Timestamp(TimeUnit::Microsecond, _) => value.div_euclid(1_000),
        ColumnType::Timestamp(TimeUnit::Nanosecond, _) => value.div_euclid(1_000_000),
        _ => value,
    };
    (to_ms(time.min), to_ms(time.max))
}

/// The least value of the column that does not lie before this time.
fn first_unit_at_or_after(data_type: &ColumnType, ms: i64) -> i64 {
    let up = |unit: i64| ms.div_euclid(unit) + i64::from(ms.rem_euclid(unit) > 0);
    match data_type {
        ColumnType::Date32 => up(DAY_MS),
        ColumnType::Timestamp(TimeUnit::Second, _) => up(1_000),
        ColumnType::Timestamp(TimeUnit::Microsecond, _) => ms.saturating_mul(1_000),
        ColumnType::Timestamp(TimeUnit::Nanosecond, _) => ms.saturating_mul(1_000_000),
        _ => ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_compared_in_the_unit_of_their_column() {
        let stamp = |unit| ColumnType::Timestamp(unit, None);
        // Type, milliseconds, least value at or after them, those of that value.
        let cases = [
            (stamp(TimeUnit::Second), 1_001, 2, 2_000),
            (stamp(TimeUnit::Second), 2_000, 2, 2_000),
            (stamp(TimeUnit::Second), -1_001, -1, -1_000),
            (stamp(TimeUnit::Millisecond), 1_001, 1_001, 1_001),
            (stamp(TimeUnit::Microsecond), 1_001, 1_001_000, 1_001),
            (stamp(TimeUnit::Nanosecond), 1_001, 1_001_000_000, 1_001),
            (ColumnType::Date32, DAY_MS + 1, 2, 2 * DAY_MS),
        ];
        for (data_type, ms, value, back) in cases {
            assert_eq!(first_unit_at_or_after(&data_type, ms), value, "{data_type}");
            let range = TimeRange { min: value, max: value };
            assert_eq!(to_ms(&data_type, range), (back, back), "{data_type}");
        }
        let range = TimeRange { min: -1, max: 1_999 };
        assert_eq!(to_ms(&stamp(TimeUnit::Microsecond), range), (-1, 1));
    }
}
