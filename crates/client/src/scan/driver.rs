//! Task of a scan: reads the regions one after the other, and opens the next one ahead.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::keys::KeyRange;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::errors::{epoch_not_readable, interrupted, is_epoch_error, no_route, operation};
use super::reader::RegionReader;
use super::region::{ReadError, RegionMessage, RegionRange, ScanPlan};
use super::spec::ScanSpec;
use super::stream::{Item, ScanStream};
use crate::catalog::Catalog;
use crate::client::{Client, projection};
use crate::core::Core;
use crate::error::ClientError;
use crate::outcome::{Attempts, FailedAttempt, RetryAction};
use crate::router::Limits;
use crate::stale::{ExpectedChange, StaleWaits, UsedCatalog};

/// Capacity of the channel to the caller, in batches.
const READY_BATCHES: usize = 2;
/// Silence of the current region after which the stream of the next region is closed: it may hold the
/// memory for which the current one waits.
pub(super) const READ_AHEAD_SILENCE: Duration = Duration::from_secs(2);

impl Client {
    /// Starts a scan; returns a stream of the table's rows, in key order unless the spec
    /// allows any order.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`], [`ClientError::ColumnNotFound`]. The stream returns later errors.
    pub async fn scan(&self, spec: ScanSpec) -> Result<ScanStream, ClientError> {
        let (table, as_of) = self.core.table_as_of(&spec.table, spec.as_of).await?;
        let (projection, schema) = projection(&table, spec.columns.as_deref())?;
        let plan = ScanPlan {
            table,
            projection,
            schema: schema.clone(),
            predicates: spec.predicates,
            limit: spec.limit,
            count_only: false,
            unordered: spec.unordered,
            as_of,
        };
        let (out, rows) = mpsc::channel(READY_BATCHES);
        let client = self.clone();
        let range = spec.range;
        let task = tokio::spawn(async move {
            let mut scan = TableScan::new(client.core.clone(), plan);
            let end = scan.run(range, Some(&out)).await.map(|_| None);
            let _ = out.send(end).await;
        });
        let _task = AbortOnDropHandle::new(task);
        Ok(ScanStream { schema, table: spec.table, rows, ended: false, _task })
    }
}

/// A scan, or the count of one range.
pub(super) struct TableScan {
    core: Arc<Core>,
    plan: ScanPlan,
    /// Attempts at the current region; reset when a region is complete.
    attempts: Attempts,
    /// Limits of those attempts; reset with them.
    limits: Limits,
    stale: StaleWaits,
    /// Rows yielded or counted in complete regions and in the current one.
    rows: u64,
}

impl TableScan {
    pub(super) fn new(core: Arc<Core>, plan: ScanPlan) -> Self {
        let limits = Limits::of(&core.router.options);
        let stale = StaleWaits::default();
        Self { core, plan, attempts: Attempts::default(), limits, stale, rows: 0 }
    }

    /// Reads `range` and sends the rows to `out`; returns their number.
    pub(super) async fn run(
        &mut self,
        range: KeyRange,
        out: Option<&mpsc::Sender<Item>>,
    ) -> Result<u64, ClientError> {
        let mut rest = range;
        let mut ahead: Option<RegionReader> = None;
        while !rest.is_empty() && self.remaining_limit() != Some(0) {
            let catalog = self.core.catalog();
            let Some(next) = first_region_range(&catalog, &self.plan, &rest) else {
                let change = ExpectedChange::for_missing_route(&catalog);
                self.wait_for_routes(no_route(&self.plan), &change).await?;
                continue;
            };
            let life = self.core.router.options.scan_read_ahead;
            let usable = |reader: &RegionReader| reader.region_range == next && reader.age() < life;
            let reader = ahead.take().filter(usable);
            let mut reader = reader.unwrap_or_else(|| self.start_reader(next));
            let after = reader
                .region_range
                .range
                .end
                .clone()
                .map(|end| KeyRange::new(end, rest.end.clone()));
            ahead = self.start_next_reader(&catalog, after.as_ref());
            let region = reader.region_range.route.region;
            let before = self.rows;
            match self.forward(&mut reader, &mut ahead, out).await {
                Ok(()) => {
                    self.attempts = Attempts::default();
                    self.limits = Limits::of(&self.core.router.options);
                    let Some(after) = after else { break };
                    rest = after;
                }
                Err(ReadError::Fatal(error)) => return Err(error),
                Err(ReadError::RouteStale(failure)) if is_epoch_error(&failure) => {
                    // The next scan begins with the current epoch.
                    self.core.refresh_catalog().await?;
                    let yielded = if out.is_some() { self.rows } else { 0 };
                    return Err(epoch_not_readable(&self.plan, region, yielded, failure));
                }
                Err(ReadError::RouteStale(failure)) => {
                    let route = &reader.region_range.route;
                    let used = UsedCatalog::new(&catalog, Some(&self.plan.table), Some(route));
                    let change = ExpectedChange::new(&failure.refusal, &used);
                    self.wait_for_routes(failure, &change).await?;
                }
                Err(ReadError::Failed(failure)) if out.is_some() && self.rows > before => {
                    return Err(interrupted(&self.plan, region, self.rows, failure));
                }
                Err(ReadError::Failed(failure)) => {
                    // The caller has not received the partial count of this region.
                    self.rows = before;
                    self.back_off(failure).await?;
                }
            }
        }
        Ok(self.rows)
    }

