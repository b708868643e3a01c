//! Reads by key.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use tidewater_common::ids::Epoch;
use tidewater_common::rows::decode_batch;
use tidewater_proto::v1::{self, RowOp};
use tidewater_rpc::timed;
use tokio::time::Instant;

use crate::catalog::{Catalog, RouteInfo, TableInfo};
use crate::client::{Client, projection};
use crate::core::Repeat;
use crate::error::ClientError;
use crate::outcome::RetryAction;
use crate::stale::{ExpectedChange, StaleWaits, UsedCatalog};
use crate::write::{Piece, PieceLimits, check, prepare};

/// Maximum number of keys of one request; equals the server's limit.
const MAX_KEYS: usize = 1_000;
/// Maximum encoded size of one request's keys, in bytes.
const MAX_KEY_BYTES: usize = 4 << 20;

impl Client {
    /// Returns the rows with these keys, in key order. `keys` has the columns of the primary key, in the
    /// order of the key. A key without a row is skipped.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`], [`ClientError::ColumnNotFound`], [`ClientError::BadInput`],
    /// [`ClientError::RetriesExhausted`].
    pub async fn get(
        &self,
        table: &str,
        keys: &RecordBatch,
        columns: Option<&[String]>,
    ) -> Result<RecordBatch, ClientError> {
        self.get_as_of(table, keys, columns, None).await
    }

    /// As [`get`](Self::get), with the rows of a complete epoch; `None`: the newest rows.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`ClientError::Refused`] for an epoch that is not complete or can no longer be read.
    pub async fn get_as_of(
        &self,
        table: &str,
        keys: &RecordBatch,
        columns: Option<&[String]>,
        as_of: Option<Epoch>,
    ) -> Result<RecordBatch, ClientError> {
        let deadline = Instant::now() + self.options().deadline;
        let mut failures: u32 = 0;
        let mut stale = StaleWaits::default();
        loop {
            let (table, as_of) = self.core.table_as_of(table, as_of).await?;
            let (ids, schema) = projection(&table, columns)?;
            check(&table, RowOp::Delete, keys)?;
            let wanted = (ids.as_slice(), as_of);
            let failed = match self.get_once(&table, keys, wanted).await {
                Ok(found) => return rows(&table, &schema, &found),
                Err(failed) => failed,
            };
            failures = failures.saturating_add(1);
            let options = self.options();
            let wait = options.backoff.wait(failures, None, options.ids.bits());
            match failed.change {
                Some(change) if Instant::now() + wait < deadline => {
                    self.core.wait_for_change(&change, &mut stale, wait, deadline).await?;
                }
                _ => return Err(failed.error),
            }
        }
    }

    /// Reads from all regions by the current catalog. Responses are in key order, because pieces are.
    async fn get_once(
        &self,
        table: &TableInfo,
        keys: &RecordBatch,
        wanted: (&[u32], Option<Epoch>),
    ) -> Result<Vec<v1::GetResponse>, FailedGet> {
        let catalog = self.catalog();
        let limits = PieceLimits { rows: MAX_KEYS, bytes: MAX_KEY_BYTES };
        let failed = |error, route| FailedGet::new(error, &catalog, table, route);
        let pieces = prepare(table, &catalog, RowOp::Delete, keys, limits)
            .map_err(|error| failed(error, None))?;
        let mut responses = Vec::new();
        for piece in pieces {
            let route = catalog.route(piece.region);
            let group = route
                .map(|route| route.group)
                .ok_or_else(|| failed(ClientError::NoRoute(table.name.clone()), None))?;
            let version = catalog.version().get();
            let request = request(table, &piece, group.get(), version, wanted);
            let router = &self.core.router;
            let what = format!("get from table {:?}", table.name);
            let longest: Duration = self.options().attempt_timeout;
            let response = self
                .core
                .call(group, &what, Repeat::Read, longest, |channel, timeout| {
                    let mut client = router.data(channel);
                    let request = request.clone();
                    async move { client.get(timed(request, timeout)).await }
                })
                .await
                .map_err(|error| failed(error, route))?;
            responses.push(response);
        }
        Ok(responses)
    }
}

/// Error of an attempt.
struct FailedGet {
    error: ClientError,
    /// Change of the catalog after which another attempt is useful.
    change: Option<ExpectedChange>,
}

impl FailedGet {
    fn new(
        error: ClientError,
        catalog: &Catalog,
        table: &TableInfo,
        route: Option<&Arc<RouteInfo>>,
    ) -> Self {
        let change = match &error {
            ClientError::Refused { refusal, .. }
                if refusal.retry_action() == RetryAction::RefreshCatalog =>
            {
                let used = UsedCatalog::new(catalog, Some(table), route);
                Some(ExpectedChange::new(refusal, &used))
            }
            ClientError::NoRoute(_) => Some(ExpectedChange::for_missing_route(catalog)),
            _ => None,
        };
        Self { error, change }
    }
}

fn rows(
    table: &TableInfo,
    schema: &SchemaRef,
    found: &[v1::GetResponse],
) -> Result<RecordBatch, ClientError> {
    let batches = found
        .iter()
        .filter(|response| !response.rows.is_empty())
        .map(|response| decode_batch(&response.rows, schema))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| ClientError::Damaged {
            what: format!("get from table {:?}", table.name),
            source,
        })?;
    concat_batches(schema, &batches)
        .map_err(|error| ClientError::BadInput(format!("table {:?}: {error}", table.name)))
}

fn request(
    table: &TableInfo,
    piece: &Piece,
    group_id: u64,
    catalog_version: u64,
    (projection, as_of): (&[u32], Option<Epoch>),
) -> v1::GetRequest {
    v1::GetRequest {
        group_id,
        region_id: piece.region.get(),
        catalog_version,
        schema_version: table.schema.version().get(),
        keys: piece.rows.clone(),
        projection: projection.to_vec(),
        rows_format: v1::RowsFormat::Batch.into(),
        as_of: as_of.map(Epoch::get),
    }
}
