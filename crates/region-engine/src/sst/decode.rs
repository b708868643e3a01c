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
pub(crate) use super::pace::Pace;
use super::plan::{GroupRows, RowPlan};
use super::row_parts::{byte_ranges, row_bytes, split_rows};
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

pub(super) fn task_failed(error: &tokio::task::JoinError) -> EngineError {
    EngineError::Internal { detail: format!("a task that read a file failed: {error}") }
}
