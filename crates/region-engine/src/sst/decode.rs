//! Decodes the chosen rows of one file, on several cores and ahead of who reads.
//!
//! A *stretch* is what is read from the store at once: rows of one row group, all columns of them. A
//! *unit* is what one core decodes at once: a part of a stretch. While the batches of one unit are
//! taken, the next ones are decoded and the next stretch is read. So a file in reading holds the
//! compressed bytes of two stretches and the rows of a few units, however large it is.

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

use super::fetch::{CheckedReader, Parts};
use super::footer::Footer;
use super::format::PAGE_ROWS;
use super::plan::{GroupRows, RowPlan};
use super::statistics::page_rows;
use crate::EngineError;
use crate::read::BATCH_BYTES;
use crate::read::run_source::PIECE_ROWS;

/// How much of a file is under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Rows of a stretch at most; a multiple of those of a unit.
    pub(crate) stretch_rows: usize,
    /// Rows of a unit at most; a multiple of [`PAGE_ROWS`], but for wide rows.
    pub(crate) unit_rows: usize,
    /// Units that are decoded ahead.
    pub(crate) ahead: usize,
}

impl Pace {
    /// The file is read alone: all cores are for it.
    pub(crate) const ALONE: Self =
        Self { stretch_rows: 16 * PAGE_ROWS, unit_rows: 4 * PAGE_ROWS, ahead: 2 };
    /// Other files are read with it, as many as overlap: each holds little.
    pub(crate) const MERGED: Self = Self {
        stretch_rows: 4 * PAGE_ROWS,
        // The small pages of tests would have a thread called for every few rows.
        unit_rows: if cfg!(test) { 4 * PAGE_ROWS } else { PAGE_ROWS },
        ahead: 1,
    };

    /// The same with units of at most so many rows.
    fn within(self, unit_rows: usize) -> Self {
        let units = (self.stretch_rows / self.unit_rows).max(1);
        // A page that lies in two units is decoded twice.
        let whole_pages = unit_rows - unit_rows % PAGE_ROWS;
        let unit_rows = if whole_pages > 0 { whole_pages } else { unit_rows.max(1) };
        let unit_rows = self.unit_rows.min(unit_rows);
        Self { stretch_rows: self.stretch_rows.min(units * unit_rows), unit_rows, ..self }
    }
}

pub(super) type Reading = AbortOnDropHandle<Result<Parts, EngineError>>;
type Waiting =
    Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send + Sync>>;
pub(super) type Decoded = Result<Vec<RecordBatch>, EngineError>;

/// See the module's head.
pub(crate) struct Decoder {
    shared: Arc<Shared>,
    pace: Pace,
    workers: Arc<Semaphore>,
    stretches: VecDeque<GroupRows>,
    reading: Option<(GroupRows, Reading)>,
    units: VecDeque<Unit>,
    waiting: Option<Waiting>,
    decoding: VecDeque<JoinHandle<Decoded>>,
    ready: VecDeque<RecordBatch>,
}

/// What all units of a file have in common.
struct Shared {
    reader: CheckedReader,
    mask: ProjectionMask,
    leaves: Vec<usize>,
}

struct Unit {
    rows: GroupRows,
    parts: Parts,
}

