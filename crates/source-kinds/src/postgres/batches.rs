//! Batches of the table's columns from rows of the query (pure).

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use tidewater_common::quote::{cut, quoted};
use tidewater_common::schema::TableSchema;

use super::columns::ColumnSource;
use super::copy_format::{CopyError, Row};
use super::values::ValueError;
use crate::SourceError;

/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;
/// Bytes of the rows of a batch, as the server sends them; the last row may exceed it.
const BATCH_BYTES: usize = 4 << 20;

/// Reason why rows cannot become a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RowError {
    /// The sent rows are damaged.
    #[error("the server sent damaged rows: {0}")]
    Damaged(String),
    /// A value does not fit the table.
    #[error("{0}")]
    Mismatch(String),
}

impl From<CopyError> for RowError {
    fn from(error: CopyError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<RowError> for SourceError {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Damaged(_) => Self::Unreadable(error.to_string()),
            RowError::Mismatch(text) => Self::Mismatch(text),
        }
    }
}

/// Builder of batches.
pub(super) struct BatchBuilder {
    table: Arc<TableSchema>,
    sources: Vec<ColumnSource>,
    /// Rows and bytes of the current batch.
    rows: usize,
    bytes: usize,
    /// Rows of earlier batches.
    finished_rows: u64,
}

impl BatchBuilder {
    /// Creates the builder. `sources` has the source of each column of the table.
    pub(super) fn new(table: Arc<TableSchema>, sources: Vec<ColumnSource>) -> Self {
        Self { table, sources, rows: 0, bytes: 0, finished_rows: 0 }
    }

    /// Appends a row.
    ///
    /// # Errors
    /// [`RowError`] names the column and the row. The builder must not be used afterwards.
    pub(super) fn append(&mut self, row: Row<'_>) -> Result<(), RowError> {
        for (position, source) in self.sources.iter_mut().enumerate() {
            let ColumnSource::Field { index, builder } = source else { continue };
            let result = match row.field(*index) {
                Some(field) => builder.append(field),
                None if self.table.columns()[position].nullable => {
                    builder.append_null();
                    Ok(())
                }
                None => return Err(self.null_error(position)),
            };
            if let Err(error) = result {
                return Err(self.value_error(position, &error));
            }
        }
        self.rows += 1;
        self.bytes += row.size();
        Ok(())
    }

    /// Returns whether the batch should be finished.
    pub(super) fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// Returns the batch of the appended rows, and begins the next; `None` without rows.
    ///
    /// # Errors
    /// [`RowError::Damaged`] if the columns are not those of the table: an error of this program.
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>, RowError> {
        if self.rows == 0 {
            return Ok(None);
        }
        // The next batch probably has as many rows.
        let rows = self.rows;
        let columns: Vec<ArrayRef> = self
            .sources
            .iter_mut()
            .zip(self.table.columns())
            .map(|(source, column)| match source {
                ColumnSource::Field { builder, .. } => builder.finish(rows),
                ColumnSource::Null => new_null_array(&column.data_type.arrow(), rows),
            })
            .collect();
        self.finished_rows += rows as u64;
        self.rows = 0;
        self.bytes = 0;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.table.arrow(), columns, &options)
            .map(Some)
            .map_err(|error| RowError::Damaged(error.to_string()))
    }

    /// Number of the current row, from 1.
    fn row_number(&self) -> u64 {
        self.finished_rows + self.rows as u64 + 1
    }

    fn null_error(&self, position: usize) -> RowError {
        RowError::Mismatch(format!(
            "the column {} is null in row {} of the query, but the table's column is not null: \
             exclude such rows, or use coalesce in the query",
            quoted(&self.table.columns()[position].name),
            self.row_number()
        ))
    }

    fn value_error(&self, position: usize, error: &ValueError) -> RowError {
        let column = &self.table.columns()[position];
        let name = quoted(&column.name);
        let row = self.row_number();
        match error {
            ValueError::Damaged(problem) => {
                RowError::Damaged(format!("{problem} in the column {name} of row {row}"))
            }
            ValueError::DoesNotFit(value) => RowError::Mismatch(format!(
                "the column {name} has the value {} in row {row} of the query, which does not fit \
                 the table's type {}: cast or exclude it in the query",
                cut(value),
                column.data_type
            )),
            ValueError::NotUtf8 => RowError::Mismatch(format!(
                "the column {name} has a text in row {row} of the query that is not valid UTF-8: \
                 convert it in the query with convert_from(convert_to(..), 'ENCODING')"
            )),
        }
    }
}

#[cfg(test)]
mod tests;
