//! Runs: immutable rows sorted by key.
//!
//! Several runs may share the rows of one: when a region is divided, each child has the part of every
//! run whose keys are in its range. The part is fixed by positions when the run is created, and no method
//! returns other rows. Reads, flushes, merges of runs, images and accounts cannot disregard it (S10).

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::FilterBuilder;
use arrow::datatypes::SchemaRef;
use tidewater_common::ids::{ColumnId, Epoch, Sequence};
use tidewater_common::keys::{KeyCodec, KeyRange};
use tidewater_common::rows::check_storable;
use tidewater_common::schema::{TableSchema, WriteMode};

use super::duplicates::last_of_equal_keys;
use super::stored_rows::{RowsSummary, StoredRows};
use crate::EngineError;
use crate::read::ranges::first_at_or_after;
use crate::row_versions::{Numbers, Ops, RowOp, RowVersions, Stamps};

/// One write to a region, as its log orders it.
#[derive(Debug, Clone)]
pub struct RowsWrite {
    /// Position of the write within the region; greater than that of every write before it.
    pub sequence: Sequence,
    /// Logical time of the write; never below that of a write before it.
    pub epoch: Epoch,
    /// Operation of the rows: put or delete.
    pub op: RowOp,
    /// Put: all columns of the schema in its order. Delete: the key columns in key order. Rows in
    /// ascending key order; equal keys in the order in which they were written.
    pub batch: RecordBatch,
}

/// Rows of one write, or merged rows of several runs, or a part of them. Batches follow each other in
/// order: by key, and within a key newest first.
#[derive(Debug)]
pub struct Run {
    /// Rows that this run may share with others.
    stored: Arc<StoredRows>,
    /// Positions of this run's rows; never empty.
    part: Range<usize>,
    summary: RowsSummary,
    /// True if no key occurs twice.
    unique: bool,
    key_bounds: OnceLock<(Vec<u8>, Vec<u8>)>,
}

impl Run {
    /// Creates the run of one write; `None` when it has no rows.
    pub(crate) fn from_write(
        write: RowsWrite,
        schema: &TableSchema,
        mode: WriteMode,
    ) -> Result<Option<Self>, EngineError> {
        let RowsWrite { sequence, epoch, op, batch } = write;
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        let (columns, ids): (SchemaRef, Arc<[ColumnId]>) = match op {
            RowOp::Put => (schema.arrow(), schema.columns().iter().map(|c| c.id).collect()),
            RowOp::Delete => (schema.key_arrow(), schema.primary_key().into()),
        };
        if ids.len() != batch.num_columns() {
            return Err(EngineError::BadRows {
                detail: format!(
                    "a write at sequence {sequence} has {} columns, not {}",
                    batch.num_columns(),
                    ids.len()
                ),
            });
        }
        if op == RowOp::Delete && !mode.has_deletes() {
            return Err(EngineError::BadRows {
                detail: format!(
                    "a write at sequence {sequence} deletes from an append-only table: its rows \
                     cannot be deleted"
                ),
            });
        }
        let rows = batch.num_rows();
        let mut arrays = batch.columns().to_vec();
        check_storable(&columns, &arrays)?;
        let mut kept = rows;
        if mode == WriteMode::Upsert {
            let keys = keys_of(&ids, &arrays, schema);
            if let Some(mask) = last_of_equal_keys(&keys)? {
                let filter = FilterBuilder::new(&mask).optimize().build();
                kept = filter.count();
                arrays = arrays.iter().map(|a| filter.filter(a)).collect::<Result<_, _>>()?;
            }
        }
        let stamps = Stamps {
            sequences: Numbers::All(sequence.get()),
            epochs: Numbers::All(epoch.get()),
            ops: Ops::All(op),
        };
        let versions = RowVersions::new(ids, arrays, kept, stamps);
        Ok(Self::from_batches(vec![versions], mode == WriteMode::Upsert))
    }

    /// Creates a run of batches in order; `None` without rows. `unique`: no key occurs twice.
    pub(crate) fn from_batches(batches: Vec<RowVersions>, unique: bool) -> Option<Self> {
        let stored = Arc::new(StoredRows::new(batches));
        let all = 0..stored.rows();
        Self::part_of(stored, all, unique)
    }

