//! The background task of a scan: one region after the other, the next one opened ahead.

use std::sync::Arc;

use tidewater_common::keys::KeyRange;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::Reason;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::reader::RegionReader;
use super::region::{RegionRange, RegionReadError, RegionScanSpec, ScanEvent};
use super::spec::ScanSpec;
use super::stream::{ScanItem, ScanStream};
use crate::catalog::Catalog;
use crate::client::{Client, projection};
use crate::core::Core;
use crate::error::ClientError;
use crate::outcome::{Attempts, FailedAttempt, RetryAction};
use crate::router::OperationLimits;

/// Number of batches that wait for the caller.
const READY_BATCHES: usize = 2;

impl Client {
    /// Scans a table's rows in key order, as a stream.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`], [`ClientError::ColumnNotFound`]; later errors are items of the
    /// stream.
    pub async fn scan(&self, spec: ScanSpec) -> Result<ScanStream, ClientError> {
        let table = self.table(&spec.table).await?;
        let (projection, schema) = projection(&table, spec.columns.as_deref())?;
        let region_spec = RegionScanSpec {
            table,
            projection,
            schema: schema.clone(),
            predicates: spec.predicates,
            limit: spec.limit,
            count_only: false,
        };
        let (out, rows) = mpsc::channel(READY_BATCHES);
        let client = self.clone();
        let range = spec.range;
        let task = tokio::spawn(async move {
            let mut scan = ScanDriver::new(client.core.clone(), region_spec);
            let end = scan.run(range, Some(&out)).await.map(|_| None);
            let _ = out.send(end).await;
        });
        let _task = AbortOnDropHandle::new(task);
        Ok(ScanStream { schema, table: spec.table, rows, ended: false, _task })
    }
}

/// One scan, or one region range of a count.
pub(super) struct ScanDriver {
    core: Arc<Core>,
    spec: RegionScanSpec,
    /// Failed attempts at the current region; reset after each region.
    attempts: Attempts,
    limits: OperationLimits,
    /// Rows yielded or counted, including those of the current region.
    rows: u64,
}

impl ScanDriver {
    pub(super) fn new(core: Arc<Core>, spec: RegionScanSpec) -> Self {
        let limits = OperationLimits::of(&core.router.options);
        Self { core, spec, attempts: Attempts::default(), limits, rows: 0 }
    }

    /// Reads `range` and sends the rows to `out`; returns their number.
    pub(super) async fn run(
        &mut self,
        range: KeyRange,
        out: Option<&mpsc::Sender<ScanItem>>,
    ) -> Result<u64, ClientError> {
        let mut rest = range;
        let mut ahead: Option<RegionReader> = None;
        while !rest.is_empty() && self.remaining() != Some(0) {
            let catalog = self.core.catalog();
            let Some(region_range) = first_region_range(&catalog, &self.spec, &rest) else {
                self.refresh_before_retry(no_route(&self.spec)).await?;
                continue;
            };
            let reader = ahead.take().filter(|reader| reader.region_range == region_range);
            let mut reader = reader.unwrap_or_else(|| self.start(region_range));
            let after = reader
                .region_range
                .range
                .end
                .clone()
                .map(|end| KeyRange::new(end, rest.end.clone()));
            ahead = self.open_ahead(&catalog, after.as_ref());
            let before = self.rows;
            match self.forward(&mut reader, out).await {
                Ok(()) => {
                    self.attempts = Attempts::default();
                    self.limits = OperationLimits::of(&self.core.router.options);
                    let Some(after) = after else { break };
                    rest = after;
                }
                Err(RegionReadError::Fatal(error)) => return Err(error),
                Err(RegionReadError::StaleRoute(failure)) => {
                    self.refresh_before_retry(failure).await?
                }
                Err(RegionReadError::Failed(failure)) if out.is_some() && self.rows > before => {
                    return Err(ClientError::ScanInterrupted {
                        table: self.spec.table.name.clone(),
                        region: reader.region_range.route.region,
                        rows: self.rows,
                        cause: Box::new(failure.refusal),
                    });
                }
                Err(RegionReadError::Failed(failure)) => {
                    // The partial count of this region was not reported.
                    self.rows = before;
                    self.wait_before_retry(failure).await?;
                }
            }
        }
        Ok(self.rows)
    }

