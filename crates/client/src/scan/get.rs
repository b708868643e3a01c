//! Reads by key.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use tidewater_common::rows::decode_batch;
use tidewater_proto::v1::{self, RowOp};
use tokio::time::Instant;

use crate::catalog::TableInfo;
use crate::client::{Client, projection};
use crate::core::RetryMode;
use crate::error::ClientError;
use crate::outcome::{RetryAction, retry_action};
use crate::router::timed;
use crate::write::{Piece, PieceLimits, check_batch, prepare_pieces};

/// Maximum number of keys in a request, equal to the server's.
const MAX_KEYS: usize = 1_000;

impl Client {
    /// Returns the rows with these keys (columns of the primary key, in key order), in key order. Keys
    /// without a row are skipped.
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
        let table = self.table(table).await?;
        let (ids, schema) = projection(&table, columns)?;
        check_batch(&table, RowOp::Delete, keys)?;
        let until = Instant::now() + self.options().deadline;
        let mut failures: u32 = 0;
        let found = loop {
            let error = match self.get_once(&table, keys, &ids).await {
                Ok(found) => break found,
                Err(error) => error,
            };
            let moved = match &error {
                ClientError::Refused { refusal, .. } => {
                    retry_action(refusal) == RetryAction::RefreshCatalog
                }
                ClientError::NoRoute(_) => true,
                _ => false,
            };
            failures = failures.saturating_add(1);
            let options = self.options();
            let wait = options.backoff.wait(failures, None, options.ids.bits());
            if !moved || Instant::now() + wait >= until {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            self.core.refreshed().await?;
        };
        let batches = found
            .iter()
            .filter(|answer| !answer.rows.is_empty())
            .map(|answer| decode_batch(&answer.rows, &schema))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| ClientError::Damaged {
                what: format!("get from table {:?}", table.name),
                source,
            })?;
        concat_batches(&schema, &batches)
            .map_err(|error| ClientError::BadInput(format!("table {:?}: {error}", table.name)))
    }

    /// Calls all regions once, by the current catalog. Results are in key order, like the pieces.
    async fn get_once(
        &self,
        table: &TableInfo,
        keys: &RecordBatch,
        projection: &[u32],
    ) -> Result<Vec<v1::GetResponse>, ClientError> {
        let catalog = self.catalog();
        let limits = PieceLimits { rows: MAX_KEYS, bytes: 4 << 20 };
        let mut answers = Vec::new();
        for piece in prepare_pieces(table, &catalog, RowOp::Delete, keys, limits)? {
            let group = catalog
                .route(piece.region)
                .map(|route| route.group)
                .ok_or_else(|| ClientError::NoRoute(table.name.clone()))?;
            let version = catalog.version().get();
            let request = request(table, &piece, group.get(), version, projection);
            let router = &self.core.router;
            let what = format!("get from table {:?}", table.name);
            let longest: Duration = self.options().attempt_timeout;
            let answer = self
                .core
                .call(group, &what, RetryMode::Read, longest, |channel, timeout| {
                    let mut client = router.data(channel);
                    let request = request.clone();
                    async move { client.get(timed(request, timeout)).await }
                })
                .await?;
            answers.push(answer);
        }
        Ok(answers)
    }
}

fn request(
    table: &TableInfo,
    piece: &Piece,
    group_id: u64,
    catalog_version: u64,
    projection: &[u32],
) -> v1::GetRequest {
    v1::GetRequest {
        group_id,
        region_id: piece.region.get(),
        catalog_version,
        schema_version: table.schema.version().get(),
        keys: piece.rows.clone(),
        projection: projection.to_vec(),
    }
}
