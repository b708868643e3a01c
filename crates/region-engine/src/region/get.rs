//! Point reads of a region.
//!
//! A point read is charged before it begins, and waits for its memory while it holds none. Rows that need
//! more than estimated are charged without a wait: point reads do not deadlock.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use futures::TryStreamExt;
use tidewater_common::ids::ColumnId;
use tidewater_common::rows::bytes_of;

use super::Region;
use super::read::source_options;
use crate::EngineError;
use crate::file_meta::FileMeta;
use crate::read::context::{EpochBounds, ReadContext};
use crate::read::memory::{ByteLease, Excess, ExtraMemory, NestedBudgets};
use crate::read::need::SourceRow;
use crate::read::projection::{carried_columns, projected_schema};
use crate::read::ranges::KeyRanges;
use crate::read::shape::{Carried, TableShape, estimated_width};
use crate::read::stream::stream;
use crate::read::{AsOf, RowStream, ScanMeter, ScanOptions};
use crate::sst::format::PAGE_ROWS;
use crate::sst::pace::Pace;
use crate::sst::source::memory::estimated_row;

/// Maximum number of keys in one point read.
pub const MAX_GET_KEYS: usize = 1_000;
/// Longest wait of a point read for its memory.
const WAIT: Duration = Duration::from_secs(2);
/// Bytes of every point read: keys, and rows of the memtable.
const LEAST_BYTES: u64 = 16 << 10;
/// Bytes of rows that the estimate covers.
const FREE_BYTES: usize = 64 << 10;

/// Options of a point read, as in [`ScanOptions`].
#[derive(Debug, Clone, Default)]
pub struct PointReadOptions {
    /// Epoch of the read; `None`: the newest rows.
    pub as_of: Option<AsOf>,
    /// Version of the schema that names and orders the columns; `None`: the current one.
    pub shape: Option<Arc<TableShape>>,
}

/// Rows of a point read, and their memory.
#[derive(Debug)]
pub struct PointRows {
    /// Rows in key order.
    pub rows: RecordBatch,
    _lease: ByteLease,
    _more: Vec<ExtraMemory>,
}

impl Region {
    /// Returns the existing rows with these keys, in key order. `keys`: the key columns in key order, at
    /// most [`MAX_GET_KEYS`] rows in any order.
    ///
    /// # Errors
    /// As [`Region::scan`], and errors of reading; [`EngineError::ScanMemory`] when other point reads hold
    /// the memory of the node.
    pub async fn get(
        &self,
        keys: &RecordBatch,
        projection: &[ColumnId],
    ) -> Result<RecordBatch, EngineError> {
        self.get_metered(keys, projection, &ScanMeter::default()).await
    }

    /// Like [`Region::get`], and counts in `meter` how much is read and how much is pruned.
    ///
    /// # Errors
    /// As [`Region::get`].
    pub async fn get_metered(
        &self,
        keys: &RecordBatch,
        projection: &[ColumnId],
        meter: &ScanMeter,
    ) -> Result<RecordBatch, EngineError> {
        Ok(self.get_charged(keys, projection, PointReadOptions::default(), meter).await?.rows)
    }

    /// Like [`Region::get_metered`]; the memory of the rows is charged until they are dropped.
    ///
    /// # Errors
    /// As [`Region::get`].
    pub async fn get_charged(
        &self,
        keys: &RecordBatch,
        projection: &[ColumnId],
        options: PointReadOptions,
        meter: &ScanMeter,
    ) -> Result<PointRows, EngineError> {
        if keys.num_rows() > MAX_GET_KEYS {
            return Err(EngineError::BadRows {
                detail: format!(
                    "a point read of {} keys exceeds the maximum of {MAX_GET_KEYS}",
                    keys.num_rows()
                ),
            });
        }
        let PointReadOptions { as_of, shape } = options;
        let pinned = self.pin(as_of, shape)?;
        let schema = projected_schema(&pinned.shape, projection)?;
        let filter = self.filter(&pinned, &[])?;
        let carried = carried_columns(&pinned.shape, projection, &filter)?;
        let row_keys = pinned.shape.codec.row_keys(keys.columns())?;
        let ranges = KeyRanges::points(row_keys, &self.spec.range);
        let epochs = EpochBounds::as_of(as_of.map(|as_of| as_of.epoch));
        let context = ReadContext { epochs, counters: meter.0.clone(), ..ReadContext::default() };
        let mut files = Vec::new();
        for file in &pinned.version.files {
            let shown = self.by_index(&context, file, ranges.within(&file.clip)).await;
            files.push((file.clone(), shown));
        }
        let needed: u64 = files
            .iter()
            .map(|(file, ranges)| file_bytes(&pinned.shape, &carried, file, ranges))
            .fold(LEAST_BYTES, u64::saturating_add);
        let budgets = NestedBudgets::new([self.env.scan_memory.point_reads().clone()]);
        // A read that needs more has all of the budget.
        let needed = needed.min(budgets.limit());
        let lease = budgets.lease(needed, needed, WAIT).await?;
        let options = ScanOptions::all(projection.to_vec());
        let sources = source_options(&options);
        let scan = self.assemble(pinned, files, &carried, &ranges, sources, &context)?;
        let found = stream(scan, filter, schema.clone(), &options);
        let (batches, more) = collect(found, Excess::new(budgets)).await?;
        let rows = if schema.fields().is_empty() {
            let rows = batches.iter().map(RecordBatch::num_rows).sum();
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            RecordBatch::try_new_with_options(schema, Vec::new(), &options)?
        } else {
            concat_batches(&schema, &batches)?
        };
        Ok(PointRows { rows, _lease: lease, _more: more })
    }

