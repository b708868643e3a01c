//! A scan as a stream: filters and limits rows, combines small batches and splits large ones, by
//! rows and by bytes.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use tidewater_common::rows::{bytes_of, first_part};

use super::BATCH_BYTES;
use super::filter::Filter;
use super::projection::to_batch;
use super::scan::Scan;
use super::{RowStream, ScanOptions};
use crate::EngineError;

/// Returns a stream of batches of `schema`, whose columns are the first that the scan carries.
pub(crate) fn stream(
    scan: Scan,
    filter: Filter,
    schema: SchemaRef,
    options: &ScanOptions,
) -> RowStream {
    let state = ScanStream {
        scan,
        filter,
        batch_rows: options.batch_rows.max(1),
        left: options.limit.unwrap_or(u64::MAX),
        buffer: BatchBuffer { schema: schema.clone(), batches: Vec::new(), rows: 0, bytes: 0 },
        oversized: None,
        ended: false,
        schema,
    };
    Box::pin(futures::stream::try_unfold(state, |mut state| async move {
        Ok(state.next().await?.map(|batch| (batch, state)))
    }))
}

struct ScanStream {
    scan: Scan,
    filter: Filter,
    schema: SchemaRef,
    batch_rows: usize,
    /// Number of rows that may still be yielded.
    left: u64,
    buffer: BatchBuffer,
    /// Rest of a batch that was too large.
    oversized: Option<RecordBatch>,
    ended: bool,
}

/// Small batches that will be combined.
struct BatchBuffer {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl ScanStream {
    async fn next(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        loop {
            if let Some(batch) = self.oversized.take() {
                return Ok(Some(self.split(batch)));
            }
            if self.ended {
                return self.buffer.take();
            }
            let part = self.next_part().await?;
            let Some(part) = part else {
                self.ended = true;
                continue;
            };
            // From half a batch on, combining costs more than it saves.
            let bytes = bytes_of(part.columns(), 0..part.num_rows());
            let large =
                part.num_rows() >= self.batch_rows.div_ceil(2) || bytes >= BATCH_BYTES.div_ceil(2);
            let full = self.buffer.rows + part.num_rows() > self.batch_rows
                || self.buffer.bytes + bytes > BATCH_BYTES;
            let ready = if large || full { self.buffer.take()? } else { None };
            if large {
                self.oversized = Some(part);
            } else {
                self.buffer.push(part, bytes);
            }
            if ready.is_some() {
                return Ok(ready);
            }
        }
    }

    fn split(&mut self, batch: RecordBatch) -> RecordBatch {
        let most = 0..batch.num_rows().min(self.batch_rows);
        let rows = first_part(batch.columns(), most, BATCH_BYTES);
        let rest = batch.num_rows() - rows;
        if rest == 0 {
            return batch;
        }
        self.oversized = Some(batch.slice(rows, rest));
        batch.slice(0, rows)
    }

    async fn next_part(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        while self.left > 0 {
            let Some(rows) = self.scan.next().await? else { return Ok(None) };
            let mut rows = self.filter.apply(rows)?;
            if rows.rows() as u64 > self.left {
                rows = rows.slice(0, usize::try_from(self.left).unwrap_or(usize::MAX));
            }
            self.left -= rows.rows() as u64;
            if rows.rows() > 0 {
                return Ok(Some(to_batch(&rows, &self.schema)?));
            }
        }
        Ok(None)
    }
}

impl BatchBuffer {
    fn push(&mut self, batch: RecordBatch, bytes: usize) {
        self.rows += batch.num_rows();
        self.bytes += bytes;
        self.batches.push(batch);
    }

    fn take(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        self.rows = 0;
        self.bytes = 0;
        let batches = std::mem::take(&mut self.batches);
        match batches.as_slice() {
            [] => Ok(None),
            [batch] => Ok(Some(batch.clone())),
            several if self.schema.fields().is_empty() => {
                // Rows without columns: only their number is combined.
                let rows = several.iter().map(RecordBatch::num_rows).sum();
                let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
                Ok(Some(RecordBatch::try_new_with_options(
                    self.schema.clone(),
                    Vec::new(),
                    &options,
                )?))
            }
            several => Ok(Some(concat_batches(&self.schema, several)?)),
        }
    }
}
