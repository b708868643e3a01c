//! Rows of a split, collected, sorted by row key, and cut along the regions of their table (pure).

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use tidewater_common::keys::{KeyCodec, KeyError};
use tidewater_common::quote::quoted;
use tidewater_common::rows::oversized_rows;
use tidewater_proto::v1::RowOp;
use tidewater_source_kinds::SourceError;

use super::load::LoadedTable;

/// Bytes of rows that are sorted at a time. More give fewer and larger files per region.
pub(super) const SORTED_BYTES: usize = 64 << 20;

/// Rows that are not yet written.
#[derive(Debug, Default)]
pub(super) struct CollectedRows {
    batches: Vec<RecordBatch>,
    bytes: usize,
}

impl CollectedRows {
    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds rows. Returns true if they are enough to be written.
    ///
    /// # Errors
    /// [`SourceError::Mismatch`] if they do not fit the table.
    pub(super) fn push(
        &mut self,
        table: &LoadedTable,
        batch: RecordBatch,
    ) -> Result<bool, SourceError> {
        check(table, &batch)?;
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
        Ok(self.bytes >= SORTED_BYTES)
    }

    /// Takes the rows, sorted: those of each region that has some, by its position in the table.
    ///
    /// # Errors
    /// [`SourceError::Mismatch`]: two rows have the same key.
    pub(super) fn take(
        &mut self,
        table: &LoadedTable,
    ) -> Result<Vec<(usize, RecordBatch)>, SourceError> {
        let batches = std::mem::take(&mut self.batches);
        self.bytes = 0;
        let Some(first) = batches.first() else { return Ok(Vec::new()) };
        let rows = concat_batches(&first.schema(), &batches)
            .map_err(|error| SourceError::Mismatch(error.to_string()))?;
        if rows.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let codec = table.codec();
        let sorted = codec.sorted(&rows).map_err(|error| key_error(&error))?;
        check_unique(table, &sorted)?;
        let mut parts = Vec::new();
        let mut from = 0;
        for (position, end) in table.region_ends() {
            let to = match end {
                None => sorted.num_rows(),
                Some(end) => {
                    from + rows_before(codec, &sorted.slice(from, sorted.num_rows() - from), end)?
                }
            };
            if to > from {
                parts.push((position, sorted.slice(from, to - from)));
            }
            from = to;
        }
        Ok(parts)
    }
}

/// Checks rows that any source may send.
fn check(table: &LoadedTable, batch: &RecordBatch) -> Result<(), SourceError> {
    let mismatch = |text: String| Err(SourceError::Mismatch(text));
    let schema = table.schema().arrow();
    let same = schema.fields().len() == batch.num_columns()
        && schema
            .fields()
            .iter()
            .zip(batch.columns())
            .all(|(field, column)| field.data_type() == column.data_type());
    if !same {
        return mismatch(
            "the source sent rows with other columns than those of the table".to_owned(),
        );
    }
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if !field.is_nullable() && column.null_count() > 0 {
            let name = quoted(field.name());
            return mismatch(format!("column {name} has a null, and is not nullable in the table"));
        }
    }
    let oversized = oversized_rows(table.codec(), batch).map_err(|error| key_error(&error))?;
    match oversized.first() {
        Some((_, problem)) => mismatch(problem.to_string()),
        None => Ok(()),
    }
}

fn check_unique(table: &LoadedTable, sorted: &RecordBatch) -> Result<(), SourceError> {
    let keys = table.key_columns(RowOp::Put, sorted);
    let comparable = table.codec().comparable(&keys).map_err(|error| key_error(&error))?;
    let repeated =
        (1..sorted.num_rows()).find(|row| comparable.row(*row) == comparable.row(*row - 1));
    repeated.map_or(Ok(()), |row| Err(SourceError::Mismatch(table.repeated_key(sorted, row))))
}

/// Returns the number of rows whose keys are below `end`.
fn rows_before(codec: &KeyCodec, sorted: &RecordBatch, end: &[u8]) -> Result<usize, SourceError> {
    let keys = codec.key_columns(sorted);
    let (mut low, mut high) = (0, sorted.num_rows());
    while low < high {
        let middle = low + (high - low) / 2;
        let key = codec.row_key(&keys, middle).map_err(|error| key_error(&error))?;
        if key.as_slice() < end {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

fn key_error(error: &KeyError) -> SourceError {
    SourceError::Mismatch(error.to_string())
}
