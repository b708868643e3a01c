//! Limits of rows and keys, checked for every row that a file yields: a load that would fail in the
//! middle is refused before its first write.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use tidewater_common::keys::KeyCodec;
use tidewater_common::rows::oversized_rows;

use super::RowSource;
use super::bad_rows::BadRows;
use super::error::{LoadError, RowError, RowFault, RowPosition};

/// Rows of a source that a write may contain; the others are bad rows.
pub(crate) struct LimitedRows<S> {
    source: S,
    file: String,
    codec: KeyCodec,
    /// Positions of the rows of the last batch in the source's batch, if rows were left out.
    kept: Option<Vec<usize>>,
}

impl<S: RowSource> LimitedRows<S> {
    /// `file` is named in errors, `codec` is that of the table.
    pub(crate) fn new(source: S, file: String, codec: KeyCodec) -> Self {
        Self { source, file, codec, kept: None }
    }

    fn filter(&mut self, batch: RecordBatch, bad: &mut BadRows) -> Result<RecordBatch, LoadError> {
        let file = &self.file;
        let oversized = oversized_rows(&self.codec, &batch)
            .map_err(|source| LoadError::Key { file: file.clone(), source })?;
        self.kept = None;
        if oversized.is_empty() {
            return Ok(batch);
        }
        let mut keep = vec![true; batch.num_rows()];
        for (row, problem) in oversized {
            keep[row] = false;
            bad.report(RowError {
                file: file.clone(),
                position: self.source.position(row),
                fault: RowFault::TooLarge(problem),
            })?;
        }
        self.kept = Some((0..keep.len()).filter(|row| keep[*row]).collect());
        filter_record_batch(&batch, &BooleanArray::from(keep))
            .map_err(|source| LoadError::Batch { file: file.clone(), source })
    }
}

impl<S: RowSource> RowSource for LimitedRows<S> {
    fn next_batch(&mut self, bad: &mut BadRows) -> Result<Option<RecordBatch>, LoadError> {
        while let Some(batch) = self.source.next_batch(bad)? {
            let batch = self.filter(batch, bad)?;
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    fn position(&self, row: usize) -> RowPosition {
        let row = self.kept.as_ref().and_then(|kept| kept.get(row)).copied().unwrap_or(row);
        self.source.position(row)
    }
}
