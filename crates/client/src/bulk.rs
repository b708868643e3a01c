//! Bulk loading: rows become files on the data nodes, past log and memory, and are then taken over.
//!
//! Directly, each batch shows as soon as it is taken over, region by region. Or atomically: all
//! batches are staged in every region first, and none shows until all do.

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
use crate::core::Repeat;
use crate::error::ClientError;
use crate::router::timed;
use crate::write::{Piece, PieceLimits, check, prepare, run_blocking};

/// Rows and bytes of one file, before they are packed.
const LIMITS: PieceLimits = PieceLimits { rows: 1_000_000, bytes: 24 << 20 };
/// Files under way at the same time.
const AT_ONCE: usize = 2;
/// Writing a file, or reading it when it is taken over.
const FILE: Duration = Duration::from_secs(60);
/// Opening, publishing or giving up a load in all regions.
const PHASE: Duration = Duration::from_secs(60);
/// How often the cluster is told that the loader lives; a load whose loader is silent for minutes is
/// given up.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// Loads rows of one table as files.
#[derive(Debug)]
pub struct BulkLoader {
    client: Client,
    table: Arc<TableInfo>,
    load: Option<Load>,
}

/// An atomic load that has begun.
#[derive(Debug)]
struct Load {
    /// Also names the staging area.
    request_id: Uuid,
    _alive: AbortOnDropHandle<()>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Rows in files; of rows with one key in one batch of an upsert table, the last one only.
    pub rows: u64,
    /// Files.
    pub files: u64,
}

impl Client {
    /// A loader whose batches show one after the other.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`].
    pub async fn bulk_loader(&self, table: &str) -> Result<BulkLoader, ClientError> {
        let table = self.table(table).await?;
        Ok(BulkLoader { client: self.clone(), table, load: None })
    }

    /// A loader whose batches show all at once, when it is told to publish them. The table takes no
    /// alter, truncation, clone or other load until then; writes go on. A loader that is dropped, or
    /// dies, leaves the load to be given up by the cluster after some minutes.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`]; [`ClientError::Refused`] with `TableBusy`;
    /// [`ClientError::OutcomeUnknown`] when it may have begun: it is given up later.
    pub async fn atomic_loader(&self, table: &str) -> Result<BulkLoader, ClientError> {
        let request_id = self.options().ids.next();
        self.begin_load(request_id, table).await?;
        // As it is while it takes no other change.
        self.core.refresh_catalog().await?;
        let (client, name) = (self.clone(), table.to_owned());
        let alive = tokio::spawn(async move {
            loop {
                tokio::time::sleep(SIGN_OF_LIFE).await;
                if let Err(error) = client.begin_load(request_id, &name).await {
                    tracing::warn!(table = name, %error, "the cluster does not hear of this load");
                }
            }
        });
        let load = Some(Load { request_id, _alive: AbortOnDropHandle::new(alive) });
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
            .call(GroupId::META, &what, Repeat::Idempotent, PHASE, |channel, timeout| {
                let (mut client, request) = (router.admin(channel), request.clone());
                async move { client.begin_load(timed(request, timeout)).await }
            })
            .await
            .map(drop)
    }
}

impl BulkLoader {
    /// The table as it was when the loader was made. Batches have its columns, in its order.
    pub fn table(&self) -> &Arc<TableInfo> {
        &self.table
    }

    /// What an atomic load is called in the logs of the nodes: the request that began it.
    pub fn load_id(&self) -> Option<Uuid> {
        self.load.as_ref().map(|load| load.request_id)
    }

