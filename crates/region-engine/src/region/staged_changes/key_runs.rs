//! Pairs of equal keys in two sorted runs (pure).

use std::cmp::Ordering;
use std::ops::Range;

use tidewater_common::keys::KeyError;

use super::side::SideName;
use super::sorted_keys::SortedKeys;

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

impl KeyRun {
    /// Returns the number of keys.
    fn len(&self) -> usize {
        match self {
            Self::Region(rows) | Self::Staged(rows) | Self::Both { staged: rows, .. } => rows.len(),
        }
    }
}

/// Reason why rows are not compared.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyOrderError {
    /// A row is not above the row before it.
    #[error("row {row} of side {side:?} is not above the previous row")]
    NotAbove {
        /// The side.
        side: SideName,
        /// Position of the row in its batch.
        row: usize,
        /// True if its key is that of the row before.
        is_equal: bool,
    },
    /// A key cannot be encoded.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Rows at hand of one run.
#[derive(Debug)]
pub(super) struct KeySlice<'a> {
    pub(super) side: SideName,
    /// `None` without rows.
    pub(super) keys: Option<&'a mut SortedKeys>,
    /// Positions of the rows.
    pub(super) rows: Range<usize>,
    /// True if no further rows follow.
    pub(super) is_last: bool,
}

impl KeySlice<'_> {
    /// Returns the keys if rows are left.
    fn keys(&mut self) -> Option<&mut SortedKeys> {
        self.keys.as_deref_mut().filter(|_| !self.rows.is_empty())
    }

    /// Returns the first `count` rows, which the slice loses.
    fn take(&mut self, count: usize) -> Range<usize> {
        let start = self.rows.start;
        self.rows.start = self.rows.end.min(start.saturating_add(count));
        start..self.rows.start
    }

    /// Returns the first rows, at most `most`, that precede `limit`, which the slice loses.
    fn take_below(
        &mut self,
        limit: Option<&[u8]>,
        most: usize,
    ) -> Result<Range<usize>, KeyOrderError> {
        let rows = self.rows.start..self.rows.end.min(self.rows.start.saturating_add(most));
        let mut count = 0;
        if let Some(keys) = self.keys.as_deref_mut() {
            for row in rows {
                if let Some(limit) = limit
                    && keys.key(row)? >= limit
                {
                    break;
                }
                // Keys that both sides have ascend if those of one side do.
                let order = keys.order_at(row)?;
                if order != Ordering::Less {
                    let is_equal = order == Ordering::Equal;
                    return Err(KeyOrderError::NotAbove { side: self.side, row, is_equal });
                }
                count += 1;
            }
        }
        Ok(self.take(count))
    }
}

/// Returns the runs of the first `most` keys of both slices, in key order. Ends before a key whose place in the other
/// slice is unknown, because that slice ends before it and is not the last one.
///
/// The keys of the region ascend. Those of the staged rows are checked: a staged row has the key of a row of the region,
/// or it is compared with the staged row before it.
///
/// # Errors
/// [`KeyOrderError`].
pub(super) fn key_runs(
    mut region: KeySlice<'_>,
    mut staged: KeySlice<'_>,
    most: usize,
) -> Result<Vec<KeyRun>, KeyOrderError> {
    let mut runs = Vec::new();
    let mut room = most;
    while room > 0 {
        let run = match run_of_both(&mut region, &mut staged, room)? {
            Some(run) => run,
            None if staged.is_last && !region.rows.is_empty() => {
                KeyRun::Region(region.take_below(None, room)?)
            }
            None if region.is_last && !staged.rows.is_empty() => {
                KeyRun::Staged(staged.take_below(None, room)?)
            }
            None => break,
        };
        room -= run.len();
        runs.push(run);
    }
    Ok(runs)
}

