//! Rows of one region, streamed from the region's owner.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidewater_common::ids::RegionId;
use tidewater_common::keys::KeyRange;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_common::rows::decode_batch;
use tidewater_proto::v1::{self, Reason};
use tonic::Streaming;

use crate::catalog::{Catalog, RouteInfo, TableInfo};
use crate::core::Core;
use crate::error::ClientError;
use crate::outcome::FailedAttempt;
use crate::pool::failed_attempt;
use crate::router::{LeaderSearch, timed};

/// Scan parameters common to all regions.
#[derive(Debug, Clone)]
pub(super) struct RegionScanSpec {
    pub(super) table: Arc<TableInfo>,
    pub(super) projection: Vec<u32>,
    pub(super) schema: SchemaRef,
    pub(super) predicates: Vec<v1::Predicate>,
    pub(super) limit: Option<u64>,
    pub(super) count_only: bool,
}

/// The part of a key range in one region.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RegionRange {
    pub(super) route: Arc<RouteInfo>,
    pub(super) range: KeyRange,
}

/// An event of a region's stream.
#[derive(Debug)]
pub(super) enum ScanEvent {
    Rows(RecordBatch),
    Count(u64),
    /// The region has sent all rows.
    End,
}

/// Error of reading a region.
#[derive(Debug)]
pub(super) enum RegionReadError {
    /// The route is out of date; nothing was read.
    StaleRoute(FailedAttempt),
    /// Retries are exhausted, or the stream broke after its first rows.
    Failed(FailedAttempt),
    /// A retry cannot help.
    Fatal(ClientError),
}

/// An open stream of one region's rows.
pub(super) struct RegionStream {
    spec: RegionScanSpec,
    region: RegionId,
    messages: Streaming<v1::ScanResponse>,
    idle: Duration,
    done: bool,
}

impl RegionStream {
    /// Makes one attempt to open the stream at the group's leader.
    pub(super) async fn open(
        core: &Core,
        search: &mut LeaderSearch,
        spec: &RegionScanSpec,
        region_range: &RegionRange,
    ) -> Result<Self, FailedAttempt> {
        let catalog: &Catalog = &core.catalog();
        let options = &core.router.options;
        let request = v1::ScanRequest {
            group_id: region_range.route.group.get(),
            region_id: region_range.route.region.get(),
            catalog_version: catalog.version().get(),
            schema_version: spec.table.schema.version().get(),
            projection: if spec.count_only { Vec::new() } else { spec.projection.clone() },
            start: region_range.range.start.clone().into(),
            end: region_range.range.end.clone().map(Into::into),
            predicates: spec.predicates.clone(),
            limit: spec.limit,
            count_only: spec.count_only,
        };
        search.retarget(region_range.route.group);
        // The first message may take as long as any other. A count has only one message.
        let timeout = if spec.count_only { options.deadline } else { options.scan_idle_timeout };
        let messages = core
            .attempt(catalog, search, timeout, |channel| {
                let mut client = core.router.data(channel);
                async move { client.scan(timed(request, timeout)).await }
            })
            .await?;
        let region = region_range.route.region;
        Ok(Self { spec: spec.clone(), region, messages, idle: timeout, done: false })
    }

    /// Returns the next event.
    pub(super) async fn next(&mut self) -> Result<ScanEvent, RegionReadError> {
        loop {
            if self.done {
                return Ok(ScanEvent::End);
            }
            let message = match tokio::time::timeout(self.idle, self.messages.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => {
                    return Err(self.interrupted("the stream ended before the last row"));
                }
                Ok(Err(status)) => return Err(RegionReadError::Failed(failed_attempt(&status))),
                Err(_) => return Err(self.interrupted("timed out waiting for the next message")),
            };
            self.done = message.done;
            if self.spec.count_only {
                return Ok(ScanEvent::Count(message.row_count));
            }
            if message.rows.is_empty() {
                continue;
            }
            let batch = decode_batch(&message.rows, &self.spec.schema).map_err(|source| {
                RegionReadError::Fatal(ClientError::Damaged {
                    what: format!("scan of region {}", self.region),
                    source,
                })
            })?;
            if batch.num_rows() > 0 {
                return Ok(ScanEvent::Rows(batch));
            }
        }
    }

    fn interrupted(&self, cause: &str) -> RegionReadError {
        let message = format!("region {}: {cause}", self.region);
        RegionReadError::Failed(FailedAttempt {
            refusal: Refusal::new(Reason::Unavailable, message),
            effect: Effect::None,
            unanswered: true,
        })
    }
}
