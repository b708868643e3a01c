//! Units in which a file stores its columns of seconds and milliseconds.
//!
//! A file has one unit for each column: microseconds, unless a value of the file overflows. A file's
//! statistics bound its values, so the units of its rows are known from the footer.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType, TimestampSecondType};

use super::convert::{StoredUnit, overflowing};
use crate::EngineError;
use crate::read::prune::ColumnBounds;
use crate::read::shape::Carried;
use crate::row_versions::RowVersions;

/// Units in which a file stores its columns, in the order of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredUnits(Vec<StoredUnit>);

impl StoredUnits {
    /// Returns the units of `columns` columns without a value that overflows.
    pub(crate) fn micros(columns: usize) -> Self {
        Self(vec![StoredUnit::Micros; columns])
    }

    /// Returns the units that hold all values of these columns.
    pub(crate) fn of(columns: &[ArrayRef]) -> Self {
        Self(columns.iter().map(unit_of).collect())
    }

    /// Returns the units that hold the values of rows that were written without these columns.
    ///
    /// # Errors
    /// As [`Carried::missing`].
    pub(crate) fn of_defaults(carried: &Carried) -> Result<Self, EngineError> {
        let defaults = (0..carried.ids.len()).map(|index| carried.missing(index, 1));
        Ok(Self::of(&defaults.collect::<Result<Vec<_>, _>>()?))
    }

    /// Returns the units that hold all values of these rows.
    pub(crate) fn from_rows(carried: &Carried, rows: impl Iterator<Item = RowVersions>) -> Self {
        let mut units = Self::micros(carried.ids.len());
        for rows in rows {
            for (unit, id) in units.0.iter_mut().zip(carried.ids.iter()) {
                *unit = (*unit).max(rows.column(*id).map_or(StoredUnit::Micros, unit_of));
            }
        }
        units
    }

    /// Returns whether these units hold all values that `other` holds.
    pub(crate) fn cover(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(own, other)| own >= other)
    }

    /// Returns the units that hold all values that either holds.
    pub(crate) fn union(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(own, other)| *own.max(other)).collect())
    }

    /// Returns the units, one for each column.
    pub(crate) fn iter(&self) -> impl Iterator<Item = StoredUnit> {
        self.0.iter().copied()
    }
}

impl FromIterator<StoredUnit> for StoredUnits {
    /// Collects the units of the columns of a schema, in their order.
    fn from_iter<I: IntoIterator<Item = StoredUnit>>(units: I) -> Self {
        Self(units.into_iter().collect())
    }
}

/// Returns whether files store columns of this type in more than one unit.
pub(crate) fn has_units(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, _))
}

fn unit_of(array: &ArrayRef) -> StoredUnit {
    let far = match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            overflowing::<TimestampSecondType, 1_000_000>(array)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            overflowing::<TimestampMillisecondType, 1_000>(array)
        }
        _ => None,
    };
    far.map_or(StoredUnit::Micros, |_| StoredUnit::Millis)
}

/// Returns the unit that holds all values within these bounds.
pub(super) fn unit_within(bounds: &ColumnBounds) -> StoredUnit {
    let is_unbounded = |range: usize| {
        let nulls = bounds.nulls.get(range).copied().flatten();
        let has_values = nulls.is_none_or(|nulls| nulls < bounds.rows[range]);
        has_values && (bounds.mins.is_null(range) || bounds.maxes.is_null(range))
    };
    if (0..bounds.rows.len()).any(is_unbounded) {
        return StoredUnit::Millis;
    }
    unit_of(&bounds.mins).max(unit_of(&bounds.maxes))
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::compute::cast;

    use super::StoredUnit::{Micros, Millis};
    use super::*;

    #[test]
    fn units_cover_others_by_column() {
        let units = |millis: [bool; 2]| {
            let unit = |far| if far { Millis } else { Micros };
            StoredUnits(millis.map(unit).to_vec())
        };
        let [none, first, second] = [[false; 2], [true, false], [false, true]].map(units);
        assert!(first.cover(&none) && first.cover(&first));
        assert!(!none.cover(&first) && !second.cover(&first));
        assert_eq!(first.union(&second), units([true; 2]));
        assert_eq!(none, StoredUnits::micros(2));
    }

    /// Values of one row group: least, greatest, nulls; a group has 10 rows.
    type Group = (Option<i64>, Option<i64>, Option<u64>);

    #[test]
    fn bounds_of_groups_decide_the_unit() {
        let far = i64::MAX / 1_000 + 1;
        let cases: &[(&[Group], StoredUnit)] = &[
            (&[], Micros),
            (&[(Some(1), Some(far - 1), Some(3))], Micros),
            (&[(Some(1), Some(5), None), (Some(1), Some(far), None)], Millis),
            (&[(Some(-far), Some(5), Some(0))], Millis),
            // Only nulls need no bounds.
            (&[(None, None, Some(10)), (Some(1), Some(5), Some(0))], Micros),
            (&[(None, None, Some(9))], Millis),
            (&[(None, None, None)], Millis),
            (&[(None, Some(5), Some(0))], Millis),
            (&[(Some(5), None, Some(0))], Millis),
        ];
        let millis = DataType::Timestamp(TimeUnit::Millisecond, Some("+01:00".into()));
        let times = |values: Vec<Option<i64>>| cast(&Int64Array::from(values), &millis).unwrap();
        for (groups, unit) in cases {
            let bounds = ColumnBounds {
                mins: times(groups.iter().map(|group| group.0).collect()),
                maxes: times(groups.iter().map(|group| group.1).collect()),
                nulls: groups.iter().map(|group| group.2).collect(),
                rows: vec![10; groups.len()],
                nan_free: true,
            };
            assert_eq!(unit_within(&bounds), *unit, "{groups:?}");
        }
    }
}