    /// Forwards a region's rows to the caller until the end of the region. Closes the stream of the next
    /// region when that takes long.
    async fn forward(
        &mut self,
        reader: &mut RegionReader,
        ahead: &mut Option<RegionReader>,
        out: Option<&mpsc::Sender<Item>>,
    ) -> Result<(), ReadError> {
        loop {
            let message = match ahead {
                None => reader.next().await,
                Some(opened) => {
                    let life = self.core.router.options.scan_read_ahead;
                    let left = life.saturating_sub(opened.age()).min(READ_AHEAD_SILENCE);
                    match tokio::time::timeout(left, reader.next()).await {
                        Ok(message) => message,
                        Err(_) => {
                            *ahead = None;
                            continue;
                        }
                    }
                }
            };
            match message? {
                RegionMessage::End => return Ok(()),
                RegionMessage::Count(rows) => self.rows += rows,
                RegionMessage::Rows(batch) => {
                    let batch = match self.remaining_limit().map(usize::try_from) {
                        Some(Ok(limit)) if limit < batch.num_rows() => batch.slice(0, limit),
                        _ => batch,
                    };
                    self.rows += batch.num_rows() as u64;
                    if let Some(out) = out
                        && out.send(Ok(Some(batch))).await.is_err()
                    {
                        return Err(ReadError::Fatal(ClientError::Closed(
                            self.plan.table.name.clone(),
                        )));
                    }
                    if self.remaining_limit() == Some(0) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Rows that the scan may still yield; `None` if unlimited.
    fn remaining_limit(&self) -> Option<u64> {
        self.plan.limit.map(|limit| limit.saturating_sub(self.rows))
    }

    fn start_reader(&self, region_range: RegionRange) -> RegionReader {
        self.start_reader_within(region_range, self.limits)
    }

    fn start_reader_within(&self, region_range: RegionRange, limits: Limits) -> RegionReader {
        let plan = ScanPlan { limit: self.remaining_limit(), ..self.plan.clone() };
        RegionReader::start(self.core.clone(), plan, region_range, limits)
    }

    /// Starts to read the next region ahead. A scan with a limit often does not need the next region, so it
    /// does not read ahead.
    fn start_next_reader(
        &self,
        catalog: &Catalog,
        after: Option<&KeyRange>,
    ) -> Option<RegionReader> {
        if self.plan.limit.is_some() {
            return None;
        }
        let limits = Limits::of(&self.core.router.options);
        let next = first_region_range(catalog, &self.plan, after?)?;
        Some(self.start_reader_within(next, limits))
    }

    /// Waits for the catalog of the next attempt.
    ///
    /// # Errors
    /// The limits are reached, or the table was dropped or altered.
    async fn wait_for_routes(
        &mut self,
        failure: FailedAttempt,
        change: &ExpectedChange,
    ) -> Result<(), ClientError> {
        let wait = self.record_failure(failure)?;
        let until = self.limits.until;
        let catalog = self.core.wait_for_change(change, &mut self.stale, wait, until).await?;
        match catalog.table(self.plan.table.id) {
            None => Err(ClientError::TableNotFound(self.plan.table.name.clone())),
            Some(table) if table.schema.version() != self.plan.table.schema.version() => {
                Err(ClientError::BadInput(format!(
                    "the columns of table {:?} were altered during the scan; start the scan again",
                    self.plan.table.name
                )))
            }
            Some(_) => Ok(()),
        }
    }

    /// Records a failed attempt and waits before the next one.
    ///
    /// # Errors
    /// A retry does not help, or the limits are reached.
    async fn back_off(&mut self, failure: FailedAttempt) -> Result<(), ClientError> {
        let wait = self.record_failure(failure)?;
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Records a failed attempt; returns the wait before the next one.
    ///
    /// # Errors
    /// A retry does not help, or the limits are reached.
    fn record_failure(&mut self, failure: FailedAttempt) -> Result<Duration, ClientError> {
        self.attempts.record(&failure);
        let options = &self.core.router.options;
        let made = self.attempts.made();
        let wait = options.backoff.wait(made, failure.refusal.retry_after, options.ids.bits());
        let what = operation(&self.plan);
        let cause = Box::new(failure.refusal.clone());
        match failure.retry_action() {
            RetryAction::Stop | RetryAction::NewProducer => {
                return Err(ClientError::Refused { what, refusal: cause });
            }
            RetryAction::RepeatFew if self.attempts.too_many_faults() => {
                let elapsed = self.limits.elapsed();
                return Err(ClientError::RetriesExhausted { what, attempts: made, elapsed, cause });
            }
            RetryAction::Repeat
            | RetryAction::RepeatIfAsked
            | RetryAction::RepeatFew
            | RetryAction::FindLeader
            | RetryAction::RefreshCatalog => {}
        }
        if self.limits.exhausted(made, wait) {
            let elapsed = self.limits.elapsed();
            return Err(ClientError::RetriesExhausted { what, attempts: made, elapsed, cause });
        }
        Ok(wait)
    }
}

/// Returns the part of `range` in the region that contains its start.
pub(super) fn first_region_range(
    catalog: &Catalog,
    plan: &ScanPlan,
    range: &KeyRange,
) -> Option<RegionRange> {
    if range.is_empty() {
        return None;
    }
    let route = catalog.route_for(plan.table.id, &range.start)?.clone();
    let range = range.intersection(&route.range);
    Some(RegionRange { route, range })
}
