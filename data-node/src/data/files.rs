//! `WriteFiles` and `AdoptFiles`: bulk loads, which bypass the log and the memtables.

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
use super::created::check_created;
use crate::control::settle::adopt_files;
use crate::group::admission::{self, WriteLimits};
use crate::group::obligation::area_from_wire;
use crate::groups::Groups;
use crate::owner_request::{Adoption, AdoptionSource};

/// Concurrent calls that write or read files; each holds rows in memory.
pub(super) const CONCURRENT_CALLS: usize = 4;

fn acquire_slot(slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    slots.clone().try_acquire_owned().map_err(|_| {
        let message = format!("this node already runs {CONCURRENT_CALLS} file calls: retry");
        Refusal::new(Reason::Overloaded, message).retry_after(Duration::from_millis(200))
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
    let _slot = acquire_slot(slots)?;
    let descriptor = replica.region(RegionId(request.region_id))?.descriptor;
    check_created(&groups.context().catalog, &descriptor)?;
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

pub(super) async fn adopt(
    groups: &Groups,
    slots: &Arc<Semaphore>,
    request: AdoptFilesRequest,
) -> Result<AdoptFilesResponse, Refusal> {
    let group = GroupId(request.group_id);
    let region = RegionId(request.region_id);
    let replica = groups.get(group)?;
    replica.require_leader()?;
    let descriptor = replica.region(region)?.descriptor;
    check_created(&groups.context().catalog, &descriptor)?;
    admission::check_current_schema(&descriptor, request.schema_version)?;
    if !request.stage {
        admission::check_written_by_clients(&descriptor)?;
    }
    let invalid = |message: &str| Refusal::new(Reason::InvalidArgument, message);
    let area = area_from_wire(&request.area_id)
        .ok_or_else(|| invalid("a staging area id must be a UUID of 16 bytes"))?;
    let file = |id: &bytes::Bytes| Uuid::from_slice(id).ok().map(FileId);
    let files: Option<Vec<FileId>> = request.file_ids.iter().map(file).collect();
    let files = files.ok_or_else(|| invalid("a file id must be a UUID of 16 bytes"))?;
    if files.is_empty() {
        return Err(invalid("the request names no files"));
    }
    let source = if request.stage {
        AdoptionSource::Staged { area, files }
    } else {
        AdoptionSource::Files { area, files }
    };
    let adoption = Adoption { region, source, slot: Some(acquire_slot(slots)?) };
    let adopted = adopt_files(groups, group, adoption).await;
    if adopted.as_ref().is_err_and(|refusal| refusal.reason == Reason::InvalidArgument) {
        // Files with the columns of an earlier schema do not fit a region that was altered since.
        admission::check_current_schema(
            &replica.region(region)?.descriptor,
            request.schema_version,
        )?;
    }
    Ok(AdoptFilesResponse { files: adopted? })
}
