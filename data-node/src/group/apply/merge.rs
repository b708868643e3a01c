//! Merges of staging areas into regions of refreshable tables: their begin, and chunks. A chunk's rows and the progress of
//! its part are one decision, so that a merge continues after the last chunk, on any replica.

use std::io;

use tidewater_common::ids::{LogIndex, RegionId};
use tidewater_proto::v1::{self, Reason, RowOp, WriteRequest};

use super::writes::{RowsPoint, decode_rows, put_rows};
use super::{Applied, RowSink, admitted};
use crate::group::admits::Operation;
use crate::group::entry::EntryOutcome;
use crate::group::obligation::area_from_wire;
use crate::group::refresh::MergeState;
use crate::group::state::{GroupState, RegionState};

pub(super) fn begin(
    state: &mut GroupState,
    entry: &v1::RegionMergeBegun,
) -> Result<Applied, EntryOutcome> {
    let region = region_with_area(state, entry.region_id, &entry.area_id)?;
    let Some(area) = area_from_wire(&entry.area_id) else { return Err(area_not_open(region)) };
    if region.merge.as_ref().is_some_and(|merge| merge.area == area) {
        return Ok(Applied::repeated());
    }
    region.merge = Some(MergeState::begin(area, &region.descriptor.range, &entry.split_keys)?);
    Ok(Applied::outcome(EntryOutcome::DONE))
}

pub(super) fn chunk(
    state: &mut GroupState,
    index: LogIndex,
    entry: &v1::RegionChunk,
    sink: &dyn RowSink,
) -> io::Result<Result<Applied, EntryOutcome>> {
    let epoch = state.epoch;
    let region = match continued(state, entry) {
        Ok(region) => region,
        Err(refused) => return Ok(Err(refused)),
    };
    let rows = [(RowOp::Put, &entry.puts), (RowOp::Delete, &entry.deletes)];
    let mut decoded = Vec::with_capacity(rows.len());
    for (op, rows) in rows {
        let write = WriteRequest {
            op: op.into(),
            schema_version: entry.schema_version,
            rows: rows.clone(),
            ..WriteRequest::default()
        };
        match decode_rows(&region.descriptor, &write) {
            Ok(rows) => decoded.push((write, rows)),
            Err(refused) => return Ok(Err(refused)),
        }
    }
    for (ordinal, (write, rows)) in (0..).zip(decoded) {
        let Some(rows) = rows else { continue };
        let point = RowsPoint { at: (index, ordinal), epoch };
        if let Err(refused) = put_rows(region, point, &write, rows, sink)? {
            return Ok(Err(refused));
        }
    }
    if let Some(Ok(part)) = region.merge.as_mut().map(|merge| merge.continued(entry)) {
        part.record(entry);
    }
    Ok(Ok(Applied::outcome(EntryOutcome::DONE)))
}

/// Returns the region whose merge a chunk continues.
fn continued<'a>(
    state: &'a mut GroupState,
    entry: &v1::RegionChunk,
) -> Result<&'a mut RegionState, EntryOutcome> {
    let region = region_with_area(state, entry.region_id, &entry.area_id)?;
    match &mut region.merge {
        Some(merge) if Some(merge.area) == area_from_wire(&entry.area_id) => {
            merge.continued(entry)?;
        }
        _ => return Err(area_not_open(region)),
    }
    Ok(region)
}

/// Returns a region whose area is open.
fn region_with_area<'a>(
    state: &'a mut GroupState,
    id: u64,
    area: &[u8],
) -> Result<&'a mut RegionState, EntryOutcome> {
    let region = admitted(state, RegionId(id), None, Operation::Write)?;
    if area_from_wire(area).is_some_and(|area| region.areas.contains(&area)) {
        return Ok(region);
    }
    Err(area_not_open(region))
}

fn area_not_open(region: &RegionState) -> EntryOutcome {
    let id = region.descriptor.region_id;
    let text = format!("region {id} merges no such staging area: the refresh has ended");
    EntryOutcome::refused(Reason::ProcedureSuperseded, text)
}

#[cfg(test)]
mod tests;
