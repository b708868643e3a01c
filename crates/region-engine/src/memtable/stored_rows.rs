//! Rows that the runs of a memtable share.

use std::ops::Range;

use tidewater_common::keys::KeyCodec;
use tidewater_common::schema::TableSchema;

use super::run::key_columns;
use crate::EngineError;
use crate::row_versions::{RowVersions, Stamps};

/// Immutable rows in order, in batches. A position counts rows from the first batch on.
#[derive(Debug)]
pub(super) struct StoredRows {
    batches: Vec<StoredBatch>,
    rows: usize,
}

#[derive(Debug)]
struct StoredBatch {
    rows: RowVersions,
    /// Position of its first row.
    first: usize,
    summary: RowsSummary,
}

/// Amounts, sequences and epochs of some rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowsSummary {
    pub(super) rows: usize,
    pub(super) bytes: usize,
    pub(super) deletes: usize,
    pub(super) min_sequence: u64,
    pub(super) max_sequence: u64,
    pub(super) max_epoch: u64,
}

impl StoredRows {
    pub(super) fn new(batches: Vec<RowVersions>) -> Self {
        let mut first = 0;
        let mut stored = Vec::with_capacity(batches.len());
        for rows in batches {
            let summary = RowsSummary::of(rows.stamps(), rows.rows(), rows.bytes());
            let Some(summary) = summary else { continue };
            stored.push(StoredBatch { rows, first, summary });
            first += summary.rows;
        }
        Self { batches: stored, rows: first }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the batch at this index of those that have rows of a part, without other rows.
    pub(super) fn batch(&self, part: &Range<usize>, index: usize) -> Option<RowVersions> {
        let batch = self.batches_of(part).get(index)?;
        let rows = batch.rows_of(part);
        Some(batch.rows.slice(rows.start, rows.len()))
    }

    /// Summarizes a part; `None` if it is empty. Reads the stamps of its first and its last batch only.
    pub(super) fn summary(&self, part: &Range<usize>) -> Option<RowsSummary> {
        let summaries = self.batches_of(part).iter().map(|batch| batch.summary_of(part));
        summaries.reduce(|all, next| Some(all?.and(next?)))?
    }

    /// Returns the row key at a position.
    pub(super) fn key_at(
        &self,
        position: usize,
        schema: &TableSchema,
        codec: &KeyCodec,
    ) -> Result<Vec<u8>, EngineError> {
        let Some(batch) = self.batches_of(&(position..position + 1)).first() else {
            return Err(EngineError::Internal {
                detail: format!("a run of {} rows has no position {position}", self.rows),
            });
        };
        Ok(codec.row_key(&key_columns(&batch.rows, schema), position - batch.first)?)
    }

    /// Returns the batches that have rows of a part.
    fn batches_of(&self, part: &Range<usize>) -> &[StoredBatch] {
        let start = self.batches.partition_point(|batch| batch.end() <= part.start);
        let end = self.batches.partition_point(|batch| batch.first < part.end);
        self.batches.get(start..end).unwrap_or_default()
    }
}

impl StoredBatch {
    fn end(&self) -> usize {
        self.first + self.summary.rows
    }

    /// Returns the rows of the batch that belong to a part.
    fn rows_of(&self, part: &Range<usize>) -> Range<usize> {
        let within = |position: usize| position.clamp(self.first, self.end()) - self.first;
        within(part.start)..within(part.end)
    }

    fn summary_of(&self, part: &Range<usize>) -> Option<RowsSummary> {
        let rows = self.rows_of(part);
        if rows.len() == self.summary.rows {
            return Some(self.summary);
        }
        // The sizes of columns would have to be read for each part. Of adjacent parts, these sum up to
        // the size of the batch.
        let bytes_before = |row: usize| self.summary.bytes.saturating_mul(row) / self.summary.rows;
        let bytes = bytes_before(rows.end) - bytes_before(rows.start);
        let stamps = self.rows.stamps().slice(rows.start, rows.len());
        RowsSummary::of(&stamps, rows.len(), bytes)
    }
}

impl RowsSummary {
    /// Summarizes rows with these stamps; `None` without any.
    fn of(stamps: &Stamps, rows: usize, bytes: usize) -> Option<Self> {
        let (min_sequence, max_sequence) = stamps.sequences.bounds(rows)?;
        let (_, max_epoch) = stamps.epochs.bounds(rows)?;
        let deletes = stamps.ops.deletes(rows);
        Some(Self { rows, bytes, deletes, min_sequence, max_sequence, max_epoch })
    }

    fn and(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            bytes: self.bytes + other.bytes,
            deletes: self.deletes + other.deletes,
            min_sequence: self.min_sequence.min(other.min_sequence),
            max_sequence: self.max_sequence.max(other.max_sequence),
            max_epoch: self.max_epoch.max(other.max_epoch),
        }
    }
}
