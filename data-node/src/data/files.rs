//! `WriteFiles` and `AdoptFiles`: bulk loading, past the log and the memory of a region.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{FileId, GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_common::rows::decode_batch;
use tidewater_proto::v1::{
    AdoptFilesRequest, AdoptFilesResponse, Reason, RowOp, WriteFilesRequest, WriteFilesResponse,
    WriteRequest,
};
use tidewater_region_engine::bulk::BulkWriter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::MESSAGE_BYTES;
use crate::control::settle::ask_to_adopt;
use crate::group::admission::{self, WriteLimits};
use crate::group::obligation::area_from_wire;
use crate::groups::Groups;
use crate::owner_request::{Adoption, AdoptionSource};

/// Calls that write or read files at the same time; each holds rows in memory.
pub(super) const AT_ONCE: usize = 4;

fn slot(slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    slots.clone().try_acquire_owned().map_err(|_| {
        Refusal::new(Reason::Overloaded, "this node is at work with files of others already")
            .retry_after(Duration::from_millis(200))
    })
}

pub(super) async fn write(
    groups: &Groups,
    slots: &Arc<Semaphore>,
    request: WriteFilesRequest,
) -> Result<WriteFilesResponse, Refusal> {
    let group = GroupId(request.group_id);
    let replica = groups.get(group)?;
    replica.require_leader()?;
    let _slot = slot(slots)?;
    let descriptor = replica.region(RegionId(request.region_id))?.descriptor;
    let limits = WriteLimits { bytes: MESSAGE_BYTES, ..WriteLimits::default() };
    let rows = WriteRequest {
        schema_version: request.schema_version,
        row_count: request.row_count,
        rows: request.rows.clone(),
        ..WriteRequest::default()
    };
    admission::check_put(&descriptor, &limits, &rows)?;
    let batch = decode_batch(&request.rows, &descriptor.row_schema(RowOp::Put))
        .map_err(|error| Refusal::new(Reason::SchemaMismatch, error.to_string()))?;
    let refused = |error| Refusal::from(&error);
    let env = replica.shared.env.clone();
    let writer = BulkWriter::new(env, &descriptor.spec()).map_err(refused)?;
    let files = writer.write([batch]).await.map_err(refused)?;
    let file_ids = files.iter().map(|file| file.0.as_bytes().to_vec().into()).collect();
    Ok(WriteFilesResponse { file_ids })
}

pub(super) async fn take_over(
    groups: &Groups,
    slots: &Arc<Semaphore>,
    request: AdoptFilesRequest,
) -> Result<AdoptFilesResponse, Refusal> {
    let group = GroupId(request.group_id);
    let region = RegionId(request.region_id);
    let replica = groups.get(group)?;
    replica.require_leader()?;
    admission::check_schema(&replica.region(region)?.descriptor, request.schema_version)?;
    let invalid = |message: &str| Refusal::new(Reason::InvalidArgument, message);
    let area = area_from_wire(&request.area_id)
        .ok_or_else(|| invalid("a staging area is named by a UUID of 16 bytes"))?;
    let file = |id: &bytes::Bytes| Uuid::from_slice(id).ok().map(FileId);
    let files: Option<Vec<FileId>> = request.file_ids.iter().map(file).collect();
    let files = files.ok_or_else(|| invalid("a file is named by a UUID of 16 bytes"))?;
    if files.is_empty() {
        return Err(invalid("no file was named"));
    }
    let source = match request.stage {
        true => AdoptionSource::Staged { area, files },
        false => AdoptionSource::Files { area, files },
    };
    let adoption = Adoption { region, source, slot: Some(slot(slots)?) };
    let files = ask_to_adopt(groups, group, adoption).await?;
    Ok(AdoptFilesResponse { files })
}
