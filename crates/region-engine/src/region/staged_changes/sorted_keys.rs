//! Keys of sorted rows. They are encoded for comparison by order where that is needed: usually, nearly all rows have
//! an equal partner, which their columns show.

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::row::Rows;
use tidewater_common::keys::{KeyCodec, KeyError};

use super::column_values::ColumnValues;
use crate::EngineError;

/// Keys that are encoded at first; twice as many in each step after the same place.
const FIRST_ENCODED: usize = 16;
const MOST_ENCODED: usize = 8_192;
/// Most rows whose columns are compared at once.
const MOST_ROWS: usize = 256;

/// Keys of the rows of a batch.
#[derive(Debug)]
pub(super) struct SortedKeys {
    codec: KeyCodec,
    /// The key columns, in key order.
    columns: RecordBatch,
    values: Vec<ColumnValues>,
    /// Comparable key of the row before the first one.
    before: Option<Vec<u8>>,
    /// Comparable keys of the rows from a position on.
    encoded: Option<(usize, Rows)>,
    /// Number of keys to encode next.
    step: usize,
}

impl SortedKeys {
    /// Creates the keys of the rows after the key `before`.
    ///
    /// # Errors
    /// [`EngineError::Internal`] for a type that no column of a table has.
    pub(super) fn new(
        codec: &KeyCodec,
        columns: RecordBatch,
        before: Option<Vec<u8>>,
    ) -> Result<Self, EngineError> {
        let values = columns.columns().iter().map(ColumnValues::new).collect::<Result<_, _>>()?;
        let codec = codec.clone();
        Ok(Self { codec, columns, values, before, encoded: None, step: FIRST_ENCODED })
    }

    /// Returns the key columns.
    pub(super) fn columns(&self) -> &RecordBatch {
        &self.columns
    }

    /// Returns the comparable key of a row.
    ///
    /// # Errors
    /// [`KeyError`] for a null.
    pub(super) fn key(&mut self, row: usize) -> Result<&[u8], KeyError> {
        let (start, keys) = self.encode(row..row + 1)?;
        Ok(keys.row(row - start).data())
    }

    /// Returns the comparable key of the last row, or that before the first one if there are no rows.
    ///
    /// # Errors
    /// [`KeyError`] for a null.
    pub(super) fn last(mut self) -> Result<Option<Vec<u8>>, KeyError> {
        match self.columns.num_rows().checked_sub(1) {
            Some(last) => Ok(Some(self.key(last)?.to_vec())),
            None => Ok(self.before),
        }
    }

    /// Compares the key before a row with the row's.
    ///
    /// # Errors
    /// [`KeyError`] for a null.
    pub(super) fn order_at(&mut self, row: usize) -> Result<Ordering, KeyError> {
        if let Some(previous) = row.checked_sub(1) {
            let (start, keys) = self.encode(previous..row + 1)?;
            return Ok(keys.row(previous - start).cmp(&keys.row(row - start)));
        }
        let Some(before) = self.before.clone() else { return Ok(Ordering::Less) };
        Ok(before.as_slice().cmp(self.key(row)?))
    }

    /// Returns the number of rows from `start` on, at most `most`, whose keys equal those of `other` from `other_start`
    /// on.
    pub(super) fn count_equal(
        &self,
        start: usize,
        other: &Self,
        other_start: usize,
        most: usize,
    ) -> usize {
        let mut count = 0;
        let mut step = 1;
        while count < most {
            let rows = step.min(most - count);
            let mut differs = [false; MOST_ROWS];
            let differs = &mut differs[..rows];
            for (own, other) in self.values.iter().zip(&other.values) {
                own.mark_differences(start + count, other, other_start + count, differs);
            }
            if let Some(equal) = differs.iter().position(|differs| *differs) {
                return count + equal;
            }
            count += rows;
            step = (2 * step).min(MOST_ROWS);
        }
        count
    }

    /// Returns encoded keys that include these rows, and the row of the first of them.
    fn encode(&mut self, rows: Range<usize>) -> Result<(usize, &Rows), KeyError> {
        let encoded = self.encoded.take();
        let (start, keys) = match encoded {
            Some((start, keys)) if start <= rows.start && rows.end <= start + keys.num_rows() => {
                (start, keys)
            }
            encoded => {
                let follows = encoded.is_some_and(|(start, keys)| {
                    (start..=start + keys.num_rows()).contains(&rows.start)
                });
                self.step = if follows { MOST_ENCODED.min(2 * self.step) } else { FIRST_ENCODED };
                let left = self.columns.num_rows().saturating_sub(rows.start);
                let part = self.columns.slice(rows.start, self.step.max(rows.len()).min(left));
                (rows.start, self.codec.comparable(part.columns())?)
            }
        };
        let (start, keys) = self.encoded.insert((start, keys));
        Ok((*start, keys))
    }
}
