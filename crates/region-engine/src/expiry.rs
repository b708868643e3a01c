//! Time to live: expiry of row versions at a given time.
//!
//! Reads and compactions both check only the newest version of a key: an expired version counts as a
//! delete. A row without a time never expires, and neither does a delete.

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

/// Expiry of a table's rows at a given time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expiry {
    column: ColumnId,
    data_type: ColumnType,
    /// Rows with an earlier time have expired; in the column's unit.
    before: i64,
    /// The same limit in milliseconds since the Unix epoch.
    pub(crate) before_ms: i64,
    /// True if all versions of a key expire together: an expired version can then be dropped even if
    /// older files contain its key.
    pub(crate) whole_keys: bool,
    /// True if every row has a time.
    every_row: bool,
}

impl Expiry {
    /// Returns the expiry at time `now_ms`; `None` for tables without a time to live.
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

    /// Id of the time column.
    pub(crate) fn column(&self) -> ColumnId {
        self.column
    }

    /// Returns true if a file can be dropped as a whole once its greatest time has expired.
    pub(crate) fn drops_whole_files(&self) -> bool {
        self.whole_keys && self.every_row
    }

    /// Returns true if all rows of a file with these times have expired.
    pub(crate) fn covers_file(&self, time: Option<TimeRange>) -> bool {
        self.drops_whole_files() && time.is_some_and(|time| time.max < self.before)
    }

    /// Returns a mask of the expired rows; `None` if no row has expired. The rows must contain the time
    /// column.
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

/// Converts a time column to 64-bit numbers in its own unit.
pub(crate) fn as_numbers(times: &ArrayRef) -> Result<ArrayRef, EngineError> {
    // Arrow has no direct cast from dates to 64-bit integers.
    let times = match times.data_type() {
        DataType::Date32 => cast(times, &DataType::Int32)?,
        _ => times.clone(),
    };
    Ok(cast(&times, &DataType::Int64)?)
}

/// Converts the least and greatest time of a file to milliseconds, rounded down.
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

/// Returns the least value of the column's type that is not before this time.
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
    fn times_are_compared_in_column_units() {
        let stamp = |unit| ColumnType::Timestamp(unit, None);
        // Type, milliseconds, least value at or after them, milliseconds of that value.
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
