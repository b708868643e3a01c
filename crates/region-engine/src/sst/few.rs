//! Reader of a few rows of a file, for point reads.
//!
//! Decoding them is faster than passing them to another thread. A *block* is the unit of a
//! read: the rows of one entry of the key index, which one page holds for most columns. If the
//! bytes of a block are already in the cache, this is not its first read: then all its values are
//! decoded and cached, and the next read takes its rows from there. A block that is read once
//! leaves only its bytes in the cache.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::errors::ParquetError;
use uuid::Uuid;

use super::decode::{decode, spawn_read, task_failed};
use super::fetch::{CheckedReader, FileParts};
use super::footer::Footer;
use super::format::PAGE_ROWS;
use super::plan::{GroupRows, RowPlan, group_rows};
use super::row_parts::{byte_ranges, row_bytes, split_rows};
use crate::EngineError;
use crate::cache::values::MAX_VALUES_BYTES;
use crate::read::BATCH_BYTES;

/// Reader of the rows of a small plan.
pub(crate) struct FewRowsReader {
    reader: CheckedReader,
    leaves: Vec<usize>,
    schema: SchemaRef,
    /// Remaining rows, an entry for each block.
    blocks: VecDeque<GroupRows>,
}

/// Returns whether the rows of a plan are few, and few bytes: at most `most_bytes`.
pub(crate) fn is_small(footer: &Footer, leaves: &[usize], plan: &RowPlan, most_bytes: u64) -> bool {
    let bytes = |rows: &GroupRows| {
        row_bytes(footer, rows.group, leaves).decoded.saturating_mul(rows.count() as u64)
    };
    plan.rows() <= 2 * PAGE_ROWS
        && plan.0.iter().map(bytes).fold(0, u64::saturating_add)
            <= most_bytes.min(BATCH_BYTES as u64)
}

impl FewRowsReader {
    /// Creates a reader of the rows of `plan` of these leaves of a file, in order.
    pub(crate) fn new(reader: CheckedReader, leaves: Vec<usize>, plan: &RowPlan) -> Self {
        let fields = reader.footer.metadata.schema().fields();
        // All columns of a table are flat, so leaves are fields.
        let fields: Vec<_> = leaves.iter().filter_map(|leaf| fields.get(*leaf).cloned()).collect();
        let blocks = plan.0.iter().flat_map(|rows| split_rows(rows, PAGE_ROWS)).collect();
        Self { reader, leaves, schema: Arc::new(Schema::new(fields)), blocks }
    }

    /// Returns the next rows; `None` at the end.
    ///
    /// # Errors
    /// [`EngineError::Damaged`], and errors of the store.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        let Some(rows) = self.blocks.pop_front() else { return Ok(None) };
        let block = IndexBlock::of(&self.reader.footer, &rows);
        let cached = self.reader.cache.values(self.file(), block.id, &self.leaves);
        let mut columns: Vec<Option<ArrayRef>> = Vec::with_capacity(cached.len());
        for values in cached {
            columns.push(values.map(|values| block.pick(&values, &rows)).transpose()?);
        }
        if columns.contains(&None) {
            let missing = self.leaves.iter().zip(&columns);
            let missing = missing.filter(|(_, found)| found.is_none()).map(|(leaf, _)| *leaf);
            let mut read = self.read(&block, &rows, missing.collect()).await?.into_iter();
            for column in columns.iter_mut().filter(|column| column.is_none()) {
                *column = read.next();
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.count()));
        let columns = columns.into_iter().flatten().collect();
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
        batch.map(Some).map_err(|error| self.reader.undecodable(&error.into()))
    }

    fn file(&self) -> Uuid {
        self.reader.file.file_id.0
    }

    /// Reads some columns of the rows, in order.
    async fn read(
        &self,
        block: &IndexBlock,
        rows: &GroupRows,
        leaves: Vec<usize>,
    ) -> Result<Vec<ArrayRef>, EngineError> {
        let footer = &self.reader.footer;
        let narrow = |leaf: &usize| {
            let most = MAX_VALUES_BYTES / PAGE_ROWS;
            row_bytes(footer, rows.group, &[*leaf]).decoded <= most as u64
        };
        let (narrow, wide): (Vec<usize>, Vec<usize>) = leaves.iter().partition(|leaf| narrow(leaf));
        let mut ranges = byte_ranges(footer, &block.rows, &narrow);
        ranges.extend(byte_ranges(footer, rows, &wide));
        let parts =
            spawn_read(&self.reader, ranges).await.map_err(|error| task_failed(&error))??;
        let mut columns = Vec::with_capacity(leaves.len());
        if parts.cached && self.reader.keep {
            let whole = self.decode(&parts, &block.rows, &narrow)?;
            for (leaf, values) in narrow.iter().zip(whole) {
                columns.push((*leaf, block.pick(&values, rows)?));
                self.reader.cache.keep_values(self.file(), block.id, *leaf, values);
            }
        } else {
            columns.extend(narrow.iter().copied().zip(self.decode(&parts, rows, &narrow)?));
        }
        columns.extend(wide.iter().copied().zip(self.decode(&parts, rows, &wide)?));
        columns.sort_unstable_by_key(|(leaf, _)| *leaf);
        Ok(columns.into_iter().map(|(_, values)| values).collect())
    }

    fn decode(
        &self,
        parts: &FileParts,
        rows: &GroupRows,
        leaves: &[usize],
    ) -> Result<Vec<ArrayRef>, EngineError> {
        if leaves.is_empty() {
            return Ok(Vec::new());
        }
        let schema = self.reader.footer.metadata.parquet_schema();
        let mask = ProjectionMask::leaves(schema, leaves.iter().copied());
        let decoded = decode(&self.reader, mask, parts.clone(), rows.clone())?;
        let whole = match decoded.as_slice() {
            [batch] => batch.clone(),
            several => {
                let schema =
                    several.first().map_or_else(|| self.schema.clone(), RecordBatch::schema);
                concat_batches(&schema, several)?
            }
        };
        if (whole.num_rows(), whole.num_columns()) != (rows.count(), leaves.len()) {
            let error = ParquetError::General("rows or columns are missing".to_owned());
            return Err(self.reader.undecodable(&error));
        }
        Ok(whole.columns().to_vec())
    }
}

/// The rows of one entry of the key index.
struct IndexBlock {
    /// Row group, and number within it.
    id: (usize, usize),
    rows: GroupRows,
    start: usize,
}

impl IndexBlock {
    /// Returns the block that contains these rows.
    fn of(footer: &Footer, rows: &GroupRows) -> Self {
        let number = rows.rows.first().map_or(0, |range| range.start / PAGE_ROWS);
        let start = number * PAGE_ROWS;
        let end = (start + PAGE_ROWS).min(group_rows(footer, rows.group));
        let whole = GroupRows { group: rows.group, rows: std::iter::once(start..end).collect() };
        Self { id: (rows.group, number), rows: whole, start }
    }

    /// Picks the values of some rows from all values of the block. The result is a copy, which does
    /// not keep the other values in memory.
    fn pick(&self, values: &ArrayRef, rows: &GroupRows) -> Result<ArrayRef, EngineError> {
        if *rows == self.rows {
            return Ok(values.clone());
        }
        let rows = rows.rows.iter().cloned().flatten();
        let indices: UInt64Array = rows.map(|row| (row - self.start) as u64).collect();
        Ok(take(values, &indices, None)?)
    }
}