/// Returns the first run of at most `most` keys of two slices; `None` if one of them has no rows.
fn run_of_both(
    region: &mut KeySlice<'_>,
    staged: &mut KeySlice<'_>,
    most: usize,
) -> Result<Option<KeyRun>, KeyOrderError> {
    let row = region.rows.start;
    let other_row = staged.rows.start;
    let most_equal = most.min(region.rows.len()).min(staged.rows.len());
    let (Some(own), Some(other)) = (region.keys(), staged.keys()) else { return Ok(None) };
    let equal = own.count_equal(row, other, other_row, most_equal);
    let order = match equal {
        0 => own.key(row)?.cmp(other.key(other_row)?),
        _ => Ordering::Equal,
    };
    Ok(Some(match order {
        Ordering::Less => KeyRun::Region(region.take_below(Some(other.key(other_row)?), most)?),
        Ordering::Greater => KeyRun::Staged(staged.take_below(Some(own.key(row)?), most)?),
        Ordering::Equal => {
            let count = equal.max(1);
            KeyRun::Both { region: region.take(count), staged: staged.take(count) }
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use tidewater_common::schema::TableOptions;

    use super::*;
    use crate::manifest::samples::schema;
    use crate::read::shape::TableShape;

    fn compare(
        region: &[i64],
        staged: &[i64],
        are_last: (bool, bool),
        most: usize,
    ) -> Result<Vec<KeyRun>, KeyOrderError> {
        let shape = TableShape::new(schema(1), TableOptions::upsert()).unwrap();
        let keys = |keys: &[i64]| {
            let array = Arc::new(Int64Array::from(keys.to_vec()));
            let batch = RecordBatch::try_new(shape.schema.key_arrow(), vec![array]).unwrap();
            SortedKeys::new(&shape.codec, batch, None).unwrap()
        };
        let slice = |side, keys, rows, is_last| KeySlice { side, keys: Some(keys), rows, is_last };
        key_runs(
            slice(SideName::Region, &mut keys(region), 0..region.len(), are_last.0),
            slice(SideName::Staged, &mut keys(staged), 0..staged.len(), are_last.1),
            most,
        )
    }

    fn runs(region: &[i64], staged: &[i64], are_last: (bool, bool), most: usize) -> Vec<KeyRun> {
        compare(region, staged, are_last, most).unwrap()
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
    fn long_runs_end_where_keys_differ() {
        let region: Vec<i64> = (0..1_000).collect();
        for at in [0, 1, 2, 3, 62, 63, 64, 255, 510, 511, 512, 999] {
            let mut staged = region.clone();
            staged.remove(at);
            let mut expected = Vec::new();
            if at > 0 {
                expected.push(KeyRun::Both { region: 0..at, staged: 0..at });
            }
            expected.push(KeyRun::Region(at..at + 1));
            if at < 999 {
                expected.push(KeyRun::Both { region: at + 1..1_000, staged: at..999 });
            }
            assert_eq!(runs(&region, &staged, (true, true), 1_000), expected);
            // The other way round.
            let found = runs(&staged, &region, (true, true), 1_000);
            assert!(found.contains(&KeyRun::Staged(at..at + 1)), "{found:?}");
        }
        let others: Vec<i64> = (5_000..6_000).collect();
        let expected = [KeyRun::Region(0..1_000), KeyRun::Staged(0..1_000)];
        assert_eq!(runs(&region, &others, (true, true), 2_000), expected);
    }

    #[test]
    fn rows_out_of_order_are_errors() {
        type Case = (&'static [i64], &'static [i64], SideName, usize, bool);
        let cases: [Case; 6] = [
            (&[1, 2], &[1, 1, 2], SideName::Staged, 1, true),
            (&[1, 2], &[1, 2, 2], SideName::Staged, 2, true),
            (&[], &[3, 3], SideName::Staged, 1, true),
            (&[5], &[3, 3], SideName::Staged, 1, true),
            (&[1], &[3, 2], SideName::Staged, 1, false),
            (&[3, 2], &[4], SideName::Region, 1, false),
        ];
        for (region, staged, expected, at, equal) in cases {
            match compare(region, staged, (true, true), 100).unwrap_err() {
                KeyOrderError::NotAbove { side, row, is_equal } => {
                    assert_eq!((side, row, is_equal), (expected, at, equal), "{staged:?}");
                }
                other => panic!("{other}"),
            }
        }
    }
}
