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
use super::format::PAGE_ROWS;
use super::plan::{GroupRows, RowPlan};
use super::statistics::page_rows;
use crate::EngineError;
use crate::read::BATCH_BYTES;
use crate::read::run_source::PIECE_ROWS;

/// Amounts of a file that are in progress at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Maximum rows of a stretch; a multiple of `unit_rows`.
    pub(crate) stretch_rows: usize,
    /// Maximum rows of a unit; a multiple of [`PAGE_ROWS`] unless rows are wide.
    pub(crate) unit_rows: usize,
    /// Number of units that are decoded ahead.
    pub(crate) ahead: usize,
}

impl Pace {
    /// Pace of a file that is read alone and may use all cores.
    pub(crate) const ALONE: Self =
        Self { stretch_rows: 16 * PAGE_ROWS, unit_rows: 4 * PAGE_ROWS, ahead: 2 };
    /// Pace of a file that is merged with others: many may overlap, so each holds little.
    pub(crate) const MERGED: Self = Self {
        stretch_rows: 4 * PAGE_ROWS,
        // With the small pages of tests, every few rows would start a thread.
        unit_rows: if cfg!(test) { 4 * PAGE_ROWS } else { PAGE_ROWS },
        ahead: 1,
    };

    /// Returns this pace with units of at most `unit_rows` rows.
    fn within(self, unit_rows: usize) -> Self {
        let units = (self.stretch_rows / self.unit_rows).max(1);
        // A page that is split between two units is decoded twice.
        let whole_pages = unit_rows - unit_rows % PAGE_ROWS;
        let unit_rows = if whole_pages > 0 { whole_pages } else { unit_rows.max(1) };
        let unit_rows = self.unit_rows.min(unit_rows);
        Self { stretch_rows: self.stretch_rows.min(units * unit_rows), unit_rows, ..self }
    }
}

pub(super) type PendingRead = AbortOnDropHandle<Result<FileParts, EngineError>>;
type PendingPermit =
    Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send + Sync>>;
pub(super) type DecodeResult = Result<Vec<RecordBatch>, EngineError>;

/// Decodes the rows of a plan, ahead of the reader.
pub(crate) struct RowDecoder {
    shared: Arc<DecodeContext>,
    pace: Pace,
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
}

struct DecodeUnit {
    rows: GroupRows,
    parts: FileParts,
}

impl RowDecoder {
    /// Creates a decoder of the rows of `plan` of these leaves of a file.
    pub(crate) fn new(
        reader: CheckedReader,
        leaves: Vec<usize>,
        plan: &RowPlan,
        pace: Pace,
        workers: Arc<Semaphore>,
    ) -> Self {
        let schema = reader.footer.metadata.parquet_schema();
        let mask = ProjectionMask::leaves(schema, leaves.iter().copied());
        let shared = DecodeContext { reader, mask, leaves };
        let stretches =
            plan.0.iter().flat_map(|rows| split_rows(rows, shared.pace(pace, rows).stretch_rows));
        let stretches = stretches.collect();
        Self {
            shared: Arc::new(shared),
            pace,
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
            while self.decoding.len() < self.pace.ahead && self.waiting.is_none() {
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

    /// Reads the next stretch while units of the previous one are decoded.
    fn read_ahead(&mut self, context: &mut Context<'_>) -> Result<(), EngineError> {
        loop {
            if self.reading.is_none() && self.units.len() < self.pace.ahead {
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
            let units = split_rows(&rows, self.shared.pace(self.pace, &rows).unit_rows).into_iter();
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
    fn pace(&self, pace: Pace, rows: &GroupRows) -> Pace {
        pace.within(BATCH_BYTES / self.row_bytes(rows))
    }

    fn row_bytes(&self, rows: &GroupRows) -> usize {
        row_bytes(&self.reader.footer, rows.group, &self.leaves)
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

/// Returns the average decoded bytes of a row of these leaves in a row group; at least 1.
pub(super) fn row_bytes(footer: &Footer, group: usize, leaves: &[usize]) -> usize {
    let Some(group) = footer.metadata.metadata().row_groups().get(group) else { return 1 };
    let decoded = |leaf: &usize| {
        let Some(column) = group.columns().get(*leaf) else { return 0 };
        // A dictionary may hold a long text once that occurs in every row.
        let texts = column.unencoded_byte_array_data_bytes().unwrap_or(0);
        offset(column.uncompressed_size().max(texts).max(0))
    };
    let bytes: u64 = leaves.iter().map(decoded).fold(0, u64::saturating_add);
    let each = bytes / offset(group.num_rows()).max(1);
    usize::try_from(each).unwrap_or(usize::MAX).max(1)
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
    fn wide_rows_are_decoded_in_small_units() {
        for pace in [Pace::ALONE, Pace::MERGED] {
            assert_eq!(pace.within(usize::MAX), pace);
            assert_eq!(pace.within(pace.unit_rows), pace);
            let units = pace.stretch_rows / pace.unit_rows;
            for (most, rows) in
                [(0, 1), (1, 1), (PAGE_ROWS - 1, PAGE_ROWS - 1), (PAGE_ROWS + 1, PAGE_ROWS)]
            {
                let within = pace.within(most);
                assert_eq!((within.unit_rows, within.stretch_rows), (rows, units * rows));
            }
        }
    }

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
