//! Collects the changed rows of a chunk (pure).

use std::ops::Range;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use tidewater_common::rows::rows_within;

use super::{ChangeChunk, ChangeCounts};
use crate::EngineError;
use crate::read::shape::TableShape;

/// Rows of the chunk that follows.
#[derive(Debug, Default)]
pub(super) struct ChunkBuilder {
    puts: Vec<RecordBatch>,
    deletes: Vec<RecordBatch>,
    /// Bytes of the changed rows.
    bytes: usize,
    pub(super) counts: ChangeCounts,
    /// True if the next changed row does not fit.
    is_full: bool,
}

impl ChunkBuilder {
    /// Number of compared keys.
    pub(super) fn compared(&self) -> usize {
        usize::try_from(self.counts.compared()).unwrap_or(usize::MAX)
    }

    /// Returns whether the next changed row did not fit.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Returns how many of these rows fit into `most` bytes, and charges them. The first row of a chunk always fits.
    pub(super) fn fit(&mut self, rows: &RecordBatch, range: Range<usize>, most: usize) -> usize {
        let size = |range| tidewater_common::rows::bytes_of(rows.columns(), range);
        let room = most.saturating_sub(self.bytes);
        let mut count = rows_within(rows.columns(), range.clone(), room);
        let mut bytes = size(range.start..range.start + count);
        if bytes > room && self.bytes > 0 {
            count = 0;
            bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.is_full |= count < range.len();
        count
    }

    pub(super) fn add_puts(
        &mut self,
        rows: &RecordBatch,
        ranges: &[Range<usize>],
    ) -> Result<(), EngineError> {
        self.puts.extend(pick(rows, ranges)?);
        Ok(())
    }

    pub(super) fn add_deletes(
        &mut self,
        keys: &RecordBatch,
        ranges: &[Range<usize>],
    ) -> Result<(), EngineError> {
        self.deletes.extend(pick(keys, ranges)?);
        Ok(())
    }

    /// Returns the chunk and begins the next one.
    pub(super) fn finish(
        &mut self,
        shape: &TableShape,
        reached: Vec<u8>,
        is_last: bool,
    ) -> Result<ChangeChunk, EngineError> {
        let Self { puts, deletes, counts, .. } = std::mem::take(self);
        Ok(ChangeChunk {
            puts: joined(shape.schema.arrow(), puts)?,
            deletes: joined(shape.schema.key_arrow(), deletes)?,
            reached,
            is_last,
            counts,
        })
    }
}

/// Returns some rows, in ascending ranges; `None` without any. Copies them unless they are most of the batch: a chunk
/// would otherwise hold all batches that have a changed row.
fn pick(rows: &RecordBatch, ranges: &[Range<usize>]) -> Result<Option<RecordBatch>, EngineError> {
    match ranges {
        [] => return Ok(None),
        [range] if range.len() * 2 >= rows.num_rows() => {
            return Ok(Some(rows.slice(range.start, range.len())));
        }
        _ => {}
    }
    let index = |row: usize| {
        u32::try_from(row).map_err(|_| EngineError::Internal {
            detail: format!("a batch of {} rows is too large", rows.num_rows()),
        })
    };
    let indices = ranges.iter().cloned().flatten().map(index).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(take_record_batch(rows, &UInt32Array::from(indices))?))
}

fn joined(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<RecordBatch, EngineError> {
    match <[RecordBatch; 1]>::try_from(batches) {
        Ok([batch]) => Ok(batch),
        Err(batches) => Ok(concat_batches(&schema, &batches)?),
    }
}
