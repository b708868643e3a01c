//! One side of a comparison: its rows at hand, which follow each other in key order (pure).

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::RecordBatch;
use tidewater_common::rows::bytes_of;

use super::ChangeError;
use super::column_values::ColumnValues;
use super::key_runs::KeySlice;
use super::key_text::key_text;
use super::sorted_keys::SortedKeys;
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
    keys: SortedKeys,
    /// Values of the other columns, in the order of the schema.
    pub(super) values: Vec<ColumnValues>,
    /// Average bytes of a row; at least 1.
    pub(super) row_bytes: usize,
}

/// Rows of one side that are not compared yet.
#[derive(Debug)]
pub(super) struct Side {
    name: SideName,
    batch: Option<SortedRows>,
    position: usize,
    is_ended: bool,
}

impl Side {
    pub(super) fn new(name: SideName) -> Self {
        Self { name, batch: None, position: 0, is_ended: false }
    }

    /// Adds the next rows, all before them having been taken; `None` at the end.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] for a null in a key.
    pub(super) fn feed(
        &mut self,
        shape: &TableShape,
        rows: Option<&RecordBatch>,
    ) -> Result<(), EngineError> {
        let last_key = match self.batch.take() {
            Some(batch) => batch.keys.last()?,
            None => None,
        };
        self.position = 0;
        match rows {
            None => self.is_ended = true,
            Some(rows) => self.batch = Some(SortedRows::new(shape, rows, last_key)?),
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

    /// Returns the keys of the rows at hand.
    pub(super) fn slice(&mut self) -> KeySlice<'_> {
        let rows = self.rows();
        let keys = self.batch.as_mut().map(|batch| &mut batch.keys);
        KeySlice { side: self.name, keys, rows, is_last: self.is_ended }
    }

    /// Checks that the first row at hand, if there is one, is above the row before it.
    ///
    /// # Errors
    /// As [`Self::order_error`].
    pub(super) fn check_first(&mut self) -> Result<(), ChangeError> {
        let rows = self.rows();
        let order = match self.batch.as_mut().filter(|_| !rows.is_empty()) {
            Some(batch) => batch.keys.order_at(rows.start).map_err(EngineError::from)?,
            None => Ordering::Less,
        };
        match order {
            Ordering::Less => Ok(()),
            order => Err(self.order_error(rows.start, order == Ordering::Equal)),
        }
    }

    /// Returns the error for a row that is not above the row before it.
    pub(super) fn order_error(&self, row: usize, is_equal: bool) -> ChangeError {
        let key = self.batch.as_ref().map(|batch| key_text(batch.keys.columns(), row));
        let key = match key {
            Some(Ok(key)) => key,
            Some(Err(error)) => return error.into(),
            None => String::new(),
        };
        if is_equal && self.name == SideName::Staged {
            return ChangeError::DuplicateKey { key };
        }
        let detail = format!("the row {key} of side {:?} is out of order", self.name);
        EngineError::Internal { detail }.into()
    }

    /// Removes the rows before a position.
    pub(super) fn advance_to(&mut self, position: usize) {
        self.position = position;
    }
}

impl SortedRows {
    fn new(
        shape: &TableShape,
        rows: &RecordBatch,
        key_before: Option<Vec<u8>>,
    ) -> Result<Self, EngineError> {
        let schema = &shape.schema;
        let rows = RecordBatch::try_new(schema.arrow(), rows.columns().to_vec())?;
        let keys = RecordBatch::try_new(schema.key_arrow(), shape.codec.key_columns(&rows))?;
        let keys = SortedKeys::new(&shape.codec, keys, key_before)?;
        let columns = rows.columns().iter().enumerate();
        let values = columns
            .filter(|(index, _)| !schema.key_indices().contains(index))
            .map(|(_, column)| ColumnValues::new(column))
            .collect::<Result<Vec<_>, _>>()?;
        let count = rows.num_rows();
        let row_bytes = bytes_of(rows.columns(), 0..count).div_ceil(count.max(1)).max(1);
        Ok(Self { rows, keys, values, row_bytes })
    }

    /// Returns the key columns, in key order.
    pub(super) fn key_columns(&self) -> &RecordBatch {
        self.keys.columns()
    }

    /// Returns the stored key of a row.
    pub(super) fn row_key(&self, shape: &TableShape, row: usize) -> Result<Vec<u8>, EngineError> {
        Ok(shape.codec.row_key(self.key_columns().columns(), row)?)
    }
}
