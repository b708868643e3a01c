//! Bulk loads: data nodes write rows as files, bypassing log and memtable, and regions adopt the files.
//!
//! - Direct load: the rows of a batch are visible as soon as a region adopts their files, region by region.
//! - Atomic load: every region keeps the files of all batches in a staging area. Publishing the load makes
//!   all of them visible. It lasts from `begin_load` until it is published or abandoned, and the cluster
//!   aborts it when its loader stops sending keepalives.

mod piece;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::stream::{self, StreamExt, TryStreamExt};
use tidewater_common::ids::GroupId;
use tidewater_common::schema::WriteMode;
use tidewater_proto::v1::{self, RowOp};
use tidewater_rpc::timed;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::catalog::TableInfo;
use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;
use crate::write::{PieceLimits, altered, check, convert, prepare, run_blocking};

/// Maximum rows and uncompressed bytes of one file.
const FILE_LIMITS: PieceLimits = PieceLimits { rows: 1_000_000, bytes: 24 << 20 };
/// Maximum number of files written concurrently.
const MAX_CONCURRENT_FILES: usize = 2;
/// Timeout of an attempt to begin, publish or abandon a load in all regions.
const PHASE_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval between keepalives of an atomic load. The cluster aborts a load that gets none for some minutes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Loader of rows into one table as files.
#[derive(Debug)]
pub struct BulkLoader {
    client: Client,
    table: Arc<TableInfo>,
    /// `None` for a direct load.
    load: Option<AtomicLoad>,
}

/// An atomic load in progress.
#[derive(Debug)]
struct AtomicLoad {
    /// Id of the request that began the load; also the id of its staging area.
    request_id: Uuid,
    _keepalive: AbortOnDropHandle<()>,
}

/// Rows and files of a loaded batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadedBatch {
    /// Rows in the files. In an upsert table, only the last row of each key in the batch counts.
    pub rows: u64,
    /// Number of files.
    pub files: u64,
}

impl Client {
    /// Creates a direct loader: each batch becomes visible when it is written.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`].
    pub async fn bulk_loader(&self, table: &str) -> Result<BulkLoader, ClientError> {
        Ok(self.bulk_loader_for(self.table(table).await?))
    }

    /// Creates a direct loader of rows in the schema of `table`, which may have been altered since.
    pub fn bulk_loader_for(&self, table: Arc<TableInfo>) -> BulkLoader {
        BulkLoader { client: self.clone(), table, load: None }
    }

    /// Begins an atomic load; its batches become visible together with [`BulkLoader::publish`]. Until then
    /// the table rejects alter, truncate, clone and other loads, and accepts writes. If the loader is dropped
    /// or its process dies, the cluster aborts the load after some minutes.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`]; [`ClientError::Refused`] with `TableBusy`;
    /// [`ClientError::OutcomeUnknown`] when it may have begun: the cluster aborts it later.
    pub async fn atomic_loader(&self, table: &str) -> Result<BulkLoader, ClientError> {
        let request_id = self.options().ids.next();
        self.begin_load(request_id, table).await?;
        // The table's schema cannot change from here until the load ends.
        self.core.refresh_catalog().await?;
        let client = self.clone();
        let name = table.to_owned();
        let keepalive = tokio::spawn(async move {
            loop {
                tokio::time::sleep(KEEPALIVE_INTERVAL).await;
                if let Err(error) = client.begin_load(request_id, &name).await {
                    tracing::warn!(table = name, %error, "keepalive of an atomic load failed; retrying");
                }
            }
        });
        let load = Some(AtomicLoad { request_id, _keepalive: AbortOnDropHandle::new(keepalive) });
        Ok(BulkLoader { client: self.clone(), table: self.table(table).await?, load })
    }

    /// Begins a load, or keeps one alive that began with the same request id.
    async fn begin_load(&self, request_id: Uuid, table: &str) -> Result<(), ClientError> {
        let request = v1::BeginLoadRequest {
            request_id: request_id.to_string(),
            name: table.to_owned(),
            timeout_ms: 0,
        };
        let router = &self.core.router;
        let what = format!("beginning a load of table {table:?}");
        self.core
            .call(GroupId::META, &what, Repeat::Idempotent, PHASE_TIMEOUT, |channel, timeout| {
                let mut client = router.admin(channel);
                let request = request.clone();
                async move { client.begin_load(timed(request, timeout)).await }
            })
            .await
            .map(drop)
    }
}

impl BulkLoader {
    /// The table at the time when the loader was created. Batches must have its columns, in its order. After
    /// an alter of the table, rows take effect as if written just before it: columns that were added have
    /// their default, and values of columns that were dropped are left out.
    pub fn table(&self) -> &Arc<TableInfo> {
        &self.table
    }

    /// Id of an atomic load in the logs of the nodes; `None` for a direct load.
    pub fn load_id(&self) -> Option<Uuid> {
        self.load.as_ref().map(|load| load.request_id)
    }

    /// Writes a batch as files and has the regions adopt them. The rows may be in any order. In an upsert
    /// table, the rows of a later batch replace those of an earlier one.
    ///
    /// # Errors
    /// [`ClientError::BadInput`]: the columns are not the table's. [`ClientError::Refused`] and
    /// [`ClientError::RetriesExhausted`]: some regions may have adopted their files, which are visible in a direct load.
    /// [`ClientError::OutcomeUnknown`]: in addition, the last region called may have adopted its files.
    pub async fn write(&self, batch: RecordBatch) -> Result<LoadedBatch, ClientError> {
        check(&self.table, RowOp::Put, &batch)?;
        let earlier = self.table.clone();
        let catalog = self.client.catalog();
        let table = altered(&earlier, &catalog).unwrap_or_else(|| earlier.clone());
        let current = table.clone();
        let pieces = run_blocking(batch.num_rows() as u64, move || {
            let codec = &earlier.codec;
            let mut sorted = codec.sorted(&batch)?;
            if earlier.options.write_mode == WriteMode::Upsert {
                sorted = codec.last_of_each_key(&sorted)?;
            }
            if !Arc::ptr_eq(&earlier, &current) {
                sorted = convert(RowOp::Put, &sorted, &earlier.schema, &current.schema)?;
            }
            prepare(&current, &catalog, RowOp::Put, &sorted, FILE_LIMITS)
        })
        .await?;
        let pieces = pieces.into_iter().map(|piece| self.load_piece(table.clone(), piece));
        let loaded = stream::iter(pieces).buffer_unordered(MAX_CONCURRENT_FILES).try_fold(
            LoadedBatch::default(),
            async |sum, loaded| {
                Ok(LoadedBatch { rows: sum.rows + loaded.rows, files: sum.files + loaded.files })
            },
        );
        loaded.await
    }

    /// Makes all batches of an atomic load visible. Does nothing for a direct load.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: the load was aborted before, and none of its rows is visible.
    /// [`ClientError::OutcomeUnknown`]: it may still be published, as a whole.
    pub async fn publish(self) -> Result<(), ClientError> {
        self.end_load(true).await
    }

    /// Abandons an atomic load: none of its rows becomes visible. Does nothing for a direct load.
    ///
    /// # Errors
    /// As [`BulkLoader::publish`].
    pub async fn abandon(self) -> Result<(), ClientError> {
        self.end_load(false).await
    }

    async fn end_load(self, publish: bool) -> Result<(), ClientError> {
        // Taking the load out of `self` also stops its keepalives.
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
            .call(GroupId::META, &what, Repeat::Idempotent, PHASE_TIMEOUT, |channel, timeout| {
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