    /// Returns the keys that the file may contain according to its indexes.
    async fn by_index(&self, context: &ReadContext, file: &FileMeta, keys: KeyRanges) -> KeyRanges {
        let mut left = keys;
        for index in &file.indexes {
            if left.clamp(&file.min_key, &file.max_key).is_none() {
                return left;
            }
            let Some(index) = self.env.indexes.load(&self.env.storage, file, index).await else {
                continue;
            };
            left = left.retain(|key| index.may_hold(key));
            if left.clamp(&file.min_key, &file.max_key).is_none() {
                context.counters.files_pruned_by_index.add(1);
            }
        }
        left
    }
}

/// Collects rows; charges each batch that the estimate does not cover, twice: it is copied in the end.
async fn collect(
    mut found: RowStream,
    excess: Excess,
) -> Result<(Vec<RecordBatch>, Vec<ExtraMemory>), EngineError> {
    let mut batches = Vec::new();
    let mut memory = Vec::new();
    let mut free = FREE_BYTES;
    while let Some(batch) = found.try_next().await? {
        let bytes = bytes_of(batch.columns(), 0..batch.num_rows());
        let charged = bytes.saturating_sub(free);
        free = free.saturating_sub(bytes);
        if charged > 0 {
            memory.extend(excess.charge(2 * charged as u64, Duration::ZERO).await?);
        }
        batches.push(batch);
    }
    Ok((batches, memory))
}

/// Returns the estimated bytes that are in memory for the keys of `ranges` in a file.
fn file_bytes(shape: &TableShape, carried: &Carried, file: &FileMeta, ranges: &KeyRanges) -> u64 {
    let keys = ranges.count_between(&file.min_key, &file.max_key);
    let key_width = estimated_width(&shape.schema, shape.schema.primary_key(), 0);
    blocks_bytes(estimated_row(shape, carried, file, true), key_width, keys as u64)
}

/// Returns the bytes of the blocks that are decoded for some keys of a file. For one key, those are the
/// keys of the blocks that may hold it, and then its row; for several keys all columns of their blocks,
/// of which a reader holds a part.
fn blocks_bytes(row: SourceRow, key_width: u64, keys: u64) -> u64 {
    let each = row.held.decoded.saturating_add(row.held.stored);
    let block_rows = |blocks: u64| blocks.saturating_mul(PAGE_ROWS as u64).min(row.rows);
    match keys {
        0 => 0,
        1 => block_rows(2).saturating_mul(key_width).saturating_add(each),
        _ => each.saturating_mul(block_rows(keys)).min(Pace::ALONE.bytes(row.held)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sst::pace::RowBytes;

    #[test]
    fn point_read_is_charged_for_blocks_it_decodes() {
        let page = PAGE_ROWS as u64;
        let held = RowBytes { decoded: 100, stored: 40 };
        let row = |rows| SourceRow { held, width: 80, rows, all_rows: rows };
        let most = Pace::ALONE.bytes(held);
        // Rows of the file, keys, expected bytes.
        for (rows, keys, expected) in [
            (1_000 * page, 0, 0),
            (1_000 * page, 1, 2 * page * 8 + 140),
            (3, 1, 3 * 8 + 140),
            (1_000 * page, 2, 2 * page * 140),
            (3, 2, 3 * 140),
            (1_000 * page, 1_000, most),
        ] {
            assert_eq!(blocks_bytes(row(rows), 8, keys), expected, "{keys} keys of {rows} rows");
        }
    }
}
