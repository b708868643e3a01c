//! `Get`: rows by key.

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, filter_record_batch};
use bytes::Bytes;
use tidewater_common::ids::{ColumnId, GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{GetRequest, GetResponse, Reason, RowOp, RowsFormat};
use tidewater_region_engine::ScanMeter;
use tidewater_region_engine::region::{MAX_GET_KEYS, PointReadOptions, PointRows};
use tokio::time::Instant;

use super::as_of::{self, as_of};
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
    let known =
        as_of::confirm(groups, &replica, &hosted, request.as_of, options.read_deadline).await?;
    let projection: Vec<ColumnId> = request.projection.into_iter().map(ColumnId).collect();
    let deadline = Instant::now() + options.read_deadline;
    // Looked up again: the region may have been altered, split, or replaced by a snapshot, during the
    // confirmation.
    let mut found = Vec::new();
    for hosted in replica.serving(region)? {
        let descriptor = admission::served(&hosted.descriptor, request.schema_version)?;
        replica.check_published(&hosted)?;
        let Some(within) = keys.within(descriptor)? else { continue };
        let shape = Some(descriptor.shape().clone());
        let as_of = as_of(&replica, &hosted, known, request.as_of)?;
        let meter = ScanMeter::default();
        let read = PointReadOptions { as_of, shape };
        let rows = hosted.region.get_charged(&within, &projection, read, &meter);
        let rows = tokio::time::timeout_at(deadline, rows)
            .await
            .map_err(|_| refusals::deadline_exceeded("a read", group))?
            .map_err(|error| {
                replica.shared.handle_read_error(descriptor.region_id, &error);
                Refusal::from(&error)
            })?;
        let read: Vec<_> = keys.in_range(descriptor).collect();
        hosted.load.record_reads(read.len(), |at| read.get(at).map(|key| (*key).clone()));
        found.push(rows);
    }
    Ok(GetResponse { rows: encode(&found, rows_format)? })
}

/// Encodes the rows of several regions in one batch.
fn encode(found: &[PointRows], rows_format: RowsFormat) -> Result<Bytes, Refusal> {
    let Some(first) = found.first() else {
        return Err(Refusal::new(Reason::InvalidArgument, "a point read names no keys"));
    };
    if found.len() == 1 {
        return format::encode(&first.rows, rows_format);
    }
    let batches = found.iter().map(|found| &found.rows);
    let rows = concat_batches(&first.rows.schema(), batches)
        .map_err(|error| Refusal::new(Reason::Internal, error.to_string()))?;
    format::encode(&rows, rows_format)
}

/// Keys of a point read, and their row keys.
struct PointKeys {
    keys: RecordBatch,
    row_keys: Vec<Vec<u8>>,
}

impl PointKeys {
    /// Row keys in the range of a region.
    fn in_range<'a>(&'a self, descriptor: &'a Descriptor) -> impl Iterator<Item = &'a Vec<u8>> {
        self.row_keys.iter().filter(|key| descriptor.range.contains(key))
    }

    /// Returns the keys in the range of a region; `None` if there are none.
    fn within(&self, descriptor: &Descriptor) -> Result<Option<RecordBatch>, Refusal> {
        let is_in: Vec<bool> =
            self.row_keys.iter().map(|key| descriptor.range.contains(key)).collect();
        if !is_in.contains(&false) {
            return Ok(Some(self.keys.clone()));
        }
        if !is_in.contains(&true) {
            return Ok(None);
        }
        let keys = filter_record_batch(&self.keys, &is_in.into());
        keys.map(Some).map_err(|error| Refusal::new(Reason::Internal, error.to_string()))
    }
}

fn keys(descriptor: &Descriptor, request: &GetRequest) -> Result<PointKeys, Refusal> {
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
    let row_keys = descriptor
        .codec()
        .row_keys(&columns)
        .map_err(|error| Refusal::new(Reason::SchemaMismatch, error.to_string()))?;
    if row_keys.iter().any(|key| !descriptor.range.contains(key)) {
        return Err(Refusal::new(
            Reason::KeyOutsideRegion,
            format!("a key is outside region {}: refresh the catalog", descriptor.region_id),
        ));
    }
    Ok(PointKeys { keys, row_keys })
}
