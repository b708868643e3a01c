//! Time to live: expiry of row versions at a given time.
//!
//! Reads and compactions both check only the newest version of a key: an expired version counts as a
//! delete. Rows that a commit has expired stay expired ([`ExpiryMarks`]). A row without a time never expires, and neither does a delete.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use tidewater_common::ids::{ColumnId, Sequence};
use tidewater_common::schema::{ColumnType, TableOptions, TableSchema};

use crate::EngineError;
use crate::file_meta::{FileMeta, TimeRange};
use crate::manifest::{ExpiryMark, ExpiryMarks};
use crate::row_versions::RowVersions;

const DAY_MS: i64 = 86_400_000;

/// Expiry of a table's rows at a given time: by the time to live, and by the marks of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expiry {
    column: ColumnId,
    data_type: ColumnType,
    /// The limit of the time to live; `None` without one.
    ttl: Option<TimeLimit>,
    /// The limits of the marks: latest time first, with the sequences up to which they hold.
    marks: Vec<(TimeLimit, Sequence)>,
    /// True if all versions of a key expire together: an expired version can then be dropped even if
    /// older files contain its key.
    pub(crate) whole_keys: bool,
    /// True if every row has a time.
    every_row: bool,
}

/// Time before which rows have expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TimeLimit {
    /// In the time column's unit.
    before: i64,
    /// In milliseconds since the Unix epoch.
    before_ms: i64,
}

impl TimeLimit {
    fn new(data_type: &ColumnType, before_ms: i64) -> Self {
        Self { before: first_unit_at_or_after(data_type, before_ms), before_ms }
    }
}

impl Expiry {
    /// Returns the expiry at time `now_ms` (0: unknown, so that no time to live ends) and by the marks;
    /// `None` if no row has expired.
    pub(crate) fn new(
        schema: &TableSchema,
        options: &TableOptions,
        now_ms: u64,
        marks: &ExpiryMarks,
    ) -> Option<Self> {
        let column = schema.time_column().and_then(|id| schema.column(id))?;
        let limit = |before_ms| TimeLimit::new(&column.data_type, before_ms);
        let ttl = options.ttl_ms.filter(|_| now_ms > 0).map(|ttl_ms| {
            let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
            limit(signed(now_ms).saturating_sub(signed(ttl_ms)))
        });
        let marks: Vec<_> =
            marks.iter().map(|mark| (limit(mark.before_ms), mark.through)).collect();
        (ttl.is_some() || !marks.is_empty()).then(|| Self {
            column: column.id,
            data_type: column.data_type.clone(),
            ttl,
            marks,
            whole_keys: options.has_one_time_per_key(schema),
            every_row: !column.nullable,
        })
    }

    /// Id of the time column.
    pub(crate) fn column(&self) -> ColumnId {
        self.column
    }

    /// Time before which the time to live has ended, milliseconds since the Unix epoch; `None` without
    /// a time to live.
    pub(crate) fn ttl_before_ms(&self) -> Option<i64> {
        self.ttl.map(|limit| limit.before_ms)
    }

    /// Returns true if a file can be dropped as a whole once its greatest time has expired.
    pub(crate) fn drops_whole_files(&self) -> bool {
        self.whole_keys && self.every_row
    }

    /// Returns true if all rows of a file with these times and sequences have expired.
    pub(crate) fn covers_file(&self, time: Option<TimeRange>, newest: Sequence) -> bool {
        let old = |limit: &TimeLimit| time.is_some_and(|time| time.max < limit.before);
        self.drops_whole_files()
            && (self.ttl.is_some_and(|limit| old(&limit))
                || self.marks.iter().any(|(limit, through)| newest <= *through && old(limit)))
    }

    /// Returns the mark that a commit must record which drops expired rows of these files: `None` if
    /// none of them has any.
    pub(crate) fn mark<'a>(
        &self,
        files: impl IntoIterator<Item = &'a FileMeta>,
    ) -> Option<ExpiryMark> {
        let limit = self.ttl?;
        let mut through = Sequence(0);
        let mut expires = false;
        for file in files {
            through = through.max(file.max_sequence());
            expires |= file.time.is_some_and(|time| time.min < limit.before);
        }
        expires.then_some(ExpiryMark { before_ms: limit.before_ms, through })
    }

    /// Returns true if expiry depends on the sequences of single rows of a file: some may be newer than
    /// a mark, and others not.
    pub(crate) fn needs_sequences(&self, file: &FileMeta) -> bool {
        self.marks.iter().any(|(limit, through)| {
            file.min_sequence() <= *through
                && file.max_sequence() > *through
                && file.time.is_some_and(|time| time.min < limit.before)
        })
    }

    /// Returns a mask of the expired rows; `None` if no row has expired. The rows must contain the time
    /// column.
    pub(crate) fn expired(&self, rows: &RowVersions) -> Result<Option<BooleanArray>, EngineError> {
        let Some(times) = rows.column(self.column) else { return Ok(None) };
        let times = as_numbers(times)?;
        let times = times.as_primitive::<Int64Type>();
        let values = times.values();
        let sequences = &rows.stamps().sequences;
        let old = BooleanBuffer::collect_bool(values.len(), |row| {
            let time = values[row];
            let by_ttl = self.ttl.is_some_and(|limit| time < limit.before);
            let marked = |(limit, through): &(TimeLimit, Sequence)| {
                time < limit.before && sequences.at(row) <= through.get()
            };
            (by_ttl || self.marks.iter().any(marked)) && times.is_valid(row)
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