    /// Sends a region's rows to `out` until its end.
    async fn forward(
        &mut self,
        reader: &mut RegionReader,
        out: Option<&mpsc::Sender<ScanItem>>,
    ) -> Result<(), RegionReadError> {
        loop {
            match reader.next().await? {
                ScanEvent::End => return Ok(()),
                ScanEvent::Count(rows) => self.rows += rows,
                ScanEvent::Rows(batch) => {
                    let batch = match self.remaining().map(usize::try_from) {
                        Some(Ok(remaining)) if remaining < batch.num_rows() => {
                            batch.slice(0, remaining)
                        }
                        _ => batch,
                    };
                    self.rows += batch.num_rows() as u64;
                    if let Some(out) = out
                        && out.send(Ok(Some(batch))).await.is_err()
                    {
                        return Err(RegionReadError::Fatal(ClientError::Closed(
                            self.spec.table.name.clone(),
                        )));
                    }
                    if self.remaining() == Some(0) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Returns the number of rows that may still be yielded; `None`: unlimited.
    fn remaining(&self) -> Option<u64> {
        self.spec.limit.map(|limit| limit.saturating_sub(self.rows))
    }

    fn start(&self, region_range: RegionRange) -> RegionReader {
        let spec = RegionScanSpec { limit: self.remaining(), ..self.spec.clone() };
        RegionReader::start(self.core.clone(), spec, region_range)
    }

    /// Opens the next region ahead, except with a limit, where it is often not needed.
    fn open_ahead(&self, catalog: &Catalog, after: Option<&KeyRange>) -> Option<RegionReader> {
        if self.spec.limit.is_some() {
            return None;
        }
        first_region_range(catalog, &self.spec, after?).map(|region_range| self.start(region_range))
    }

    /// Waits, and refreshes the catalog before the next attempt.
    async fn refresh_before_retry(&mut self, failure: FailedAttempt) -> Result<(), ClientError> {
        self.wait_before_retry(failure).await?;
        let catalog = self.core.refreshed().await?;
        match catalog.table(self.spec.table.id) {
            None => Err(ClientError::TableNotFound(self.spec.table.name.clone())),
            Some(table) if table.schema.version() != self.spec.table.schema.version() => {
                Err(ClientError::BadInput(format!(
                    "the columns of table {:?} were changed; start the scan again",
                    self.spec.table.name
                )))
            }
            Some(_) => Ok(()),
        }
    }

    /// Waits before the next attempt, or returns the final error.
    async fn wait_before_retry(&mut self, failure: FailedAttempt) -> Result<(), ClientError> {
        self.attempts.record(&failure);
        let options = &self.core.router.options;
        let made = self.attempts.made();
        let wait = options.backoff.wait(made, failure.refusal.retry_after, options.ids.bits());
        let what = format!("scan of table {:?}", self.spec.table.name);
        let cause = Box::new(failure.refusal.clone());
        match failure.retry_action() {
            RetryAction::Stop | RetryAction::NewProducer => {
                return Err(ClientError::Refused { what, refusal: cause });
            }
            RetryAction::RetryFew if self.attempts.has_too_many_faults() => {
                let elapsed = self.limits.elapsed();
                return Err(ClientError::RetriesExhausted { what, attempts: made, elapsed, cause });
            }
            RetryAction::Retry
            | RetryAction::RetryFew
            | RetryAction::FindLeader
            | RetryAction::RefreshCatalog => {}
        }
        if self.limits.exhausted(made, wait) {
            let elapsed = self.limits.elapsed();
            return Err(ClientError::RetriesExhausted { what, attempts: made, elapsed, cause });
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Returns the part of `range` in the region that holds its start.
pub(super) fn first_region_range(
    catalog: &Catalog,
    spec: &RegionScanSpec,
    range: &KeyRange,
) -> Option<RegionRange> {
    if range.is_empty() {
        return None;
    }
    let route = catalog.route_for(spec.table.id, &range.start)?.clone();
    let range = range.intersection(&route.range);
    Some(RegionRange { route, range })
}

fn no_route(spec: &RegionScanSpec) -> FailedAttempt {
    FailedAttempt {
        refusal: Refusal::new(
            Reason::RegionNotFound,
            format!("table {:?} has no route for some of its keys", spec.table.name),
        ),
        effect: Effect::None,
        unanswered: false,
    }
}
