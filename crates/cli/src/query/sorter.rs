//! Rows in the order of sort keys.
//!
//! The sorter keeps all rows in memory, or, with a limit, the first rows of those that it has received:
//! a row that sorts after them is dropped on arrival. Rows with equal keys keep the order of arrival.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, interleave_record_batch};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, Row, RowConverter, Rows, SortField};

use super::sort_key::SortKey;
use super::total_order::comparable;
use crate::text::size::Size;

/// Default limit of the memory of the rows to sort, in bytes.
pub(crate) const SORT_MEMORY: Size = Size(512 << 20);

/// Maximum number of rows that a sorter with a limit keeps beyond the limit and one batch. Fewer rows
/// cost time: all rows up to the limit are copied when it is reached.
const MAX_EXTRA_ROWS: usize = 65_536;

/// Maximum number of rows of a sorted batch.
const BATCH_ROWS: usize = 8_192;

/// Approximate maximum size of a sorted batch in bytes. Arrow limits the texts of one array to 2 GiB.
const BATCH_BYTES: u64 = 64 << 20;

/// Rows that cannot be sorted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SortError {
    #[error(
        "the rows to sort exceed {max} after {rows} rows: ask for fewer rows with --limit or --where, \
         for fewer columns with --columns, or raise --sort-memory"
    )]
    Memory { max: Size, rows: u64 },
    #[error("cannot sort the rows: {0}")]
    Arrow(#[from] ArrowError),
}

/// Rows, and their sort keys in a form that is compared as bytes.
struct Chunk {
    rows: RecordBatch,
    keys: Rows,
}

/// Position of a row: chunk, row in the chunk.
type Position = (u32, u32);

/// Collects rows, and returns them in the order of sort keys.
pub(crate) struct RowSorter {
    converter: RowConverter,
    /// Positions of the key columns in the batches.
    columns: Vec<usize>,
    /// Number of rows to return; `None`: all.
    limit: Option<usize>,
    max: Size,
    chunks: Vec<Chunk>,
    /// Rows in `chunks`.
    rows: usize,
    /// Bytes of `chunks` and of their positions.
    bytes: u64,
    /// Rows received.
    received: u64,
    /// Key of the last of the first `limit` rows; `None` until it is known.
    last: Option<OwnedRow>,
}

impl RowSorter {
    /// Creates a sorter of batches with this schema, which has all columns of the keys.
    pub(crate) fn new(
        schema: &Schema,
        keys: &[SortKey],
        limit: Option<u64>,
        max: Size,
    ) -> Result<Self, SortError> {
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for key in keys {
            let position = schema.index_of(&key.column)?;
            let data_type = schema.field(position).data_type().clone();
            fields.push(SortField::new_with_options(data_type, key.options()));
            columns.push(position);
        }
        Ok(Self {
            converter: RowConverter::new(fields)?,
            columns,
            limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            max,
            chunks: Vec::new(),
            rows: 0,
            bytes: 0,
            received: 0,
            last: None,
        })
    }

    /// Adds the rows of a batch.
    ///
    /// # Errors
    /// [`SortError::Memory`] when the rows exceed the memory limit.
    pub(crate) fn push(&mut self, batch: RecordBatch) -> Result<(), SortError> {
        self.received += batch.num_rows() as u64;
        let mut chunk = self.chunk(batch)?;
        if let Some(last) = &self.last {
            // A row with the key of the last one arrived after it, and sorts after it.
            let before: BooleanArray =
                chunk.keys.iter().map(|key| Some(key < last.row())).collect();
            if before.true_count() == 0 {
                return Ok(());
            }
            chunk = self.chunk(filter_record_batch(&chunk.rows, &before)?)?;
        }
        self.add(chunk)?;
        let Some(limit) = self.limit else { return self.check_memory() };
        let over = self.rows > limit.saturating_add(limit.min(MAX_EXTRA_ROWS));
        if over || (self.bytes > self.max.0 && self.rows > limit) {
            self.truncate(limit)?;
        }
        self.check_memory()
    }

    /// Returns the sorted rows in batches.
    pub(crate) fn finish(self) -> SortedRows {
        let order = self.order(self.limit.unwrap_or(usize::MAX));
        SortedRows { batch_rows: self.batch_rows(), chunks: self.chunks, order, next: 0 }
    }

