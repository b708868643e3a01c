//! Rows of a write, decoded as rows of the region's schema.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use tidewater_common::ids::SchemaVersion;
use tidewater_common::keys::KeyRange;
use tidewater_common::rows::{check_storable, convert_batch, decode_batch};
use tidewater_proto::v1::{Reason, RowOp, WriteRequest};

use super::{row_op, served_version};
use crate::group::descriptor::Descriptor;
use crate::group::entry::EntryOutcome;

/// Decoded rows of one write, and the key range from the first to the last row.
#[derive(Clone)]
pub(in crate::group::apply) struct DecodedRows {
    pub(super) op: RowOp,
    pub(super) batch: RecordBatch,
    pub(super) covered: KeyRange,
}

impl DecodedRows {
    /// Decodes the rows of a write, as rows of the region's schema; `None` if it has none.
    pub(super) fn decode(
        descriptor: &Arc<Descriptor>,
        write: &WriteRequest,
    ) -> Result<Option<Self>, EntryOutcome> {
        if write.rows.is_empty() {
            return Ok(None);
        }
        let op = row_op(descriptor, write)?;
        let written = served_version(descriptor, SchemaVersion(write.schema_version))?;
        let batch = decode_batch(&write.rows, &written.row_schema(op))
            .map_err(|error| mismatch(descriptor, error))?;
        let batch = match op {
            RowOp::Put if !Arc::ptr_eq(written, descriptor) => {
                convert_batch(&batch, &written.schema, &descriptor.schema)
                    .map_err(|error| mismatch(descriptor, error))?
            }
            // The key of a table is never altered.
            _ => batch,
        };
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        // Checked before the region applies the rows: whether the region examines them depends on the
        // files that this replica has loaded.
        check_storable(batch.schema_ref(), batch.columns())
            .map_err(|misfit| mismatch(descriptor, misfit))?;
        let keys = descriptor.key_columns(op, &batch);
        let codec = descriptor.codec();
        let first = codec.row_key(&keys, 0).map_err(|error| mismatch(descriptor, error))?;
        let mut last = codec
            .row_key(&keys, batch.num_rows() - 1)
            .map_err(|error| mismatch(descriptor, error))?;
        if !descriptor.range.contains(&first) || !descriptor.range.contains(&last) {
            return Err(EntryOutcome::refused(
                Reason::KeyOutsideRegion,
                format!("rows are outside region {}: refresh the catalog", descriptor.region_id),
            ));
        }
        // The smallest key greater than the last one.
        last.push(0);
        Ok(Some(Self { op, batch, covered: KeyRange { start: first, end: Some(last) } }))
    }

    /// Returns the rows whose keys are in the range of a region; `None` if there are none.
    pub(super) fn within(&self, descriptor: &Descriptor) -> Result<Option<Self>, EntryOutcome> {
        let range = &descriptor.range;
        let covered = self.covered.intersection(range);
        if covered.is_empty() {
            return Ok(None);
        }
        if encloses(range, &self.covered) {
            return Ok(Some(self.clone()));
        }
        let batch = self.filtered(descriptor, |key| range.contains(key))?;
        Ok(batch.map(|batch| Self { batch, covered, op: self.op }))
    }

    /// Returns the rows whose keys are in none of the `covered` ranges; `None` if there are none.
    pub(super) fn outside(
        self,
        descriptor: &Descriptor,
        covered: &[KeyRange],
    ) -> Result<Option<Self>, EntryOutcome> {
        if covered.iter().any(|range| encloses(range, &self.covered)) {
            return Ok(None);
        }
        let is_new = |key: &[u8]| !covered.iter().any(|range| range.contains(key));
        let batch = self.filtered(descriptor, is_new)?;
        Ok(batch.map(|batch| Self { batch, ..self }))
    }

    /// Returns the rows whose keys are to be kept; `None` if there are none.
    fn filtered(
        &self,
        descriptor: &Descriptor,
        is_kept: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<RecordBatch>, EntryOutcome> {
        let keys = descriptor.key_columns(self.op, &self.batch);
        let keys =
            descriptor.codec().row_keys(&keys).map_err(|error| mismatch(descriptor, error))?;
        let kept: Vec<bool> = keys.iter().map(|key| is_kept(key)).collect();
        if !kept.contains(&true) {
            return Ok(None);
        }
        let batch = filter_record_batch(&self.batch, &kept.into());
        Ok(Some(batch.map_err(|error| mismatch(descriptor, error))?))
    }
}

pub(super) fn mismatch(descriptor: &Descriptor, error: impl std::fmt::Display) -> EntryOutcome {
    EntryOutcome::refused(
        Reason::SchemaMismatch,
        format!("rows do not fit table {}: {error}", descriptor.table_name),
    )
}

fn encloses(outer: &KeyRange, inner: &KeyRange) -> bool {
    outer.start <= inner.start
        && match (&outer.end, &inner.end) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(outer), Some(inner)) => inner <= outer,
        }
}
