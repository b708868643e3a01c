//! The task behind a scan: one region after the other, the next one opened ahead.

use std::sync::Arc;

use tidewater_common::keys::KeyRange;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::Reason;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::reader::Reader;
use super::region::{Ask, ReadError, Received, Share};
use super::spec::ScanSpec;
use super::stream::{Item, ScanStream};
use crate::catalog::Catalog;
use crate::client::{Client, projection};
use crate::core::Core;
use crate::error::ClientError;
use crate::outcome::{Attempts, FailedAttempt, RetryAction};
use crate::router::Limits;

/// Batches that wait for the reader.
const READY_BATCHES: usize = 2;

impl Client {
    /// Reads a table's rows in key order, as a stream.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`], [`ClientError::ColumnNotFound`]; later ones come in the
    /// stream.
    pub async fn scan(&self, spec: ScanSpec) -> Result<ScanStream, ClientError> {
        let table = self.table(&spec.table).await?;
        let (projection, schema) = projection(&table, spec.columns.as_deref())?;
        let ask = Ask {
            table,
            projection,
            schema: schema.clone(),
            predicates: spec.predicates,
            limit: spec.limit,
            count_only: false,
        };
        let (out, rows) = mpsc::channel(READY_BATCHES);
        let (client, range) = (self.clone(), spec.range);
        let task = tokio::spawn(async move {
            let mut scan = Scan::new(client.core.clone(), ask);
            let end = scan.run(range, Some(&out)).await.map(|_| None);
            let _ = out.send(end).await;
        });
        let _task = AbortOnDropHandle::new(task);
        Ok(ScanStream { schema, table: spec.table, rows, ended: false, _task })
    }
}

/// One scan, or one share of a count.
pub(super) struct Scan {
    core: Arc<Core>,
    ask: Ask,
    /// For the place at which the scan stands; they begin anew with each region read to its end.
    attempts: Attempts,
    limits: Limits,
    /// Rows yielded or counted, in regions that were read to their end or are being read.
    rows: u64,
}

impl Scan {
    pub(super) fn new(core: Arc<Core>, ask: Ask) -> Self {
        let limits = Limits::of(&core.router.options);
        Self { core, ask, attempts: Attempts::default(), limits, rows: 0 }
    }

    /// Reads `range` and sends the rows to `out`; returns their number.
    pub(super) async fn run(
        &mut self,
        range: KeyRange,
        out: Option<&mpsc::Sender<Item>>,
    ) -> Result<u64, ClientError> {
        let mut rest = range;
        let mut ahead: Option<Reader> = None;
        while !rest.is_empty() && self.wanted() != Some(0) {
            let catalog = self.core.catalog();
            let Some(share) = first_share(&catalog, &self.ask, &rest) else {
                self.look_again(no_route(&self.ask)).await?;
                continue;
            };
            let reader = ahead.take().filter(|reader| reader.share == share);
            let mut reader = reader.unwrap_or_else(|| self.start(share));
            let after =
                reader.share.range.end.clone().map(|end| KeyRange::new(end, rest.end.clone()));
            ahead = self.start_ahead(&catalog, after.as_ref());
            let before = self.rows;
            match self.forward(&mut reader, out).await {
                Ok(()) => {
                    self.attempts = Attempts::default();
                    self.limits = Limits::of(&self.core.router.options);
                    let Some(after) = after else { break };
                    rest = after;
                }
                Err(ReadError::Fatal(error)) => return Err(error),
                Err(ReadError::Moved(miss)) => self.look_again(miss).await?,
                Err(ReadError::Missed(miss)) if out.is_some() && self.rows > before => {
                    return Err(ClientError::ScanInterrupted {
                        table: self.ask.table.name.clone(),
                        region: reader.share.route.region,
                        rows: self.rows,
                        cause: Box::new(miss.refusal),
                    });
                }
                Err(ReadError::Missed(miss)) => {
                    // Nobody has seen what was counted of this region.
                    self.rows = before;
                    self.again(miss).await?;
                }
            }
        }
        Ok(self.rows)
    }

    /// Passes a region's rows on until its end.
    async fn forward(
        &mut self,
        reader: &mut Reader,
        out: Option<&mpsc::Sender<Item>>,
    ) -> Result<(), ReadError> {
        loop {
            match reader.next().await? {
                Received::End => return Ok(()),
                Received::Count(rows) => self.rows += rows,
                Received::Rows(batch) => {
                    let batch = match self.wanted().map(usize::try_from) {
                        Some(Ok(wanted)) if wanted < batch.num_rows() => batch.slice(0, wanted),
                        _ => batch,
                    };
                    self.rows += batch.num_rows() as u64;
                    if let Some(out) = out
                        && out.send(Ok(Some(batch))).await.is_err()
                    {
                        return Err(ReadError::Fatal(ClientError::Closed(
                            self.ask.table.name.clone(),
                        )));
                    }
                    if self.wanted() == Some(0) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Rows that may still be yielded; `None`: any number.
    fn wanted(&self) -> Option<u64> {
        self.ask.limit.map(|limit| limit.saturating_sub(self.rows))
    }

    fn start(&self, share: Share) -> Reader {
        let ask = Ask { limit: self.wanted(), ..self.ask.clone() };
        Reader::start(self.core.clone(), ask, share)
    }

    /// With a limit, the next region is often not needed at all.
    fn start_ahead(&self, catalog: &Catalog, after: Option<&KeyRange>) -> Option<Reader> {
        if self.ask.limit.is_some() {
            return None;
        }
        first_share(catalog, &self.ask, after?).map(|share| self.start(share))
    }

    /// Has the catalog fetched before the next attempt.
    async fn look_again(&mut self, miss: FailedAttempt) -> Result<(), ClientError> {
        self.again(miss).await?;
        let catalog = self.core.refresh_catalog().await?;
        match catalog.table(self.ask.table.id) {
            None => Err(ClientError::TableNotFound(self.ask.table.name.clone())),
            Some(table) if table.schema.version() != self.ask.table.schema.version() => {
                Err(ClientError::BadInput(format!(
                    "the columns of table {:?} were changed; start the scan again",
                    self.ask.table.name
                )))
            }
            Some(_) => Ok(()),
        }
    }

    /// Waits before the next attempt, or gives up.
    async fn again(&mut self, miss: FailedAttempt) -> Result<(), ClientError> {
        self.attempts.record(&miss);
        let options = &self.core.router.options;
        let made = self.attempts.made();
        let wait = options.backoff.wait(made, miss.refusal.retry_after, options.ids.bits());
        let what = format!("scan of table {:?}", self.ask.table.name);
        let cause = Box::new(miss.refusal.clone());
        match miss.retry_action() {
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
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// What the region that holds the start of `range` holds of it.
pub(super) fn first_share(catalog: &Catalog, ask: &Ask, range: &KeyRange) -> Option<Share> {
    if range.is_empty() {
        return None;
    }
    let route = catalog.route_for(ask.table.id, &range.start)?.clone();
    let range = range.intersection(&route.range);
    Some(Share { route, range })
}

fn no_route(ask: &Ask) -> FailedAttempt {
    FailedAttempt {
        refusal: Refusal::new(
            Reason::RegionNotFound,
            format!("table {:?} has no route for some of its keys", ask.table.name),
        ),
        effect: Effect::None,
        silent: false,
    }
}
