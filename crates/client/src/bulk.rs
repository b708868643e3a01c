//! Bulk loading: rows become files on the data nodes, without passing through log and memory, and
//! are then adopted by their regions.
//!
//! In a direct load, each batch is visible as soon as it is adopted, region by region. In an atomic
//! load, all batches are staged in every region first, and become visible together.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use tidewater_common::ids::GroupId;
use tidewater_common::schema::WriteMode;
use tidewater_proto::v1::{self, RowOp};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::catalog::TableInfo;
use crate::client::Client;
use crate::core::RetryMode;
use crate::error::ClientError;
use crate::router::timed;
use crate::write::{Piece, PieceLimits, check_batch, prepare_pieces, run_blocking_if_large};

/// Maximum rows and bytes of one file, before encoding.
const FILE_LIMITS: PieceLimits = PieceLimits { rows: 1_000_000, bytes: 24 << 20 };
/// Number of files that are written in parallel.
const PARALLEL_FILES: usize = 2;
/// Timeout of writing a file, or of reading it for adoption.
const FILE_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout of beginning, publishing or abandoning a load in all regions.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval of keep-alive calls; the cluster aborts a load without them after some minutes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Loader of rows of one table as files.
#[derive(Debug)]
pub struct BulkLoader {
    client: Client,
    table: Arc<TableInfo>,
    load: Option<AtomicLoad>,
}

/// An atomic load in progress.
#[derive(Debug)]
struct AtomicLoad {
    /// Id of the load and of its staging area.
    request_id: Uuid,
    _keep_alive: AbortOnDropHandle<()>,
}

/// Rows and files of a loaded batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BulkLoadReport {
    /// Rows in files. In an upsert table, only the last row of each key in the batch.
    pub rows: u64,
    /// Number of files.
    pub files: u64,
}

impl Client {
    /// Creates a loader whose batches become visible one after the other.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`].
    pub async fn bulk_loader(&self, table: &str) -> Result<BulkLoader, ClientError> {
        let table = self.table(table).await?;
        Ok(BulkLoader { client: self.clone(), table, load: None })
    }

    /// Creates a loader whose batches become visible together, when it publishes them. Until then the
    /// table accepts no alter, truncation, clone or other load; writes continue. If the loader is
    /// dropped or crashes, the cluster aborts the load after some minutes.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`]; [`ClientError::Refused`] with `TableBusy`;
    /// [`ClientError::OutcomeUnknown`] when it may have begun: the cluster aborts it later.
    pub async fn atomic_loader(&self, table: &str) -> Result<BulkLoader, ClientError> {
        let request_id = self.options().ids.next();
        self.begin_load(request_id, table).await?;
        // The table is unchanged while the load blocks other changes.
        self.core.refreshed().await?;
        let client = self.clone();
        let name = table.to_owned();
        let keep_alive = tokio::spawn(async move {
            loop {
                tokio::time::sleep(KEEP_ALIVE_INTERVAL).await;
                if let Err(error) = client.begin_load(request_id, &name).await {
                    tracing::warn!(table = name, %error, "keep-alive call of a load failed");
                }
            }
        });
        let load = Some(AtomicLoad { request_id, _keep_alive: AbortOnDropHandle::new(keep_alive) });
        Ok(BulkLoader { client: self.clone(), table: self.table(table).await?, load })
    }

    async fn begin_load(&self, request_id: Uuid, table: &str) -> Result<(), ClientError> {
        let request = v1::BeginLoadRequest {
            request_id: request_id.to_string(),
            name: table.to_owned(),
            timeout_ms: 0,
        };
        let router = &self.core.router;
        let what = format!("beginning a load of table {table:?}");
        self.core
            .call(GroupId::META, &what, RetryMode::Idempotent, LOAD_TIMEOUT, |channel, timeout| {
                let mut client = router.admin(channel);
                let request = request.clone();
                async move { client.begin_load(timed(request, timeout)).await }
            })
            .await
            .map(drop)
    }
}

impl BulkLoader {
    /// Returns the table as of the loader's creation. Batches have its columns, in its order.
    pub fn table(&self) -> &Arc<TableInfo> {
        &self.table
    }

    /// Returns the id of an atomic load, which appears in the logs of the nodes.
    pub fn load_id(&self) -> Option<Uuid> {
        self.load.as_ref().map(|load| load.request_id)
    }

