//! Files of a piece: written by a data node, then adopted by the region.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason, RowOp};
use tidewater_rpc::timed;
use tokio::time::Instant;

use super::{BulkLoader, FILE_LIMITS, LoadedBatch};
use crate::catalog::{Catalog, TableInfo};
use crate::core::Repeat;
use crate::error::ClientError;
use crate::stale::{ExpectedChange, StaleWaits, UsedCatalog};
use crate::write::{Piece, altered, recut, run_blocking};

/// Most times that the files of a direct load are written again because its region has abandoned them.
const MAX_ABANDONED: u32 = 8;
/// Timeout of an attempt to write a file, or to adopt it, for which the region reads it.
const FILE_TIMEOUT: Duration = Duration::from_secs(60);

impl BulkLoader {
    /// Loads a piece whose rows are encoded for `table`. If the table was altered or the route was split since,
    /// and no attempt may have taken effect, the rows are converted, cut along the current routes, and written
    /// to other files; so they are if the region's owner was lost before it had adopted them. Each repeat is for a later
    /// schema, for other routes, or for another owner.
    pub(super) async fn load_piece(
        &self,
        table: Arc<TableInfo>,
        piece: Piece,
    ) -> Result<LoadedBatch, ClientError> {
        let mut loaded = LoadedBatch::default();
        let mut abandoned: u32 = 0;
        let mut pieces = vec![(table, piece)];
        while let Some((table, piece)) = pieces.pop() {
            let error = match self.load_rows(&table, &piece).await {
                Ok(files) => {
                    loaded.rows += u64::from(piece.count);
                    loaded.files += u64::from(files);
                    continue;
                }
                Err(error) => error,
            };
            // In all cases no attempt took effect. Of an unknown one, the region may have the files.
            let (catalog, current) = match &error {
                // The owner has failed or changed before it had adopted the files: they are written again.
                ClientError::Refused { refusal, .. }
                    if refusal.reason == Reason::LoadEnded
                        && self.load.is_none()
                        && abandoned < MAX_ABANDONED =>
                {
                    abandoned += 1;
                    pieces.push((table, piece));
                    continue;
                }
                ClientError::Refused { refusal, .. }
                    if refusal.reason == Reason::SchemaVersionStale =>
                {
                    let catalog = self.wait_for_alter(&table, &piece, refusal).await?;
                    let current = altered(&table, &catalog);
                    (catalog, current)
                }
                ClientError::RegionNotFound(_) => {
                    let catalog = self.client.catalog();
                    let current = catalog.table(table.id).cloned();
                    (catalog, current)
                }
                _ => return Err(error),
            };
            let Some(current) = current else { return Err(error) };
            let converted = convert_piece(table, current.clone(), catalog, piece).await?;
            pieces.extend(converted.into_iter().map(|piece| (current.clone(), piece)));
        }
        Ok(loaded)
    }

    async fn load_rows(&self, table: &TableInfo, piece: &Piece) -> Result<u32, ClientError> {
        let file_ids = self.write_files(table, piece).await?;
        self.adopt_files(table, piece, file_ids).await
    }

    /// Waits until the catalog has a later schema of the table, at most for the deadline of a call. Returns
    /// the catalog.
    async fn wait_for_alter(
        &self,
        table: &TableInfo,
        piece: &Piece,
        refusal: &Refusal,
    ) -> Result<Arc<Catalog>, ClientError> {
        let options = self.client.options();
        let until = Instant::now() + options.deadline;
        let mut stale = StaleWaits::default();
        let mut waits: u32 = 0;
        let mut catalog = self.client.catalog();
        while altered(table, &catalog).is_none() && Instant::now() < until {
            if catalog.table(table.id).is_none() {
                return Err(ClientError::TableNotFound(table.name.clone()));
            }
            waits = waits.saturating_add(1);
            let backoff = options.backoff.wait(waits, None, options.ids.bits());
            let used = UsedCatalog::new(&catalog, Some(table), catalog.route(piece.region));
            let change = ExpectedChange::new(refusal, &used);
            let core = &self.client.core;
            catalog = core.wait_for_change(&change, &mut stale, backoff, until).await?;
        }
        Ok(catalog)
    }

    /// Writes the files of a piece; returns their ids. An attempt may be repeated, because files that no
    /// region adopts are garbage collected.
    async fn write_files(
        &self,
        table: &TableInfo,
        piece: &Piece,
    ) -> Result<Vec<Bytes>, ClientError> {
        let what = format!("writing files of table {:?}", table.name);
        let catalog = self.client.catalog();
        let router = &self.client.core.router;
        let written = self
            .client
            .on_region(
                piece.region,
                &what,
                Repeat::Read,
                FILE_TIMEOUT,
                |group, channel, timeout| {
                    let request = v1::WriteFilesRequest {
                        group_id: group.get(),
                        region_id: piece.region.get(),
                        catalog_version: catalog.version().get(),
                        schema_version: table.schema.version().get(),
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

    /// Has the region adopt or stage the files; returns the number of files of this piece.
    async fn adopt_files(
        &self,
        table: &TableInfo,
        piece: &Piece,
        file_ids: Vec<Bytes>,
    ) -> Result<u32, ClientError> {
        let what = format!("adopting files of table {:?}", table.name);
        let catalog = self.client.catalog();
        let router = &self.client.core.router;
        // All attempts name the same staging area, so that the region recognizes a repeat.
        let staging_area = match &self.load {
            Some(load) => load.request_id,
            None => self.client.options().ids.next(),
        };
        let adopted = self
            .client
            .on_region(
                piece.region,
                &what,
                Repeat::Idempotent,
                FILE_TIMEOUT,
                |group, channel, timeout| {
                    let request = v1::AdoptFilesRequest {
                        group_id: group.get(),
                        region_id: piece.region.get(),
                        catalog_version: catalog.version().get(),
                        schema_version: table.schema.version().get(),
                        area_id: Bytes::copy_from_slice(staging_area.as_bytes()),
                        file_ids: file_ids.clone(),
                        stage: self.load.is_some(),
                    };
                    let mut client = router.data(channel);
                    async move { client.adopt_files(timed(request, timeout)).await }
                },
            )
            .await?;
        // For a staging area the response counts all files staged so far, not only those of this piece.
        Ok(if self.load.is_some() { file_ids.len() as u32 } else { adopted.files })
    }
}

/// Converts the rows of a piece to the current schema of its table, and cuts them along the current routes.
async fn convert_piece(
    table: Arc<TableInfo>,
    current: Arc<TableInfo>,
    catalog: Arc<Catalog>,
    piece: Piece,
) -> Result<Vec<Piece>, ClientError> {
    run_blocking(u64::from(piece.count), move || {
        recut(&table, &current, &catalog, RowOp::Put, &piece.rows, FILE_LIMITS)
    })
    .await
}
