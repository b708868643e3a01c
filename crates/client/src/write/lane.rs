//! A lane: runs one write at a time, for all of its regions in parallel.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use futures::future::join_all;
use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, RowOp};

use super::prepare::{Piece, PieceLimits, prepare_pieces};
use super::report::WriteReport;
use super::send::{PieceSender, ProducerStreams};
use crate::catalog::TableInfo;
use crate::core::Core;
use crate::error::ClientError;
use crate::router::OperationLimits;

/// Row count above which a write is sorted and encoded on a blocking thread.
const INLINE_ROWS: u64 = 1_024;

/// Number of streams above which a lane drops the streams of removed regions.
const MAX_STREAMS: usize = 256;

/// Rows that a lane writes together: rows of one kind, in the order of arrival.
#[derive(Debug)]
pub(crate) struct LaneWrite {
    pub(crate) op: RowOp,
    /// At least one.
    pub(crate) rows: Vec<RecordBatch>,
}

impl LaneWrite {
    pub(crate) fn num_rows(&self) -> u64 {
        self.rows.iter().map(|rows| rows.num_rows() as u64).sum()
    }

    fn concatenated(&self) -> Result<RecordBatch, ClientError> {
        let bad = |reason: String| ClientError::BadInput(reason);
        match self.rows.as_slice() {
            [] => Err(bad("a write without rows".to_owned())),
            [rows] => Ok(rows.clone()),
            [first, ..] => {
                concat_batches(&first.schema(), &self.rows).map_err(|error| bad(error.to_string()))
            }
        }
    }
}

/// A lane with its producer streams.
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
    /// Runs a write; returns when each of its rows is settled.
    pub(crate) async fn run(&mut self, context: &WriterContext, write: LaneWrite) -> WriteReport {
        let limits = OperationLimits::of(&context.core.router.options);
        let rows = write.num_rows();
        let op = write.op;
        let pieces = match prepare_when_routed(context, write, &limits).await {
            Ok(pieces) => pieces,
            Err(error) => {
                // Nothing was sent.
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
                let table = &*context.table;
                (PieceSender { core, table, op, limits, streams }, pieces)
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
        for (streams, part) in done {
            for (region, stream) in streams {
                self.streams.entry(region).or_insert(stream);
            }
            report.add(part);
        }
        report
    }

    fn drop_removed_regions(&mut self, context: &WriterContext) {
        if self.streams.len() > MAX_STREAMS {
            let catalog = context.core.catalog();
            self.streams.retain(|region, _| catalog.route(*region).is_some());
        }
    }
}

/// Sorts, splits and encodes rows; waits for routes while the table has none.
async fn prepare_when_routed(
    context: &WriterContext,
    write: LaneWrite,
    limits: &OperationLimits,
) -> Result<Vec<Piece>, ClientError> {
    let write = Arc::new(write);
    let mut attempts = 0;
    loop {
        let catalog = context.core.catalog();
        let table = context.table.clone();
        let bounds = context.limits;
        let rows = write.num_rows();
        let shared_write = write.clone();
        let pieces = run_blocking_if_large(rows, move || {
            prepare_pieces(&table, &catalog, shared_write.op, &shared_write.concatenated()?, bounds)
        })
        .await;
        let Err(ClientError::NoRoute(_)) = &pieces else { return pieces };
        attempts += 1;
        let options = &context.core.router.options;
        let wait = options.backoff.wait(attempts, None, options.ids.bits());
        if limits.exhausted(attempts, wait) {
            return pieces;
        }
        tokio::time::sleep(wait).await;
        let catalog = context.core.refreshed().await?;
        if catalog.table(context.table.id).is_none() {
            return Err(ClientError::TableNotFound(context.table.name.clone()));
        }
    }
}

/// Runs CPU-bound work inline for few rows, and on a blocking thread for many.
pub(crate) async fn run_blocking_if_large<T: Send + 'static>(
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

/// Groups pieces by region. They are in key order, so those of one region are adjacent.
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
