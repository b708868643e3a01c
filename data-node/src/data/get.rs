//! `Get`: rows by key.

use tidewater_common::ids::{ColumnId, GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{GetRequest, GetResponse, Reason, RowOp};
use tidewater_region_engine::ScanMeter;
use tidewater_region_engine::region::MAX_GET_KEYS;

use super::format;
use super::scan::arguments::check_columns;
use crate::group::descriptor::Descriptor;
use crate::group::{admission, refusals};
use crate::groups::Groups;

pub(super) async fn call(groups: &Groups, request: GetRequest) -> Result<GetResponse, Refusal> {
    let options = &groups.context().options;
    let group = GroupId(request.group_id);
    let region = RegionId(request.region_id);
    let replica = groups.get(group)?;
    replica.require_leader()?;
    let hosted = replica.region(region)?;
    let descriptor = admission::served(&hosted.descriptor, request.schema_version)?;
    check_columns(&request.projection)?;
    let rows_format = format::requested(request.rows_format)?;
    let keys = keys(descriptor, &request)?;
    replica.confirm(options.read_deadline).await?;
    // Looked up again: the region may have been altered, or replaced by a snapshot, during the
    // confirmation.
    let hosted = replica.region(region)?;
    let descriptor = admission::served(&hosted.descriptor, request.schema_version)?;
    replica.check_published(&hosted)?;
    let projection: Vec<ColumnId> = request.projection.into_iter().map(ColumnId).collect();
    let meter = ScanMeter::default();
    let shape = Some(descriptor.shape().clone());
    let found = hosted.region.get_charged(&keys, &projection, shape, &meter);
    let found = tokio::time::timeout(options.read_deadline, found)
        .await
        .map_err(|_| refusals::deadline_exceeded("a read", group))?
        .map_err(|error| {
            replica.shared.handle_read_error(region, &error);
            Refusal::from(&error)
        })?;
    Ok(GetResponse { rows: format::encode(&found.rows, rows_format)? })
}

fn keys(
    descriptor: &Descriptor,
    request: &GetRequest,
) -> Result<arrow::array::RecordBatch, Refusal> {
    let keys =
        format::decode(&request.keys, &descriptor.row_schema(RowOp::Delete)).map_err(|error| {
            Refusal::new(
                Reason::SchemaMismatch,
                format!("keys do not fit table {}: {error}", descriptor.table_name),
            )
        })?;
    if keys.num_rows() > MAX_GET_KEYS {
        return Err(Refusal::new(
            Reason::InvalidArgument,
            format!("{} keys are too many for one call (maximum {MAX_GET_KEYS})", keys.num_rows()),
        ));
    }
    let columns = descriptor.key_columns(RowOp::Delete, &keys);
    for key in descriptor
        .codec()
        .row_keys(&columns)
        .map_err(|error| Refusal::new(Reason::SchemaMismatch, error.to_string()))?
    {
        if !descriptor.range.contains(&key) {
            return Err(Refusal::new(
                Reason::KeyOutsideRegion,
                format!("a key is outside region {}: refresh the catalog", descriptor.region_id),
            ));
        }
    }
    Ok(keys)
}
