//! Stream of one region's rows from the region's owner.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidewater_common::ids::{Epoch, RegionId};
use tidewater_common::keys::KeyRange;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_common::rows::decode_batch;
use tidewater_proto::v1::{self, Reason};
use tidewater_rpc::timed;
use tokio::time::Instant;
use tonic::Streaming;

use crate::catalog::{Catalog, RouteInfo, TableInfo};
use crate::core::Core;
use crate::error::ClientError;
use crate::outcome::FailedAttempt;
use crate::router::{Limits, Search};

/// Parameters of the requests to all regions of a scan.
#[derive(Debug, Clone)]
pub(super) struct ScanPlan {
    pub(super) table: Arc<TableInfo>,
    pub(super) projection: Vec<u32>,
    pub(super) schema: SchemaRef,
    pub(super) predicates: Vec<v1::Predicate>,
    pub(super) limit: Option<u64>,
    pub(super) count_only: bool,
    pub(super) unordered: bool,
    pub(super) as_of: Option<Epoch>,
}

/// The part of the scanned range in one region.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RegionRange {
    pub(super) route: Arc<RouteInfo>,
    pub(super) range: KeyRange,
}

/// A message of a region's stream.
#[derive(Debug)]
pub(super) enum RegionMessage {
    /// Rows in key order; at least one.
    Rows(RecordBatch),
    /// Number of rows in the region.
    Count(u64),
    /// End marker: the region was read completely.
    End,
}

/// Reasons why a region could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The route is stale; nothing was read.
    RouteStale(FailedAttempt),
    /// Retries are exhausted or pointless, or the stream was cut off after a message.
    Failed(FailedAttempt),
    /// An error that ends the scan without a retry.
    Fatal(ClientError),
}

/// An open stream of one region's rows.
pub(super) struct RegionRows {
    plan: ScanPlan,
    region: RegionId,
    messages: Streaming<v1::ScanResponse>,
    /// Maximum time between two messages with rows.
    idle_timeout: Duration,
    /// True once the end marker was received.
    done: bool,
}

impl RegionRows {
    /// Makes one attempt to open the stream at the group's leader.
    pub(super) async fn open(
        core: &Core,
        search: &mut Search,
        plan: &ScanPlan,
        region_range: &RegionRange,
        limits: &Limits,
    ) -> Result<Self, FailedAttempt> {
        let catalog: &Catalog = &core.catalog();
        let options = &core.router.options;
        let request = v1::ScanRequest {
            group_id: region_range.route.group.get(),
            region_id: region_range.route.region.get(),
            catalog_version: catalog.version().get(),
            schema_version: plan.table.schema.version().get(),
            projection: if plan.count_only { Vec::new() } else { plan.projection.clone() },
            start: region_range.range.start.clone().into(),
            end: region_range.range.end.clone().map(Into::into),
            predicates: plan.predicates.clone(),
            limit: plan.limit,
            count_only: plan.count_only,
            rows_format: v1::RowsFormat::Batch.into(),
            unordered: plan.unordered,
            as_of: plan.as_of.map(Epoch::get),
        };
        search.set_group(region_range.route.group);
        // The idle timeout also limits the first message. A count has a single message, so it gets the whole
        // deadline.
        let timeout = if plan.count_only {
            options.deadline
        } else {
            options.scan_idle_timeout.min(options.deadline)
        };
        let messages = core
            .attempt(catalog, search, limits.attempt(timeout), |channel| {
                let mut client = core.router.data(channel);
                async move { client.scan(timed(request, timeout)).await }
            })
            .await?;
        let region = region_range.route.region;
        Ok(Self { plan: plan.clone(), region, messages, idle_timeout: timeout, done: false })
    }

    /// Returns the next message; [`RegionMessage::End`] after the end marker.
    pub(super) async fn next(&mut self) -> Result<RegionMessage, ReadError> {
        // Messages without rows do not count: a server could send them without end.
        let until = Instant::now() + self.idle_timeout;
        loop {
            if self.done {
                return Ok(RegionMessage::End);
            }
            let message = match tokio::time::timeout_at(until, self.messages.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return Err(self.cut_off("the stream ended without its end marker")),
                Ok(Err(status)) => {
                    return Err(ReadError::Failed(FailedAttempt::from_status(&status)));
                }
                Err(_) => {
                    let why = format!("the stream sent no rows for {:?}", self.idle_timeout);
                    return Err(self.cut_off(&why));
                }
            };
            self.done = message.done;
            if self.plan.count_only {
                return Ok(RegionMessage::Count(message.row_count));
            }
            if message.rows.is_empty() {
                // The timeout above does not end messages that are always ready.
                if !self.done && Instant::now() >= until {
                    return Err(self.cut_off("the stream sends messages without rows"));
                }
                continue;
            }
            let batch = decode_batch(&message.rows, &self.plan.schema).map_err(|source| {
                ReadError::Fatal(ClientError::Damaged {
                    what: format!("scan of region {}", self.region),
                    source,
                })
            })?;
            if batch.num_rows() > 0 {
                return Ok(RegionMessage::Rows(batch));
            }
        }
    }

    /// Returns the error of a stream that ended before its end marker.
    fn cut_off(&self, why: &str) -> ReadError {
        let message = format!("region {}: {why}", self.region);
        ReadError::Failed(FailedAttempt {
            refusal: Refusal::new(Reason::Unavailable, message),
            effect: Effect::None,
            silent: true,
        })
    }
}
