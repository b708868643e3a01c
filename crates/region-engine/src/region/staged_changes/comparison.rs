//! Comparison of two sorted runs of batches: a pure core without any I/O.
//!
//! The caller feeds a side when [`Comparison::advance`] requests it. Keys are compared as bytes, and adjacent keys that
//! both sides have are found together. The other columns of their rows are then compared by column. Only changed rows
//! are copied.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::chunk_builder::ChunkBuilder;
use super::key_runs::{KeyOrderError, KeyRun, key_runs};
use super::side::{Side, SideName, SortedRows};
use super::{ChangeChunk, ChangeError};
use crate::EngineError;
use crate::read::shape::TableShape;

/// Least number of keys that are compared together. More if they fit into a chunk, even if all of their rows have
/// changed.
const LEAST_WINDOW: usize = 64;

/// Size of a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkLimits {
    /// Keys, at least 1.
    pub(super) rows: usize,
    /// Bytes of changed rows.
    pub(super) bytes: usize,
}

/// Next step of a comparison.
#[derive(Debug)]
pub(super) enum CompareStep {
    /// [`Comparison::feed`] this side.
    Feed(SideName),
    /// A chunk is complete.
    Chunk(Box<ChangeChunk>),
    /// The last chunk was returned.
    Done,
}

/// Comparison of the rows of a region with staged ones.
#[derive(Debug)]
pub(super) struct Comparison {
    shape: Arc<TableShape>,
    limits: ChunkLimits,
    region: Side,
    staged: Side,
    chunk: ChunkBuilder,
    /// Greatest row key that was compared.
    reached: Vec<u8>,
    is_done: bool,
}

/// Changes of some adjacent keys: positions in the batches of both sides.
#[derive(Debug, Default)]
struct Window {
    puts: Vec<Range<usize>>,
    deletes: Vec<Range<usize>>,
    /// Side and position of the last compared row.
    last: Option<(SideName, usize)>,
}

impl Comparison {
    /// Creates a comparison. `reached`: row key up to which an earlier attempt has compared; empty if there was none.
    pub(super) fn new(shape: Arc<TableShape>, limits: ChunkLimits, reached: Vec<u8>) -> Self {
        Self {
            shape,
            limits: ChunkLimits { rows: limits.rows.max(1), ..limits },
            region: Side::new(SideName::Region),
            staged: Side::new(SideName::Staged),
            chunk: ChunkBuilder::default(),
            reached,
            is_done: false,
        }
    }

    /// Passes the next rows of a side, `None` at its end. They have all columns of the schema in its order.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] for a null in a key.
    pub(super) fn feed(
        &mut self,
        side: SideName,
        rows: Option<&RecordBatch>,
    ) -> Result<(), EngineError> {
        match side {
            SideName::Region => self.region.feed(&self.shape, rows),
            SideName::Staged => self.staged.feed(&self.shape, rows),
        }
    }

    /// Advances until a side must be fed or a chunk is complete.
    ///
    /// # Errors
    /// [`ChangeError::DuplicateKey`] for a staged key that occurs twice, [`EngineError::Internal`] for an error of Arrow.
    pub(super) fn advance(&mut self) -> Result<CompareStep, ChangeError> {
        while !self.is_done {
            // Before a chunk is returned, too: it is the last one if no rows follow.
            if self.region.is_hungry() {
                return Ok(CompareStep::Feed(SideName::Region));
            }
            if self.staged.is_hungry() {
                return Ok(CompareStep::Feed(SideName::Staged));
            }
            let is_last = self.region.is_done() && self.staged.is_done();
            let room = self.limits.rows.saturating_sub(self.chunk.compared());
            if is_last || room == 0 || self.chunk.is_full() {
                // A comparison that resumes after the chunk would not find a second row of its last key.
                self.staged.check_first()?;
                self.is_done = is_last;
                let chunk = self.chunk.finish(&self.shape, self.reached.clone(), is_last)?;
                return Ok(CompareStep::Chunk(Box::new(chunk)));
            }
            self.compare_window(room)?;
        }
        Ok(CompareStep::Done)
    }

