//! A run of the memtable as a source of a read.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::buffer::BooleanBuffer;
use tidewater_common::ids::Epoch;
use tidewater_common::rows::rows_within;

use super::BATCH_BYTES;
use super::context::EpochBounds;
use super::need::SourceRow;
use super::ranges::KeyRanges;
use super::shape::{Carried, Piece, TableShape, estimated_width};
use crate::EngineError;
use crate::memtable::run::{Run, key_columns};
use crate::row_versions::{Numbers, RowVersions};
use crate::sst::pace::RowBytes;

/// Maximum number of rows of a piece, of which a merge holds one for each source. Fewer when they
/// are larger than [`BATCH_BYTES`]. Small in tests, so that they cross the boundaries.
pub(crate) const PIECE_ROWS: usize = if cfg!(test) { 7 } else { 8_192 };

/// Source that yields the rows of a run. Rows are copied only when a mask removes some of them.
#[derive(Debug)]
pub(crate) struct RunSource {
    run: Arc<Run>,
    shape: Arc<TableShape>,
    carried: Carried,
    /// `None`: the ranges contain the whole run.
    ranges: Option<KeyRanges>,
    /// Rows at or below this sequence are read from files.
    flushed: u64,
    /// Row versions of other epochs are skipped.
    epochs: EpochBounds,
    /// The current batch.
    batch: Option<Box<RowVersions>>,
    /// Index of the batch after it.
    next_batch: usize,
    /// Rows of the current batch that are not yielded yet, in reverse order.
    remaining: Vec<Range<usize>>,
    /// Maximum rows of a piece.
    piece_rows: usize,
}

impl RunSource {
    /// Creates a source of the run's rows above sequence `flushed` whose keys are in the ranges.
    pub(crate) fn new(
        run: Arc<Run>,
        shape: Arc<TableShape>,
        carried: Carried,
        ranges: &KeyRanges,
        flushed: u64,
    ) -> Result<Self, EngineError> {
        let (low, high) = run.key_bounds(&shape.schema, &shape.codec)?;
        let ranges = (!ranges.cover(low, high)).then(|| ranges.clone());
        Ok(Self {
            run,
            shape,
            carried,
            ranges,
            flushed,
            epochs: EpochBounds::default(),
            batch: None,
            next_batch: 0,
            remaining: Vec::new(),
            piece_rows: PIECE_ROWS,
        })
    }

    /// Skips row versions of epochs that are out of the bounds.
    pub(crate) fn with_epochs(mut self, epochs: EpochBounds) -> Self {
        self.epochs = epochs;
        self
    }

    /// Limits the bytes that a merge holds for this source: the keys of a piece, in two forms.
    pub(crate) fn set_memory(&mut self, bytes: u64) {
        let rows = usize::try_from(bytes / self.row().held.decoded / 2).unwrap_or(usize::MAX);
        self.piece_rows = rows.clamp(1, PIECE_ROWS);
    }

    /// Returns the estimated bytes of a row. Values are shared with the memtable, and only the
    /// comparable keys of a merge are copies.
    pub(crate) fn row(&self) -> SourceRow {
        let schema = &self.shape.schema;
        let decoded = estimated_width(schema, schema.primary_key(), 0);
        let whole = (self.run.bytes() / self.run.rows().max(1)) as u64;
        let width = estimated_width(schema, &self.carried.ids, whole);
        let rows = self.run.rows() as u64;
        SourceRow { held: RowBytes { decoded, stored: 0 }, width, rows, all_rows: rows }
    }

    /// Returns the next rows; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, EngineError> {
        loop {
            let (Some(batch), Some(mut range)) = (&self.batch, self.remaining.pop()) else {
                let Some(batch) = self.run.batch(self.next_batch) else { return Ok(None) };
                self.next_batch += 1;
                self.remaining = match &self.ranges {
                    None => std::iter::once(0..batch.rows()).collect(),
                    Some(ranges) => {
                        let keys = key_columns(&batch, &self.shape.schema);
                        ranges.rows(&self.shape.codec, &keys, batch.rows())?
                    }
                };
                self.remaining.reverse();
                self.batch = Some(Box::new(batch));
                continue;
            };
            let most = range.start..range.end.min(range.start + self.piece_rows);
            let end = range.start + rows_within(batch.arrays(), most, BATCH_BYTES);
            if end < range.end {
                self.remaining.push(end..range.end);
                range.end = end;
            }
            let slice = batch.slice(range.start, range.len());
            let slice = self.visible(self.unflushed(slice)?)?;
            if slice.rows() > 0 {
                let keys = key_columns(&slice, &self.shape.schema);
                let rows = self.carried.project(&slice)?;
                return Ok(Some(Piece { rows, keys }));
            }
        }
    }

    fn visible(&self, rows: RowVersions) -> Result<RowVersions, EngineError> {
        match &rows.stamps().epochs {
            Numbers::All(epoch) if self.epochs.exclude(Epoch(*epoch), Epoch(*epoch)) => {
                Ok(rows.slice(0, 0))
            }
            Numbers::All(_) => Ok(rows),
            Numbers::Each(each) => match self.epochs.mask(each)? {
                Some(visible) => Ok(rows.filter(&visible)?),
                None => Ok(rows),
            },
        }
    }

    fn unflushed(&self, rows: RowVersions) -> Result<RowVersions, EngineError> {
        if self.run.min_sequence() > self.flushed {
            return Ok(rows);
        }
        match &rows.stamps().sequences {
            Numbers::All(sequence) if *sequence <= self.flushed => Ok(rows.slice(0, 0)),
            Numbers::All(_) => Ok(rows),
            Numbers::Each(each) => {
                let values = each.values();
                let mask =
                    BooleanBuffer::collect_bool(values.len(), |row| values[row] > self.flushed);
                Ok(rows.filter(&BooleanArray::new(mask, None))?)
            }
        }
    }
}
