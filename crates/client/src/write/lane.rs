//! One lane: works on one batch at a time, on all of its regions at once.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use futures::future::join_all;
use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, RowOp};

use super::prepare::{Piece, PieceLimits, prepare};
use super::report::WriteReport;
use super::send::{Sender, Streams};
use crate::catalog::TableInfo;
use crate::core::Core;
use crate::error::ClientError;
use crate::router::Limits;

/// Above so many rows a batch is sorted and encoded off the runtime.
const INLINE_ROWS: u64 = 1_024;

/// Above so many streams a lane drops those of regions that are no more.
const MANY_STREAMS: usize = 256;

/// What is written at once: rows of one kind, in the order in which they were handed in.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) op: RowOp,
    /// At least one.
    pub(crate) rows: Vec<RecordBatch>,
}

impl Batch {
    pub(crate) fn num_rows(&self) -> u64 {
        self.rows.iter().map(|rows| rows.num_rows() as u64).sum()
    }

    fn whole(&self) -> Result<RecordBatch, ClientError> {
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

/// A lane with its streams.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    streams: Streams,
}

/// What all lanes of a writer share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) table: Arc<TableInfo>,
    pub(crate) limits: PieceLimits,
}

impl Lane {
    /// Writes a batch; returns when each of its rows is settled.
    pub(crate) async fn write(&mut self, shared: &Shared, batch: Batch) -> WriteReport {
        let limits = Limits::of(&shared.core.router.options);
        let (rows, op) = (batch.num_rows(), batch.op);
        let pieces = match cut(shared, batch, &limits).await {
            Ok(pieces) => pieces,
            Err(error) => {
                // Nothing was sent.
                let mut report = WriteReport { failed: rows, ..WriteReport::default() };
                report.add_cause(Refusal::new(Reason::InvalidArgument, error.to_string()));
                return report;
            }
        };
        self.forget_old_regions(shared);
        let work: Vec<_> = by_region(pieces)
            .into_iter()
            .map(|(region, pieces)| {
                let known = self.streams.remove(&region).map(|stream| (region, stream));
                let streams = known.into_iter().collect();
                let (core, table) = (&*shared.core, &*shared.table);
                (Sender { core, table, op, limits, streams }, pieces)
            })
            .collect();
        let done = join_all(work.into_iter().map(|(mut sender, pieces)| async move {
            let mut report = WriteReport::default();
            for piece in pieces {
                report.add(sender.settle(piece).await);
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

    fn forget_old_regions(&mut self, shared: &Shared) {
        if self.streams.len() > MANY_STREAMS {
            let catalog = shared.core.catalog();
            self.streams.retain(|region, _| catalog.route(*region).is_some());
        }
    }
}

/// Sorts, cuts and encodes; waits for routes while the table has none.
async fn cut(shared: &Shared, batch: Batch, limits: &Limits) -> Result<Vec<Piece>, ClientError> {
    let batch = Arc::new(batch);
    let mut made = 0;
    loop {
        let (catalog, table, bounds) = (shared.core.catalog(), shared.table.clone(), shared.limits);
        let (rows, held) = (batch.num_rows(), batch.clone());
        let pieces = off_the_runtime(rows, move || {
            prepare(&table, &catalog, held.op, &held.whole()?, bounds)
        })
        .await;
        let Err(ClientError::NoRoute(_)) = &pieces else { return pieces };
        made += 1;
        let options = &shared.core.router.options;
        let wait = options.backoff.wait(made, None, options.ids.bits());
        if limits.exhausted(made, wait) {
            return pieces;
        }
        tokio::time::sleep(wait).await;
        let catalog = shared.core.refreshed().await?;
        if catalog.table(shared.table.id).is_none() {
            return Err(ClientError::TableNotFound(shared.table.name.clone()));
        }
    }
}

/// Does what takes long for many rows on a thread of its own.
pub(crate) async fn off_the_runtime<T: Send + 'static>(
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

/// Pieces come in key order, so those of one region stand together.
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
