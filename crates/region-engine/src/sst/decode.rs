//! Decodes the planned rows of one file, on several cores and ahead of the reader.
//!
//! - **Stretch**: rows of one row group with all their columns, read from the store in one request.
//! - **Unit**: part of a stretch, decoded by one core.
//!
//! While the reader takes the batches of one unit, the next units are decoded and the next stretch
//! is read. An open file therefore holds the compressed bytes of two stretches and the rows of a
//! few units, however large it is.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use futures::FutureExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelectionPolicy};
use parquet::errors::ParquetError;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::fetch::{CheckedReader, FileParts};
use super::footer::Footer;
pub(crate) use super::pace::Pace;
use super::pace::RowBytes;
use super::plan::{GroupRows, RowPlan};
use super::statistics::page_rows;
use crate::EngineError;
use crate::read::BATCH_BYTES;
use crate::read::run_source::PIECE_ROWS;

pub(super) type PendingRead = AbortOnDropHandle<Result<FileParts, EngineError>>;
type PendingPermit =
    Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send + Sync>>;
pub(super) type DecodeResult = Result<Vec<RecordBatch>, EngineError>;

/// Decodes the rows of a plan, ahead of the reader.
pub(crate) struct RowDecoder {
    shared: Arc<DecodeContext>,
    /// See [`Pace::ahead`].
    ahead: usize,
    workers: Arc<Semaphore>,
    stretches: VecDeque<GroupRows>,
    reading: Option<(GroupRows, PendingRead)>,
    units: VecDeque<DecodeUnit>,
    waiting: Option<PendingPermit>,
    decoding: VecDeque<JoinHandle<DecodeResult>>,
    ready: VecDeque<RecordBatch>,
}

/// Data shared by all units of a file.
struct DecodeContext {
    reader: CheckedReader,
    mask: ProjectionMask,
    leaves: Vec<usize>,
    pace: Pace,
    most_bytes: u64,
}

struct DecodeUnit {
    rows: GroupRows,
    parts: FileParts,
}

