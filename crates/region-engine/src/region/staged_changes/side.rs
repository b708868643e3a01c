//! One side of a comparison: its rows at hand, which follow each other in key order (pure).

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::row::Rows;
use tidewater_common::rows::bytes_of;

use super::ChangeError;
use super::column_values::ColumnValues;
use super::key_runs::KeySlice;
use super::key_text::key_text;
use crate::EngineError;
use crate::read::shape::TableShape;

/// Name of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SideName {
    /// The region's rows.
    Region,
    /// The staged rows.
    Staged,
}

/// Rows of one batch, each key once.
#[derive(Debug)]
pub(super) struct SortedRows {
    /// All columns of the schema, in its order.
    pub(super) rows: RecordBatch,
    /// The key columns, in key order.
    pub(super) keys: RecordBatch,
    /// Values of the other columns, in the order of the schema.
    pub(super) values: Vec<ColumnValues>,
    /// Average bytes of a row; at least 1.
    pub(super) row_bytes: usize,
    comparable: Rows,
}

/// Rows of one side that are not compared yet.
#[derive(Debug)]
pub(super) struct Side {
    name: SideName,
    batch: Option<SortedRows>,
    position: usize,
    is_ended: bool,
    /// Comparable key of the last row of the batch before.
    last_key: Option<Vec<u8>>,
}

impl Side {
    pub(super) fn new(name: SideName) -> Self {
        Self { name, batch: None, position: 0, is_ended: false, last_key: None }
    }

    /// Adds the next rows, all before them having been taken; `None` at the end.
    ///
    /// # Errors
    /// [`ChangeError::DuplicateKey`] if the rows of the source have a key twice, [`EngineError::Internal`] for rows out
    /// of order.
    pub(super) fn feed(
        &mut self,
        shape: &TableShape,
        rows: Option<&RecordBatch>,
    ) -> Result<(), ChangeError> {
        if let Some(batch) = self.batch.take() {
            self.last_key = batch.last_key();
        }
        self.position = 0;
        match rows {
            None => self.is_ended = true,
            Some(rows) => {
                let batch = SortedRows::new(shape, rows)?;
                self.check_order(&batch)?;
                self.batch = Some(batch);
            }
        }
        Ok(())
    }

    fn check_order(&self, batch: &SortedRows) -> Result<(), ChangeError> {
        let mut last = self.last_key.as_deref();
        for (row, key) in batch.comparable.iter().enumerate() {
            let order = last.map_or(Ordering::Less, |last| last.cmp(key.data()));
            match (order, self.name) {
                (Ordering::Less, _) => last = Some(key.data()),
                (Ordering::Equal, SideName::Staged) => {
                    return Err(ChangeError::DuplicateKey { key: key_text(&batch.keys, row)? });
                }
                (_, name) => {
                    let key = key_text(&batch.keys, row)?;
                    let detail = format!("row {key} of side {name:?} is out of order");
                    return Err(EngineError::Internal { detail }.into());
                }
            }
        }
        Ok(())
    }

    /// Returns the batch that has the rows at hand.
    pub(super) fn batch(&self) -> Option<&SortedRows> {
        self.batch.as_ref()
    }

    /// Returns the positions of the rows at hand.
    fn rows(&self) -> Range<usize> {
        self.position..self.batch.as_ref().map_or(0, |batch| batch.rows.num_rows())
    }

    /// Returns whether the side must be fed.
    pub(super) fn is_hungry(&self) -> bool {
        !self.is_ended && self.rows().is_empty()
    }

    /// Returns whether no rows are left.
    pub(super) fn is_done(&self) -> bool {
        self.is_ended && self.rows().is_empty()
    }

    pub(super) fn slice(&self) -> KeySlice<'_> {
        KeySlice {
            keys: self.batch.as_ref().map(|batch| &batch.comparable),
            rows: self.rows(),
            is_last: self.is_ended,
        }
    }

    /// Removes the rows before a position.
    pub(super) fn advance_to(&mut self, position: usize) {
        self.position = position;
    }
}

impl SortedRows {
    fn new(shape: &TableShape, rows: &RecordBatch) -> Result<Self, EngineError> {
        let schema = &shape.schema;
        let rows = RecordBatch::try_new(schema.arrow(), rows.columns().to_vec())?;
        let key_columns = shape.codec.key_columns(&rows);
        let comparable = shape.codec.comparable(&key_columns)?;
        let keys = RecordBatch::try_new(schema.key_arrow(), key_columns)?;
        let columns = rows.columns().iter().enumerate();
        let values = columns
            .filter(|(index, _)| !schema.key_indices().contains(index))
            .map(|(_, column)| ColumnValues::new(column))
            .collect::<Result<Vec<_>, _>>()?;
        let count = rows.num_rows();
        let row_bytes = bytes_of(rows.columns(), 0..count).div_ceil(count.max(1)).max(1);
        Ok(Self { rows, keys, values, row_bytes, comparable })
    }

    fn last_key(&self) -> Option<Vec<u8>> {
        let last = self.comparable.num_rows().checked_sub(1)?;
        Some(self.comparable.row(last).data().to_vec())
    }

    /// Returns the stored key of a row.
    pub(super) fn row_key(&self, shape: &TableShape, row: usize) -> Result<Vec<u8>, EngineError> {
        Ok(shape.codec.row_key(self.keys.columns(), row)?)
    }
}
