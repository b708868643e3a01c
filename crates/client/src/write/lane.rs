//! One lane: works on one batch at a time, on all of its regions at once.

use std::sync::Arc;

use arrow::array::RecordBatch;
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
const INLINE_ROWS: usize = 1_024;

/// Above so many streams a lane drops those of regions that are no more.
const MANY_STREAMS: usize = 256;

/// A batch to be written.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) op: RowOp,
    pub(crate) rows: RecordBatch,
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
        let (rows, op) = (batch.rows.num_rows() as u64, batch.op);
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
        let pieces = if batch.rows.num_rows() <= INLINE_ROWS {
            prepare(&table, &catalog, batch.op, &batch.rows, bounds)
        } else {
            let batch = batch.clone();
            tokio::task::spawn_blocking(move || {
                prepare(&table, &catalog, batch.op, &batch.rows, bounds)
            })
            .await
            .unwrap_or_else(|error| {
                Err(ClientError::BadInput(format!("sorting the rows failed: {error}")))
            })
        };
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
