//! One region's rows, from the region's owner.

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
use crate::pool::failed_attempt_of;
use crate::router::{Search, timed};

/// What is asked of every region.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) table: Arc<TableInfo>,
    pub(super) projection: Vec<u32>,
    pub(super) schema: SchemaRef,
    pub(super) predicates: Vec<v1::Predicate>,
    pub(super) limit: Option<u64>,
    pub(super) count_only: bool,
}

/// A part of the range that one region holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Share {
    pub(super) route: Arc<RouteInfo>,
    pub(super) range: KeyRange,
}

/// What a region sent.
#[derive(Debug)]
pub(super) enum Received {
    Rows(RecordBatch),
    Count(u64),
    /// The region said that this was all.
    End,
}

/// Why a region could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The route is out of date; nothing was read.
    Moved(FailedAttempt),
    /// Given up, or cut off after something was read.
    Missed(FailedAttempt),
    /// Not to be tried again.
    Fatal(ClientError),
}

/// An open stream of one region's rows.
pub(super) struct RegionRows {
    ask: Ask,
    region: RegionId,
    messages: Streaming<v1::ScanResponse>,
    idle: Duration,
    done: bool,
}

impl RegionRows {
    /// One attempt to open the stream at the group's leader.
    pub(super) async fn open(
        core: &Core,
        search: &mut Search,
        ask: &Ask,
        share: &Share,
    ) -> Result<Self, FailedAttempt> {
        let catalog: &Catalog = &core.catalog();
        let options = &core.router.options;
        let request = v1::ScanRequest {
            group_id: share.route.group.get(),
            region_id: share.route.region.get(),
            catalog_version: catalog.version().get(),
            schema_version: ask.table.schema.version().get(),
            projection: if ask.count_only { Vec::new() } else { ask.projection.clone() },
            start: share.range.start.clone().into(),
            end: share.range.end.clone().map(Into::into),
            predicates: ask.predicates.clone(),
            limit: ask.limit,
            count_only: ask.count_only,
            rows_format: v1::RowsFormat::Batch.into(),
        };
        search.set_group(share.route.group);
        // The first message may take as long as any other; a count has only one.
        let timeout = if ask.count_only { options.deadline } else { options.scan_idle_timeout };
        let messages = core
            .attempt(catalog, search, timeout, |channel| {
                let mut client = core.router.data(channel);
                async move { client.scan(timed(request, timeout)).await }
            })
            .await?;
        let region = share.route.region;
        Ok(Self { ask: ask.clone(), region, messages, idle: timeout, done: false })
    }

    /// What comes next.
    pub(super) async fn next(&mut self) -> Result<Received, ReadError> {
        loop {
            if self.done {
                return Ok(Received::End);
            }
            let message = match tokio::time::timeout(self.idle, self.messages.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return Err(self.cut_off("the stream ended before the last row")),
                Ok(Err(status)) => return Err(ReadError::Missed(failed_attempt_of(&status))),
                Err(_) => return Err(self.cut_off("the stream has gone silent")),
            };
            self.done = message.done;
            if self.ask.count_only {
                return Ok(Received::Count(message.row_count));
            }
            if message.rows.is_empty() {
                continue;
            }
            let batch = decode_batch(&message.rows, &self.ask.schema).map_err(|source| {
                ReadError::Fatal(ClientError::Damaged {
                    what: format!("scan of region {}", self.region),
                    source,
                })
            })?;
            if batch.num_rows() > 0 {
                return Ok(Received::Rows(batch));
            }
        }
    }

    fn cut_off(&self, why: &str) -> ReadError {
        let message = format!("region {}: {why}", self.region);
        ReadError::Missed(FailedAttempt {
            refusal: Refusal::new(Reason::Unavailable, message),
            effect: Effect::None,
            silent: true,
        })
    }
}
