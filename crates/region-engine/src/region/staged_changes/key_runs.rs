//! Pairs of equal keys in two sorted runs (pure).

use std::cmp::Ordering;
use std::ops::Range;

use arrow::row::Rows;

/// Adjacent keys of two runs that have the same place in the other run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyRun {
    /// Rows of the region whose keys are not staged.
    Region(Range<usize>),
    /// Staged rows whose keys the region lacks.
    Staged(Range<usize>),
    /// Rows with the same keys.
    Both {
        /// Rows of the region.
        region: Range<usize>,
        /// Staged rows, of the same number.
        staged: Range<usize>,
    },
}

/// Rows at hand of one run, each key once.
#[derive(Debug, Clone)]
pub(super) struct KeySlice<'a> {
    /// Comparable keys; `None` without rows.
    pub(super) keys: Option<&'a Rows>,
    /// Positions of the rows.
    pub(super) rows: Range<usize>,
    /// True if no further rows follow.
    pub(super) is_last: bool,
}

impl<'a> KeySlice<'a> {
    fn key(&self, row: usize) -> Option<&'a [u8]> {
        let keys = self.keys.filter(|_| row < self.rows.end)?;
        Some(keys.row(row).data())
    }

    fn first(&self) -> Option<&'a [u8]> {
        self.key(self.rows.start)
    }

    /// Returns the first `count` rows, which the slice loses.
    fn take(&mut self, count: usize) -> Range<usize> {
        let start = self.rows.start;
        self.rows.start = self.rows.end.min(start.saturating_add(count));
        start..self.rows.start
    }

    /// Returns the number of rows with keys below `limit`. Gallops: usually they are few.
    fn count_below(&self, limit: &[u8]) -> usize {
        let is_below = |row: usize| self.key(row).is_some_and(|key| key < limit);
        let mut low = self.rows.start;
        let mut step = 1;
        while is_below(low + step - 1) {
            low += step;
            step *= 2;
        }
        let mut high = self.rows.end.min(low + step - 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_below(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low - self.rows.start
    }

    /// Returns the number of rows at the start of both slices with the same keys.
    fn count_equal(&self, other: &Self) -> usize {
        let most = self.rows.len().min(other.rows.len());
        let is_equal =
            |at: &usize| self.key(self.rows.start + at) == other.key(other.rows.start + at);
        (0..most).take_while(is_equal).count()
    }
}

/// Returns the runs of the first `most` keys of both slices, in key order. Ends before a key whose place in the other
/// slice is unknown, because that slice ends before it and is not the last one.
pub(super) fn key_runs(
    mut region: KeySlice<'_>,
    mut staged: KeySlice<'_>,
    most: usize,
) -> Vec<KeyRun> {
    let mut runs = Vec::new();
    let mut room = most;
    while room > 0 {
        let (run, count) = match (region.first(), staged.first()) {
            (Some(own), Some(other)) => match own.cmp(other) {
                Ordering::Equal => {
                    let count = region.count_equal(&staged).min(room);
                    let rows = region.take(count);
                    (KeyRun::Both { region: rows, staged: staged.take(count) }, count)
                }
                Ordering::Less => {
                    let count = region.count_below(other).min(room);
                    (KeyRun::Region(region.take(count)), count)
                }
                Ordering::Greater => {
                    let count = staged.count_below(own).min(room);
                    (KeyRun::Staged(staged.take(count)), count)
                }
            },
            (Some(_), None) if staged.is_last => {
                let count = region.rows.len().min(room);
                (KeyRun::Region(region.take(count)), count)
            }
            (None, Some(_)) if region.is_last => {
                let count = staged.rows.len().min(room);
                (KeyRun::Staged(staged.take(count)), count)
            }
            _ => break,
        };
        room -= count;
        runs.push(run);
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array};
    use arrow::datatypes::DataType;
    use arrow::row::{RowConverter, SortField};

    use super::*;

    fn runs(region: &[i32], staged: &[i32], are_last: (bool, bool), most: usize) -> Vec<KeyRun> {
        let converter = RowConverter::new(vec![SortField::new(DataType::Int32)]).unwrap();
        let keys = |keys: &[i32]| {
            let array: ArrayRef = Arc::new(Int32Array::from(keys.to_vec()));
            converter.convert_columns(&[array]).unwrap()
        };
        let region = keys(region);
        let staged = keys(staged);
        let slice =
            |keys, is_last| KeySlice { keys: Some(keys), rows: 0..keys.num_rows(), is_last };
        key_runs(slice(&region, are_last.0), slice(&staged, are_last.1), most)
    }

    #[test]
    fn key_runs_follow_the_key_order() {
        use KeyRun::{Both, Region, Staged};
        let region = [1, 2, 3, 5, 7, 8, 9];
        let staged = [2, 3, 4, 7, 10, 11, 12, 13];
        let expected = [
            Region(0..1),
            Both { region: 1..3, staged: 0..2 },
            Staged(2..3),
            Region(3..4),
            Both { region: 4..5, staged: 3..4 },
            Region(5..7),
            Staged(4..8),
        ];
        assert_eq!(runs(&region, &staged, (true, true), 100), expected);
        assert_eq!(runs(&region, &staged, (false, true), 100), expected[..6]);
        assert_eq!(runs(&region, &staged, (true, true), 2), {
            [Region(0..1), Both { region: 1..2, staged: 0..1 }]
        });
        assert_eq!(runs(&region, &[], (false, true), 3), [Region(0..3)]);
        assert_eq!(runs(&region, &[], (true, false), 3), []);
        assert_eq!(runs(&[], &staged, (true, false), 100), [Staged(0..8)]);
        assert_eq!(runs(&[], &[], (true, true), 100), []);
    }

    #[test]
    fn count_below_agrees_with_partition_point() {
        let keys: Vec<i32> = (0..70).map(|key| 2 * key).collect();
        for limit in -1..141 {
            let below = keys.partition_point(|key| *key < limit);
            let mut expected = Vec::new();
            if below > 0 {
                expected.push(KeyRun::Region(0..below));
            }
            let found = runs(&keys, &[limit], (true, true), below);
            assert_eq!(found, expected, "{limit}");
            let next = runs(&keys, &[limit], (true, true), below + 1);
            assert!(
                !matches!(next.last(), Some(KeyRun::Region(rows)) if limit < 139 && rows.len() > below)
            );
        }
    }
}