impl RowDecoder {
    /// Creates a decoder of the rows of `plan` of these leaves of a file, which holds at most about
    /// `most_bytes`, or a single row.
    pub(crate) fn new(
        reader: CheckedReader,
        leaves: Vec<usize>,
        plan: &RowPlan,
        pace: Pace,
        most_bytes: u64,
        workers: Arc<Semaphore>,
    ) -> Self {
        let schema = reader.footer.metadata.parquet_schema();
        let mask = ProjectionMask::leaves(schema, leaves.iter().copied());
        let shared = DecodeContext { reader, mask, leaves, pace, most_bytes };
        let ahead = plan.0.iter().map(|rows| shared.pace(rows).ahead).min().unwrap_or(pace.ahead);
        let stretches =
            plan.0.iter().flat_map(|rows| split_rows(rows, shared.pace(rows).stretch_rows));
        let stretches = stretches.collect();
        Self {
            shared: Arc::new(shared),
            ahead,
            workers,
            stretches,
            reading: None,
            units: VecDeque::new(),
            waiting: None,
            decoding: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    /// Returns the next rows, in order; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// [`EngineError::Damaged`], and errors of the store. No rows follow an error.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<RecordBatch>, EngineError>> {
        loop {
            self.read_ahead(context)?;
            while self.decoding.len() < self.wanted_ahead() && self.waiting.is_none() {
                let Ok(permit) = self.workers.clone().try_acquire_owned() else { break };
                if !self.start(permit) {
                    break;
                }
            }
            if let Some(batch) = self.ready.pop_front() {
                return Poll::Ready(Ok(Some(batch)));
            }
            if let Some(first) = self.decoding.front_mut() {
                let decoded = ready!(first.poll_unpin(context));
                self.decoding.pop_front();
                self.ready = decoded.map_err(|error| task_failed(&error))??.into();
            } else if !self.units.is_empty() {
                // Other reads hold all permits: wait in turn.
                let workers = &self.workers;
                let waiting =
                    self.waiting.get_or_insert_with(|| Box::pin(workers.clone().acquire_owned()));
                let permit = ready!(waiting.poll_unpin(context));
                self.waiting = None;
                let permit = permit.map_err(|error| EngineError::Internal {
                    detail: format!("the decoder has stopped: {error}"),
                })?;
                self.start(permit);
            } else if self.reading.is_some() {
                return Poll::Pending;
            } else {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Number of units to decode now. Without reading ahead, the next unit waits until all rows of the
    /// one before it were taken.
    fn wanted_ahead(&self) -> usize {
        if self.ahead == 0 && self.ready.is_empty() { 1 } else { self.ahead }
    }

    fn reads_next_stretch(&self) -> bool {
        if self.ahead == 0 {
            return self.units.is_empty() && self.decoding.is_empty() && self.ready.is_empty();
        }
        self.units.len() < self.ahead
    }

    /// Reads the next stretch while units of the previous one are decoded.
    fn read_ahead(&mut self, context: &mut Context<'_>) -> Result<(), EngineError> {
        loop {
            if self.reading.is_none() && self.reads_next_stretch() {
                let shared = &self.shared;
                self.reading = self.stretches.pop_front().map(|rows| {
                    let ranges = byte_ranges(&shared.reader.footer, &rows, &shared.leaves);
                    (rows, spawn_read(&shared.reader, ranges))
                });
            }
            let Some((_, reading)) = &mut self.reading else { return Ok(()) };
            let Poll::Ready(read) = reading.poll_unpin(context) else { return Ok(()) };
            let Some((rows, _)) = self.reading.take() else { return Ok(()) };
            let parts = read.map_err(|error| task_failed(&error))??;
            let units = split_rows(&rows, self.shared.pace(&rows).unit_rows).into_iter();
            self.units.extend(units.map(|rows| DecodeUnit { rows, parts: parts.clone() }));
        }
    }

    /// Starts a worker on the next unit, if there is one.
    fn start(&mut self, permit: OwnedSemaphorePermit) -> bool {
        let Some(unit) = self.units.pop_front() else { return false };
        let shared = self.shared.clone();
        self.decoding.push_back(tokio::task::spawn_blocking(move || {
            let _permit = permit;
            shared.decode(unit)
        }));
        true
    }
}

/// Starts a separate task: other reads may wait for the bytes that it fetches, and must not depend
/// on the progress of this read's consumer.
pub(super) fn spawn_read(reader: &CheckedReader, ranges: Vec<Range<u64>>) -> PendingRead {
    let reader = reader.clone();
    AbortOnDropHandle::new(tokio::spawn(async move { reader.read(&ranges).await }))
}

impl DecodeContext {
    /// Returns the pace for the rows of a row group. It is counted in rows, and a unit has fewer
    /// wide rows.
    fn pace(&self, rows: &GroupRows) -> Pace {
        let row = row_bytes(&self.reader.footer, rows.group, &self.leaves);
        let unit_rows = BATCH_BYTES / usize::try_from(row.decoded).unwrap_or(usize::MAX);
        self.pace.within(unit_rows).within_bytes(row, self.most_bytes)
    }

    fn decode(&self, unit: DecodeUnit) -> DecodeResult {
        decode(&self.reader, self.mask.clone(), unit.parts, unit.rows)
    }
}

/// Decodes these rows of the columns in `mask`, whose pages are in `parts`.
pub(super) fn decode(
    reader: &CheckedReader,
    mask: ProjectionMask,
    parts: FileParts,
    rows: GroupRows,
) -> DecodeResult {
    let undecodable = |error: ParquetError| reader.undecodable(&error);
    let plan = RowPlan(vec![rows]);
    let (groups, selection) = plan.selection(&reader.footer);
    let metadata = reader.footer.metadata.clone();
    ParquetRecordBatchReaderBuilder::new_with_metadata(parts, metadata)
        .with_projection(mask)
        .with_row_groups(groups)
        .with_row_selection(selection)
        // A mask would read the pages between the selected ones, which were not fetched.
        .with_row_selection_policy(RowSelectionPolicy::Selectors)
        .with_batch_size(PIECE_ROWS)
        .build()
        .map_err(undecodable)?
        .collect::<Result<Vec<_>, ArrowError>>()
        .map_err(|error| undecodable(error.into()))
}

/// Returns the average bytes of a row of these leaves in a row group.
pub(super) fn row_bytes(footer: &Footer, group: usize, leaves: &[usize]) -> RowBytes {
    let least = RowBytes { decoded: 1, stored: 0 };
    let Some(group) = footer.metadata.metadata().row_groups().get(group) else { return least };
    let fields = footer.metadata.schema().fields();
    let rows = offset(group.num_rows()).max(1);
    let mut decoded: u64 = 0;
    let mut stored: u64 = 0;
    for leaf in leaves {
        let Some(column) = group.columns().get(*leaf) else { continue };
        // A dictionary may hold a long text once that occurs in every row, and numbers may be encoded
        // in a few bits.
        let texts = offset(column.unencoded_byte_array_data_bytes().unwrap_or(0).max(0));
        let width = fields.get(*leaf).and_then(|field| field.data_type().primitive_width());
        let values = width.map_or(0, |width| rows.saturating_mul(width as u64));
        let encoded = offset(column.uncompressed_size().max(0));
        decoded = decoded.saturating_add(encoded.max(texts).max(values));
        stored = stored.saturating_add(offset(column.compressed_size().max(0)));
    }
    RowBytes { decoded: (decoded / rows).max(1), stored: stored.div_ceil(rows) }
}

/// Splits rows into parts of at most `most` rows, at page boundaries unless rows are so wide that a
/// part is smaller than a page.
pub(super) fn split_rows(whole: &GroupRows, most: usize) -> Vec<GroupRows> {
    let mut parts: Vec<GroupRows> = Vec::new();
    for range in &whole.rows {
        let mut start = range.start;
        while start < range.end {
            let window = start / most;
            let end = range.end.min((window + 1) * most);
            match parts.last_mut() {
                Some(last)
                    if last.rows.first().is_some_and(|first| first.start / most == window) =>
                {
                    last.rows.push(start..end);
                }
                _ => {
                    let rows = std::iter::once(start..end).collect();
                    parts.push(GroupRows { group: whole.group, rows });
                }
            }
            start = end;
        }
    }
    parts
}

/// Returns the byte ranges of the pages that hold the rows, and of the dictionaries of these pages.
pub(super) fn byte_ranges(footer: &Footer, rows: &GroupRows, leaves: &[usize]) -> Vec<Range<u64>> {
    let metadata = footer.metadata.metadata();
    let mut ranges = Vec::new();
    for leaf in leaves {
        let Some(chunk) =
            metadata.row_groups().get(rows.group).and_then(|group| group.columns().get(*leaf))
        else {
            continue;
        };
        let start = offset(chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset()));
        let whole = start..start.saturating_add(offset(chunk.compressed_size()));
        let pages = metadata.offset_index().and_then(|index| index.get(rows.group)?.get(*leaf));
        let (Some(pages), Some(page_rows)) = (pages, page_rows(footer, rows.group, *leaf)) else {
            ranges.push(whole);
            continue;
        };
        let pages = pages.page_locations();
        if let Some(first) = pages.first() {
            ranges.push(whole.start..offset(first.offset).max(whole.start));
        }
        for (page, held) in pages.iter().zip(page_rows) {
            let next = rows.rows.partition_point(|range| range.end <= held.start);
            if rows.rows.get(next).is_some_and(|range| range.start < held.end) {
                let start = offset(page.offset);
                ranges.push(start..start.saturating_add(offset(page.compressed_page_size.into())));
            }
        }
    }
    ranges.retain(|range| !range.is_empty());
    ranges
}

/// Converts an offset; an invalid one becomes an offset outside of every file.
fn offset(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

pub(super) fn task_failed(error: &tokio::task::JoinError) -> EngineError {
    EngineError::Internal { detail: format!("a task that read a file failed: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_split_at_page_boundaries() {
        let rows = |pairs: &[(usize, usize)]| GroupRows {
            group: 3,
            rows: pairs.iter().map(|(start, end)| *start..*end).collect(),
        };
        assert_eq!(split_rows(&rows(&[]), 8), []);
        assert_eq!(split_rows(&rows(&[(0, 8)]), 8), [rows(&[(0, 8)])]);
        assert_eq!(
            split_rows(&rows(&[(3, 20)]), 8),
            [rows(&[(3, 8)]), rows(&[(8, 16)]), rows(&[(16, 20)])]
        );
        assert_eq!(
            split_rows(&rows(&[(1, 2), (4, 9), (30, 31)]), 8),
            [rows(&[(1, 2), (4, 8)]), rows(&[(8, 9)]), rows(&[(30, 31)])]
        );
    }
}
