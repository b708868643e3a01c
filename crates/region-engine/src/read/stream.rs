//! A scan as a stream: filtered, limited, with small batches put together and large ones cut. Small
//! and large are meant in rows and in bytes.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use tidewater_common::rows::{bytes_of, first_part};

use super::BATCH_BYTES;
use super::filter::Filter;
use super::scan::{Scan, to_batch};
use super::{RowStream, ScanOptions};
use crate::EngineError;

/// Batches of `schema`, which holds the first columns that the scan carries.
pub(crate) fn stream(
    scan: Scan,
    filter: Filter,
    schema: SchemaRef,
    options: &ScanOptions,
) -> RowStream {
    let state = Streaming {
        scan,
        filter,
        batch_rows: options.batch_rows.max(1),
        left: options.limit.unwrap_or(u64::MAX),
        gathered: Gathered { schema: schema.clone(), batches: Vec::new(), rows: 0, bytes: 0 },
        uncut: None,
        ended: false,
        schema,
    };
    Box::pin(futures::stream::try_unfold(state, |mut state| async move {
        Ok(state.next().await?.map(|batch| (batch, state)))
    }))
}

struct Streaming {
    scan: Scan,
    filter: Filter,
    schema: SchemaRef,
    batch_rows: usize,
    /// Rows that may still be yielded.
    left: u64,
    gathered: Gathered,
    /// What is left of a batch that was too large.
    uncut: Option<RecordBatch>,
    ended: bool,
}

/// Small batches that wait for each other.
struct Gathered {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl Streaming {
    async fn next(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        loop {
            if let Some(batch) = self.uncut.take() {
                return Ok(Some(self.cut(batch)));
            }
            if self.ended {
                return self.gathered.take();
            }
            let part = self.next_part().await?;
            let Some(part) = part else {
                self.ended = true;
                continue;
            };
            // From half a batch on, putting together costs more than it saves.
            let bytes = bytes_of(part.columns(), 0..part.num_rows());
            let large =
                part.num_rows() >= self.batch_rows.div_ceil(2) || bytes >= BATCH_BYTES.div_ceil(2);
            let full = self.gathered.rows + part.num_rows() > self.batch_rows
                || self.gathered.bytes + bytes > BATCH_BYTES;
            let ready = if large || full { self.gathered.take()? } else { None };
            if large {
                self.uncut = Some(part);
            } else {
                self.gathered.push(part, bytes);
            }
            if ready.is_some() {
                return Ok(ready);
            }
        }
    }

    fn cut(&mut self, batch: RecordBatch) -> RecordBatch {
        let most = 0..batch.num_rows().min(self.batch_rows);
        let rows = first_part(batch.columns(), most, BATCH_BYTES);
        let rest = batch.num_rows() - rows;
        if rest == 0 {
            return batch;
        }
        self.uncut = Some(batch.slice(rows, rest));
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

impl Gathered {
    fn push(&mut self, batch: RecordBatch, bytes: usize) {
        self.rows += batch.num_rows();
        self.bytes += bytes;
        self.batches.push(batch);
    }

    fn take(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        (self.rows, self.bytes) = (0, 0);
        let batches = std::mem::take(&mut self.batches);
        match batches.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(only.clone())),
            several if self.schema.fields().is_empty() => {
                // Rows without columns: there is nothing to put together but their number.
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
