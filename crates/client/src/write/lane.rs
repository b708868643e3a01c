//! Lane of a writer: runs one lane write at a time, on all of its regions concurrently.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use futures::future::join_all;
use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, RowOp};

use super::current_schema::{altered, convert};
use super::prepare::{Piece, PieceLimits, prepare};
use super::report::WriteReport;
use super::send::{PieceSender, ProducerStreams};
use crate::catalog::TableInfo;
use crate::core::Core;
use crate::error::ClientError;
use crate::router::Limits;
use crate::stale::{ExpectedChange, StaleWaits};

/// Rows above which a lane write is sorted and encoded on a blocking thread.
const INLINE_ROWS: u64 = 1_024;

/// Streams above which a lane drops those of regions that no longer exist.
const MANY_STREAMS: usize = 256;

/// Lane batches that a lane writes together: rows of one operation, in the order of the calls.
#[derive(Debug)]
pub(crate) struct LaneWrite {
    pub(crate) op: RowOp,
    /// Not empty.
    pub(crate) rows: Vec<RecordBatch>,
}

impl LaneWrite {
    pub(crate) fn num_rows(&self) -> u64 {
        self.rows.iter().map(|rows| rows.num_rows() as u64).sum()
    }

    fn concatenated(&self) -> Result<RecordBatch, ClientError> {
        let bad = |reason: String| ClientError::BadInput(reason);
        match self.rows.as_slice() {
            [] => Err(bad("a write has no rows".to_owned())),
            [rows] => Ok(rows.clone()),
            [first, ..] => {
                concat_batches(&first.schema(), &self.rows).map_err(|error| bad(error.to_string()))
            }
        }
    }
}

/// Lane with its producer streams.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    streams: ProducerStreams,
}

/// State shared by all lanes of a writer.
#[derive(Debug, Clone)]
pub(crate) struct WriterContext {
    pub(crate) core: Arc<Core>,
    pub(crate) table: Arc<TableInfo>,
    pub(crate) limits: PieceLimits,
}

impl Lane {
    /// Runs a lane write; returns when each of its rows is settled.
    pub(crate) async fn write(&mut self, context: &WriterContext, write: LaneWrite) -> WriteReport {
        let limits = Limits::of(&context.core.router.options);
        let rows = write.num_rows();
        let op = write.op;
        let (table, pieces) = match cut(context, write, &limits).await {
            Ok(cut) => cut,
            Err(error) => {
                // No row was sent.
                let mut report = WriteReport { failed: rows, ..WriteReport::default() };
                report.add_cause(Refusal::new(Reason::InvalidArgument, error.to_string()));
                return report;
            }
        };
        self.drop_removed_regions(context);
        let work: Vec<_> = by_region(pieces)
            .into_iter()
            .map(|(region, pieces)| {
                let known = self.streams.remove(&region).map(|stream| (region, stream));
                let streams = known.into_iter().collect();
                let core = &*context.core;
                let table = Arc::clone(&table);
                let stale = StaleWaits::default();
                (PieceSender { core, table, op, limits, streams, stale }, pieces)
            })
            .collect();
        let done = join_all(work.into_iter().map(|(mut sender, pieces)| async move {
            let mut report = WriteReport::default();
            for piece in pieces {
                report.add(sender.send_until_settled(piece).await);
            }
            (sender.streams, report)
        }))
        .await;
        let mut report = WriteReport::default();
        for (streams, region_report) in done {
            for (region, stream) in streams {
                self.streams.entry(region).or_insert(stream);
            }
            report.add(region_report);
        }
        report
    }

    fn drop_removed_regions(&mut self, context: &WriterContext) {
        if self.streams.len() > MANY_STREAMS {
            let catalog = context.core.catalog();
            self.streams.retain(|region, _| catalog.route(*region).is_some());
        }
    }
}

/// Sorts, cuts and encodes a lane write for the table as it is now, which is also returned; waits for
/// routes while the table has none.
pub(super) async fn cut(
    context: &WriterContext,
    write: LaneWrite,
    limits: &Limits,
) -> Result<(Arc<TableInfo>, Vec<Piece>), ClientError> {
    let write = Arc::new(write);
    let mut made = 0;
    let mut stale = StaleWaits::default();
    loop {
        let catalog = context.core.catalog();
        let change = ExpectedChange::for_missing_route(&catalog);
        let earlier = context.table.clone();
        let table = altered(&earlier, &catalog).unwrap_or_else(|| earlier.clone());
        let current = table.clone();
        let piece_limits = context.limits;
        let shared_write = write.clone();
        let pieces = run_blocking(write.num_rows(), move || {
            let op = shared_write.op;
            let mut rows = shared_write.concatenated()?;
            if !Arc::ptr_eq(&earlier, &current) {
                rows = convert(op, &rows, &earlier.schema, &current.schema)?;
            }
            prepare(&current, &catalog, op, &rows, piece_limits)
        })
        .await;
        let error = match pieces {
            Ok(pieces) => return Ok((table, pieces)),
            Err(error @ ClientError::NoRoute(_)) => error,
            Err(error) => return Err(error),
        };
        made += 1;
        let options = &context.core.router.options;
        let wait = options.backoff.wait(made, None, options.ids.bits());
        if limits.exhausted(made, wait) {
            return Err(error);
        }
        let core = &context.core;
        let catalog = core.wait_for_change(&change, &mut stale, wait, limits.until).await?;
        if catalog.table(context.table.id).is_none() {
            return Err(ClientError::TableNotFound(context.table.name.clone()));
        }
    }
}

/// Runs CPU-bound work inline for few rows, and on a blocking thread above [`INLINE_ROWS`].
pub(crate) async fn run_blocking<T: Send + 'static>(
    rows: u64,
    work: impl FnOnce() -> Result<T, ClientError> + Send + 'static,
) -> Result<T, ClientError> {
    if rows <= INLINE_ROWS {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(ClientError::BadInput(format!("sorting the rows failed: {error}")))
    })
}

/// Groups pieces by region. Pieces are in key order, so those of one region are adjacent.
fn by_region(pieces: Vec<Piece>) -> Vec<(RegionId, Vec<Piece>)> {
    let mut regions: Vec<(RegionId, Vec<Piece>)> = Vec::new();
    for piece in pieces {
        match regions.last_mut() {
            Some((region, pieces)) if *region == piece.region => pieces.push(piece),
            _ => regions.push((piece.region, vec![piece])),
        }
    }
    regions
}