    /// Writes a batch, in any order, as files, and has the regions take them over. In an upsert
    /// table, the rows of a later batch replace those of an earlier one.
    ///
    /// # Errors
    /// [`ClientError::BadInput`]: the columns are not the table's; [`ClientError::Refused`] and
    /// [`ClientError::RetriesExhausted`]: some regions may have taken their part over, and a direct load shows
    /// it; [`ClientError::OutcomeUnknown`]: so may the one that was asked last.
    pub async fn write(&self, batch: RecordBatch) -> Result<Loaded, ClientError> {
        check(&self.table, RowOp::Put, &batch)?;
        let (table, catalog) = (self.table.clone(), self.client.catalog());
        let pieces = run_blocking(batch.num_rows() as u64, move || {
            let codec = &table.codec;
            let mut sorted = codec.sorted(&batch)?;
            if table.options.write_mode == WriteMode::Upsert {
                sorted = codec.last_of_each_key(&sorted)?;
            }
            prepare(&table, &catalog, RowOp::Put, &sorted, LIMITS)
        })
        .await?;
        let loaded = stream::iter(pieces.into_iter().map(|piece| self.load(piece)))
            .buffer_unordered(AT_ONCE)
            .try_fold(Loaded::default(), async |sum, one| {
                Ok(Loaded { rows: sum.rows + one.rows, files: sum.files + one.files })
            });
        loaded.await
    }

    async fn load(&self, piece: Piece) -> Result<Loaded, ClientError> {
        let rows = u64::from(piece.count);
        let file_ids = self.write_files(&piece).await?;
        let files = self.take_over(&piece, file_ids).await?;
        Ok(Loaded { rows, files: u64::from(files) })
    }

    /// Files that nobody takes over are garbage: writing them once more harms nobody.
    async fn write_files(&self, piece: &Piece) -> Result<Vec<Bytes>, ClientError> {
        let what = format!("writing files of table {:?}", self.table.name);
        let (catalog, router) = (self.client.catalog(), &self.client.core.router);
        let written = self
            .client
            .on_region(piece.region, &what, Repeat::Read, FILE, |group, channel, timeout| {
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
            })
            .await?;
        Ok(written.file_ids)
    }

    async fn take_over(&self, piece: &Piece, file_ids: Vec<Bytes>) -> Result<u32, ClientError> {
        let what = format!("taking over files of table {:?}", self.table.name);
        let (catalog, router) = (self.client.catalog(), &self.client.core.router);
        // The same for every attempt: so a repeat is known as one.
        let area = match &self.load {
            Some(load) => load.request_id,
            None => self.client.options().ids.next(),
        };
        let adopted = self
            .client
            .on_region(piece.region, &what, Repeat::Idempotent, FILE, |group, channel, timeout| {
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
            })
            .await?;
        // Of a staging area, all that it holds so far.
        Ok(if self.load.is_some() { file_ids.len() as u32 } else { adopted.files })
    }

    /// Makes all batches of an atomic load live; of another one, there is nothing to do.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: the load was given up before, and nothing of it shows;
    /// [`ClientError::OutcomeUnknown`]: it may yet be published, as a whole.
    pub async fn publish(self) -> Result<(), ClientError> {
        self.end(true).await
    }

    /// Gives an atomic load up: nothing of it shows.
    ///
    /// # Errors
    /// As [`BulkLoader::publish`].
    pub async fn abandon(self) -> Result<(), ClientError> {
        self.end(false).await
    }

    async fn end(self, publish: bool) -> Result<(), ClientError> {
        // No more signs of life.
        let Some(request_id) = self.load.map(|load| load.request_id) else { return Ok(()) };
        let request = v1::EndLoadRequest {
            request_id: request_id.to_string(),
            name: self.table.name.clone(),
            publish,
        };
        let router = &self.client.core.router;
        let what = match publish {
            true => format!("publishing what was loaded into table {:?}", self.table.name),
            false => format!("giving up the load of table {:?}", self.table.name),
        };
        self.client
            .core
            .call(GroupId::META, &what, Repeat::Idempotent, PHASE, |channel, timeout| {
                let (mut client, request) = (router.admin(channel), request.clone());
                async move { client.end_load(timed(request, timeout)).await }
            })
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests;
