//! Passes applied rows to the memtables.

use std::io;

use arrow::array::RecordBatch;
use tidewater_common::ids::RegionId;
use tidewater_proto::v1::RowOp;
use tidewater_region_engine::{EngineError, RowsWrite};

use crate::group::apply::{RowSink, SinkError, WritePoint};
use crate::group::shared::ReplicaState;

pub(super) struct RegionSink<'a> {
    pub(super) shared: &'a ReplicaState,
}

impl RowSink for RegionSink<'_> {
    fn rows(
        &self,
        region: RegionId,
        point: WritePoint,
        op: RowOp,
        batch: RecordBatch,
    ) -> Result<(), SinkError> {
        let Some(hosted) = self.shared.regions.get(region) else {
            return Err(SinkError::Fault(io::Error::other(format!(
                "region {region} is in the registry of group {} but not hosted",
                self.shared.group
            ))));
        };
        let (written, keys) = (batch.num_rows(), hosted.descriptor.key_columns(op, &batch));
        let op = match op {
            RowOp::Put => tidewater_region_engine::RowOp::Put,
            RowOp::Delete => tidewater_region_engine::RowOp::Delete,
        };
        let WritePoint { sequence, epoch } = point;
        match hosted.region.apply(RowsWrite { sequence, epoch, op, batch }) {
            Ok(()) => {
                let codec = hosted.descriptor.codec();
                hosted.load.record_writes(written, |row| codec.row_key(&keys, row).ok());
                if hosted.region.is_merge_due() {
                    self.shared.merges.notify_one();
                }
                Ok(())
            }
            // A region that was dropped or moved to another group accepts no more rows; the log
            // continues.
            Err(EngineError::Closed { .. } | EngineError::Removed { .. }) => Ok(()),
            Err(EngineError::BadRows { detail }) => Err(SinkError::BadRows(detail)),
            Err(error) => Err(SinkError::Fault(io::Error::other(format!(
                "region {region} of group {} cannot apply rows at sequence {sequence}: {error}",
                self.shared.group
            )))),
        }
    }
}