    fn part_of(stored: Arc<StoredRows>, part: Range<usize>, unique: bool) -> Option<Self> {
        let summary = stored.summary(&part)?;
        Some(Self { stored, part, summary, unique, key_bounds: OnceLock::new() })
    }

    /// Returns the run of the rows with keys in `range`; `None` without any. Copies no rows, and reads
    /// the keys that two binary searches need.
    pub(crate) fn within(
        self: &Arc<Self>,
        range: &KeyRange,
        schema: &TableSchema,
        codec: &KeyCodec,
    ) -> Result<Option<Arc<Self>>, EngineError> {
        let (low, high) = self.key_bounds(schema, codec)?;
        if range.contains(low) && range.contains(high) {
            return Ok(Some(self.clone()));
        }
        if !range.intersects_inclusive(low, high) {
            return Ok(None);
        }
        let key_at = |position: usize| self.stored.key_at(position, schema, codec);
        let start = first_at_or_after(self.part.clone(), &range.start, key_at)?;
        let end = match &range.end {
            Some(end) => first_at_or_after(start..self.part.end, end, key_at)?,
            None => self.part.end,
        };
        Ok(Self::part_of(self.stored.clone(), start..end, self.unique).map(Arc::new))
    }

    /// Returns the batch at this index, without rows of other runs; `None` after the last one.
    pub(crate) fn batch(&self, index: usize) -> Option<RowVersions> {
        self.stored.batch(&self.part, index)
    }

    pub(crate) fn batches(&self) -> impl Iterator<Item = RowVersions> {
        (0..).map_while(|index| self.batch(index))
    }

    /// Number of row versions.
    pub fn rows(&self) -> usize {
        self.summary.rows
    }

    /// Bytes of the rows. Those of runs that share a batch are in proportion to their rows.
    pub fn bytes(&self) -> usize {
        self.summary.bytes
    }

    pub(crate) fn deletes(&self) -> usize {
        self.summary.deletes
    }

    pub(crate) fn unique(&self) -> bool {
        self.unique
    }

    pub(crate) fn min_sequence(&self) -> u64 {
        self.summary.min_sequence
    }

    pub(crate) fn max_sequence(&self) -> u64 {
        self.summary.max_sequence
    }

    pub(crate) fn max_epoch(&self) -> Epoch {
        Epoch(self.summary.max_epoch)
    }

    /// Returns whether a row has a sequence above `above`, and not above `through`.
    pub(crate) fn has_rows_between(&self, above: Sequence, through: Sequence) -> bool {
        let is_between = |sequence| sequence > above.get() && sequence <= through.get();
        // Most runs are on one side, which their summaries show.
        self.max_sequence() > above.get()
            && self.min_sequence() <= through.get()
            && self.batches().any(|rows| match &rows.stamps().sequences {
                Numbers::All(sequence) => is_between(*sequence),
                Numbers::Each(each) => each.values().iter().copied().any(is_between),
            })
    }

    /// Returns the row keys of the first and the last row.
    pub(crate) fn key_bounds(
        &self,
        schema: &TableSchema,
        codec: &KeyCodec,
    ) -> Result<&(Vec<u8>, Vec<u8>), EngineError> {
        if let Some(bounds) = self.key_bounds.get() {
            return Ok(bounds);
        }
        let low = self.stored.key_at(self.part.start, schema, codec)?;
        let high = self.stored.key_at(self.part.end - 1, schema, codec)?;
        Ok(self.key_bounds.get_or_init(|| (low, high)))
    }

    /// Returns whether two runs share their rows.
    #[cfg(test)]
    pub(crate) fn shares_rows(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.stored, &other.stored)
    }

    /// Returns the bytes of all rows that this run shares with others.
    #[cfg(test)]
    pub(crate) fn shared_bytes(&self) -> usize {
        self.stored.summary(&(0..self.stored.rows())).map_or(0, |summary| summary.bytes)
    }
}

/// Returns the key columns of some rows, in key order.
pub(crate) fn key_columns(rows: &RowVersions, schema: &TableSchema) -> Vec<ArrayRef> {
    keys_of(rows.ids(), rows.arrays(), schema)
}

fn keys_of(ids: &[ColumnId], arrays: &[ArrayRef], schema: &TableSchema) -> Vec<ArrayRef> {
    schema
        .primary_key()
        .iter()
        .filter_map(|key| ids.iter().position(|id| id == key).map(|index| arrays[index].clone()))
        .collect()
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