    /// Compares up to `room` of the keys at hand, those whose changed rows fit into the chunk.
    fn compare_window(&mut self, room: usize) -> Result<(), ChangeError> {
        let batches = [self.region.batch(), self.staged.batch()];
        let row_bytes = batches.iter().flatten().map(|batch| batch.row_bytes).max().unwrap_or(1);
        // The rows after the first one that does not fit are compared again for the next chunk.
        let most = room.min((self.limits.bytes / row_bytes).max(LEAST_WINDOW));
        let runs = key_runs(self.region.slice(), self.staged.slice(), most);
        let runs = runs.map_err(|error| self.order_error(error))?;
        let mut window = Window::default();
        for run in runs {
            if !self.compare_run(&mut window, run) {
                break;
            }
        }
        if let Some(batch) = self.staged.batch() {
            self.chunk.add_puts(&batch.rows, &window.puts)?;
        }
        if let Some(batch) = self.region.batch() {
            self.chunk.add_deletes(batch.key_columns(), &window.deletes)?;
        }
        let last = match window.last {
            Some((SideName::Region, row)) => self.region.batch().map(|batch| (batch, row)),
            Some((SideName::Staged, row)) => self.staged.batch().map(|batch| (batch, row)),
            None => None,
        };
        if let Some((batch, row)) = last {
            self.reached = batch.row_key(&self.shape, row)?;
        }
        Ok(())
    }

    fn order_error(&self, error: KeyOrderError) -> ChangeError {
        match error {
            KeyOrderError::NotAbove { side: SideName::Region, row, is_equal } => {
                self.region.order_error(row, is_equal)
            }
            KeyOrderError::NotAbove { side: SideName::Staged, row, is_equal } => {
                self.staged.order_error(row, is_equal)
            }
            KeyOrderError::Key(error) => EngineError::from(error).into(),
        }
    }

    /// Compares the rows of a run; returns false if a changed row does not fit into the chunk.
    fn compare_run(&mut self, window: &mut Window, run: KeyRun) -> bool {
        match (run, self.region.batch(), self.staged.batch()) {
            (KeyRun::Region(rows), Some(batch), _) => {
                let fits = self.chunk.fit(batch.key_columns(), rows.clone(), self.limits.bytes);
                self.chunk.counts.deleted += fits as u64;
                let end = rows.start + fits;
                window.add_deletes(rows.start..end);
                self.region.advance_to(end);
                fits == rows.len()
            }
            (KeyRun::Staged(rows), _, Some(batch)) => {
                let fits = self.chunk.fit(&batch.rows, rows.clone(), self.limits.bytes);
                self.chunk.counts.inserted += fits as u64;
                let end = rows.start + fits;
                window.add_puts(rows.start..end);
                self.staged.advance_to(end);
                fits == rows.len()
            }
            (KeyRun::Both { region, staged }, Some(own), Some(other)) => {
                let differs = differences(own, region.start, other, staged.clone());
                let mut compared = 0;
                for same in differs.chunk_by(|a, b| a == b) {
                    let mut fits = same.len();
                    let start = staged.start + compared;
                    if same.first() == Some(&true) {
                        let rows = start..start + same.len();
                        fits = self.chunk.fit(&other.rows, rows, self.limits.bytes);
                        self.chunk.counts.updated += fits as u64;
                        window.add_puts(start..start + fits);
                    } else {
                        self.chunk.counts.unchanged += fits as u64;
                        window.last = Some((SideName::Staged, start + fits - 1));
                    }
                    compared += fits;
                    if fits < same.len() {
                        break;
                    }
                }
                self.region.advance_to(region.start + compared);
                self.staged.advance_to(staged.start + compared);
                compared == differs.len()
            }
            // A run has rows of sides that have a batch.
            _ => false,
        }
    }
}

impl Window {
    fn add_puts(&mut self, rows: Range<usize>) {
        self.add(SideName::Staged, rows);
    }

    fn add_deletes(&mut self, rows: Range<usize>) {
        self.add(SideName::Region, rows);
    }

    fn add(&mut self, side: SideName, rows: Range<usize>) {
        if rows.is_empty() {
            return;
        }
        self.last = Some((side, rows.end - 1));
        let ranges = match side {
            SideName::Region => &mut self.deletes,
            SideName::Staged => &mut self.puts,
        };
        match ranges.last_mut() {
            Some(last) if last.end == rows.start => last.end = rows.end,
            _ => ranges.push(rows),
        }
    }
}

/// Returns for each row of `staged` whether it differs from the region's row of the same key, from `start` on.
fn differences(
    region: &SortedRows,
    start: usize,
    staged: &SortedRows,
    rows: Range<usize>,
) -> Vec<bool> {
    let mut differs = vec![false; rows.len()];
    for (own, other) in region.values.iter().zip(&staged.values) {
        own.mark_differences(start, other, rows.start, &mut differs);
    }
    differs
}

#[cfg(test)]
mod tests;