    /// Writes a batch, in any order, as files, and has the regions adopt them. In an upsert table,
    /// the rows of a later batch replace those of an earlier one.
    ///
    /// # Errors
    /// [`ClientError::BadInput`]: the columns are not the table's; [`ClientError::Refused`] and
    /// [`ClientError::RetriesExhausted`]: some regions may have adopted their part, which a direct load makes
    /// visible; [`ClientError::OutcomeUnknown`]: so may the region that was called last.
    pub async fn write(&self, batch: RecordBatch) -> Result<BulkLoadReport, ClientError> {
        check_batch(&self.table, RowOp::Put, &batch)?;
        let table = self.table.clone();
        let catalog = self.client.catalog();
        let pieces = run_blocking_if_large(batch.num_rows() as u64, move || {
            let codec = &table.codec;
            let mut sorted = codec.sorted(&batch)?;
            if table.options.write_mode == WriteMode::Upsert {
                sorted = codec.last_of_each_key(&sorted)?;
            }
            prepare_pieces(&table, &catalog, RowOp::Put, &sorted, FILE_LIMITS)
        })
        .await?;
        let loaded = stream::iter(pieces.into_iter().map(|piece| self.load(piece)))
            .buffer_unordered(PARALLEL_FILES)
            .try_fold(BulkLoadReport::default(), async |sum, part| {
                Ok(BulkLoadReport { rows: sum.rows + part.rows, files: sum.files + part.files })
            });
        loaded.await
    }

    async fn load(&self, piece: Piece) -> Result<BulkLoadReport, ClientError> {
        let rows = u64::from(piece.count);
        let file_ids = self.write_files(&piece).await?;
        let files = self.adopt_files(&piece, file_ids).await?;
        Ok(BulkLoadReport { rows, files: u64::from(files) })
    }

    /// Writes the files of a piece. Files that are never adopted are garbage, so retries are safe.
    async fn write_files(&self, piece: &Piece) -> Result<Vec<Bytes>, ClientError> {
        let what = format!("writing files of table {:?}", self.table.name);
        let catalog = self.client.catalog();
        let router = &self.client.core.router;
        let written = self
            .client
            .on_region(
                piece.region,
                &what,
                RetryMode::Read,
                FILE_TIMEOUT,
                |group, channel, timeout| {
                    let request = v1::WriteFilesRequest {
                        group_id: group.get(),
                        region_id: piece.region.get(),
                        catalog_version: catalog.version().get(),
                        schema_version: self.table.schema.version().get(),
                        row_count: piece.count,
                        rows: piece.rows.clone(),
                    };
                    let mut client = router.data(channel);
                    async move { client.write_files(timed(request, timeout)).await }
                },
            )
            .await?;
        Ok(written.file_ids)
    }

    async fn adopt_files(&self, piece: &Piece, file_ids: Vec<Bytes>) -> Result<u32, ClientError> {
        let what = format!("adopting files of table {:?}", self.table.name);
        let catalog = self.client.catalog();
        let router = &self.client.core.router;
        // Equal for all attempts, so that the server recognizes a retry.
        let area = match &self.load {
            Some(load) => load.request_id,
            None => self.client.options().ids.next(),
        };
        let adopted = self
            .client
            .on_region(
                piece.region,
                &what,
                RetryMode::Idempotent,
                FILE_TIMEOUT,
                |group, channel, timeout| {
                    let request = v1::AdoptFilesRequest {
                        group_id: group.get(),
                        region_id: piece.region.get(),
                        catalog_version: catalog.version().get(),
                        schema_version: self.table.schema.version().get(),
                        area_id: Bytes::copy_from_slice(area.as_bytes()),
                        file_ids: file_ids.clone(),
                        stage: self.load.is_some(),
                    };
                    let mut client = router.data(channel);
                    async move { client.adopt_files(timed(request, timeout)).await }
                },
            )
            .await?;
        // For a staging area the response counts all files that it holds so far.
        Ok(if self.load.is_some() { file_ids.len() as u32 } else { adopted.files })
    }

    /// Publishes all batches of an atomic load; does nothing for a direct load.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: the load was aborted before, and none of it is visible;
    /// [`ClientError::OutcomeUnknown`]: it may still be published, as a whole.
    pub async fn publish(self) -> Result<(), ClientError> {
        self.end(true).await
    }

    /// Abandons an atomic load: none of it becomes visible.
    ///
    /// # Errors
    /// As [`BulkLoader::publish`].
    pub async fn abandon(self) -> Result<(), ClientError> {
        self.end(false).await
    }

    async fn end(self, publish: bool) -> Result<(), ClientError> {
        // Dropping the load ends the keep-alive calls.
        let Some(request_id) = self.load.map(|load| load.request_id) else { return Ok(()) };
        let request = v1::EndLoadRequest {
            request_id: request_id.to_string(),
            name: self.table.name.clone(),
            publish,
        };
        let router = &self.client.core.router;
        let what = if publish {
            format!("publishing the load of table {:?}", self.table.name)
        } else {
            format!("abandoning the load of table {:?}", self.table.name)
        };
        self.client
            .core
            .call(GroupId::META, &what, RetryMode::Idempotent, LOAD_TIMEOUT, |channel, timeout| {
                let mut client = router.admin(channel);
                let request = request.clone();
                async move { client.end_load(timed(request, timeout)).await }
            })
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests;