    fn chunk(&self, rows: RecordBatch) -> Result<Chunk, ArrowError> {
        let columns: Vec<_> =
            self.columns.iter().map(|position| comparable(rows.column(*position))).collect();
        Ok(Chunk { keys: self.converter.convert_columns(&columns)?, rows })
    }

    fn add(&mut self, chunk: Chunk) -> Result<(), ArrowError> {
        if chunk.rows.num_rows() == 0 {
            return Ok(());
        }
        let mut bytes = chunk.keys.size() + chunk.rows.num_rows() * size_of::<Position>();
        for column in chunk.rows.columns() {
            bytes += column.to_data().get_slice_memory_size()?;
        }
        self.bytes += bytes as u64;
        self.rows += chunk.rows.num_rows();
        self.chunks.push(chunk);
        Ok(())
    }

    fn check_memory(&self) -> Result<(), SortError> {
        if self.bytes > self.max.0 {
            return Err(SortError::Memory { max: self.max, rows: self.received });
        }
        Ok(())
    }

    /// Drops all rows but the first `limit`.
    fn truncate(&mut self, limit: usize) -> Result<(), ArrowError> {
        let order = self.order(limit);
        let batches: Vec<RecordBatch> = order
            .chunks(self.batch_rows())
            .map(|positions| gather(&self.chunks, positions))
            .collect::<Result<_, _>>()?;
        self.last = order.last().map(|position| key(&self.chunks, *position).owned());
        self.chunks.clear();
        self.rows = 0;
        self.bytes = 0;
        for batch in batches {
            let chunk = self.chunk(batch)?;
            self.add(chunk)?;
        }
        Ok(())
    }

    /// Returns the positions of the first `limit` rows, in order.
    fn order(&self, limit: usize) -> Vec<Position> {
        let mut order: Vec<Position> = Vec::with_capacity(self.rows);
        for (chunk, index) in self.chunks.iter().zip(0_u32..) {
            order.extend((0_u32..).take(chunk.rows.num_rows()).map(|row| (index, row)));
        }
        // Positions are in the order of arrival.
        let compare = |one: &Position, two: &Position| {
            key(&self.chunks, *one).cmp(&key(&self.chunks, *two)).then(one.cmp(two))
        };
        if limit < order.len() {
            order.select_nth_unstable_by(limit, compare);
            order.truncate(limit);
        }
        order.sort_unstable_by(compare);
        order
    }

    fn batch_rows(&self) -> usize {
        let row_bytes = self.bytes / (self.rows as u64).max(1);
        let rows = BATCH_BYTES / row_bytes.max(1);
        usize::try_from(rows).unwrap_or(BATCH_ROWS).clamp(1, BATCH_ROWS)
    }
}

/// Sorted rows, as an iterator of batches.
pub(crate) struct SortedRows {
    chunks: Vec<Chunk>,
    order: Vec<Position>,
    batch_rows: usize,
    /// Position in `order` of the next batch.
    next: usize,
}

impl Iterator for SortedRows {
    type Item = Result<RecordBatch, SortError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.order.get(self.next..).filter(|rest| !rest.is_empty())?;
        let positions = &rest[..rest.len().min(self.batch_rows)];
        self.next += positions.len();
        Some(gather(&self.chunks, positions).map_err(SortError::from))
    }
}

fn key(chunks: &[Chunk], (chunk, row): Position) -> Row<'_> {
    chunks[chunk as usize].keys.row(row as usize)
}

/// Returns the rows at these positions as a batch.
fn gather(chunks: &[Chunk], positions: &[Position]) -> Result<RecordBatch, ArrowError> {
    // Arrow prepares every batch that it receives, also those without a row at these positions.
    let mut used: Vec<u32> = positions.iter().map(|(chunk, _)| *chunk).collect();
    used.sort_unstable();
    used.dedup();
    let batches: Vec<&RecordBatch> =
        used.iter().map(|chunk| &chunks[*chunk as usize].rows).collect();
    let indices: Vec<(usize, usize)> = positions
        .iter()
        .map(|(chunk, row)| (used.partition_point(|found| found < chunk), *row as usize))
        .collect();
    interleave_record_batch(&batches, &indices)
}

#[cfg(test)]
#[path = "sorter_tests.rs"]
mod tests;