impl Decoder {
    /// Decodes the rows of `plan` of these leaves of a file.
    pub(crate) fn new(
        reader: CheckedReader,
        leaves: Vec<usize>,
        plan: &RowPlan,
        pace: Pace,
        workers: Arc<Semaphore>,
    ) -> Self {
        let schema = reader.footer.metadata.parquet_schema();
        let mask = ProjectionMask::leaves(schema, leaves.iter().copied());
        let shared = Shared { reader, mask, leaves };
        let stretches =
            plan.0.iter().flat_map(|rows| cut(rows, shared.pace(pace, rows).stretch_rows));
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

    /// The next rows, in order; `None` at the end. Dropped while it waits, it loses nothing.
    ///
    /// # Errors
    /// [`EngineError::Damaged`], and those of the store; then there is nothing more to come.
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
                self.ready = decoded.map_err(|error| not_ended(&error))??.into();
            } else if !self.units.is_empty() {
                // All permits are out, to other reads: in turn with them.
                let workers = &self.workers;
                let waiting =
                    self.waiting.get_or_insert_with(|| Box::pin(workers.clone().acquire_owned()));
                let permit = ready!(waiting.poll_unpin(context));
                self.waiting = None;
                let permit = permit.map_err(|error| EngineError::Internal {
                    detail: format!("no more rows are decoded: {error}"),
                })?;
                self.start(permit);
            } else if self.reading.is_some() {
                return Poll::Pending;
            } else {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Reads the next stretch while the units of the one before are decoded.
    fn read_ahead(&mut self, context: &mut Context<'_>) -> Result<(), EngineError> {
        loop {
            if self.reading.is_none() && self.units.len() < self.pace.ahead {
                let shared = &self.shared;
                self.reading = self.stretches.pop_front().map(|rows| {
                    let ranges = byte_ranges(&shared.reader.footer, &rows, &shared.leaves);
                    (rows, read(&shared.reader, ranges))
                });
            }
            let Some((_, reading)) = &mut self.reading else { return Ok(()) };
            let Poll::Ready(read) = reading.poll_unpin(context) else { return Ok(()) };
            let Some((rows, _)) = self.reading.take() else { return Ok(()) };
            let parts = read.map_err(|error| not_ended(&error))??;
            let units = cut(&rows, self.shared.pace(self.pace, &rows).unit_rows).into_iter();
            self.units.extend(units.map(|rows| Unit { rows, parts: parts.clone() }));
        }
    }

    /// Gives the next unit to a worker, if there is one.
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

/// A task of its own: others may be waiting for what it fetches, and must not wait for whoever takes
/// the rows of this read.
pub(super) fn read(reader: &CheckedReader, ranges: Vec<Range<u64>>) -> Reading {
    let reader = reader.clone();
    AbortOnDropHandle::new(tokio::spawn(async move { reader.read(&ranges).await }))
}

impl Shared {
    /// The pace at which the rows of a row group are decoded: it is counted in rows, and wide ones
    /// are fewer to a unit.
    fn pace(&self, pace: Pace, rows: &GroupRows) -> Pace {
        pace.within(BATCH_BYTES / self.row_bytes(rows))
    }

    fn row_bytes(&self, rows: &GroupRows) -> usize {
        row_bytes(&self.reader.footer, rows.group, &self.leaves)
    }

    fn decode(&self, unit: Unit) -> Decoded {
        decode(&self.reader, self.mask.clone(), unit.parts, unit.rows)
    }
}

/// Decodes these rows of the columns in `mask`, of which the pages lie in `parts`.
pub(super) fn decode(
    reader: &CheckedReader,
    mask: ProjectionMask,
    parts: Parts,
    rows: GroupRows,
) -> Decoded {
    let undecodable = |error: ParquetError| reader.undecodable(&error);
    let plan = RowPlan(vec![rows]);
    let (groups, selection) = plan.selection(&reader.footer);
    let metadata = reader.footer.metadata.clone();
    ParquetRecordBatchReaderBuilder::new_with_metadata(parts, metadata)
        .with_projection(mask)
        .with_row_groups(groups)
        .with_row_selection(selection)
        // A mask would read the pages between the chosen ones, which were not fetched.
        .with_row_selection_policy(RowSelectionPolicy::Selectors)
        .with_batch_size(PIECE_ROWS)
        .build()
        .map_err(undecodable)?
        .collect::<Result<Vec<_>, ArrowError>>()
        .map_err(|error| undecodable(error.into()))
}

/// Bytes that a row of these leaves takes once it is decoded, on the average of its row group; at
/// least 1.
pub(super) fn row_bytes(footer: &Footer, group: usize, leaves: &[usize]) -> usize {
    let Some(group) = footer.metadata.metadata().row_groups().get(group) else { return 1 };
    let decoded = |leaf: &usize| {
        let Some(column) = group.columns().get(*leaf) else { return 0 };
        // A dictionary may hold a long text once that stands in every row.
        let texts = column.unencoded_byte_array_data_bytes().unwrap_or(0);
        offset(column.uncompressed_size().max(texts).max(0))
    };
    let bytes: u64 = leaves.iter().map(decoded).fold(0, u64::saturating_add);
    let each = bytes / offset(group.num_rows()).max(1);
    usize::try_from(each).unwrap_or(usize::MAX).max(1)
}

/// The same rows in parts of at most so many rows, cut where pages begin and end unless rows are so
/// wide that less than a page is taken at once.
pub(super) fn cut(whole: &GroupRows, most: usize) -> Vec<GroupRows> {
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

/// The bytes of the pages that hold the rows, and of the dictionaries that these need.
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

/// An offset that cannot be becomes one that lies outside of every file.
fn offset(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

pub(super) fn not_ended(error: &tokio::task::JoinError) -> EngineError {
    EngineError::Internal { detail: format!("reading a file did not come to its end: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_rows_are_decoded_a_few_at_a_time() {
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
    fn rows_are_cut_where_pages_begin() {
        let rows = |pairs: &[(usize, usize)]| GroupRows {
            group: 3,
            rows: pairs.iter().map(|(start, end)| *start..*end).collect(),
        };
        assert_eq!(cut(&rows(&[]), 8), []);
        assert_eq!(cut(&rows(&[(0, 8)]), 8), [rows(&[(0, 8)])]);
        assert_eq!(
            cut(&rows(&[(3, 20)]), 8),
            [rows(&[(3, 8)]), rows(&[(8, 16)]), rows(&[(16, 20)])]
        );
        assert_eq!(
            cut(&rows(&[(1, 2), (4, 9), (30, 31)]), 8),
            [rows(&[(1, 2), (4, 8)]), rows(&[(8, 9)]), rows(&[(30, 31)])]
        );
    }
}
