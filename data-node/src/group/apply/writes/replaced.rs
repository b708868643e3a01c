//! Writes that name a region after its children have replaced it. Each child takes the rows of its range, and records
//! the write also without any: otherwise it would refuse the producer's next write.

use std::io;

use tidewater_common::ids::{RegionId, SchemaVersion, Sequence};
use tidewater_proto::v1::Reason;

use super::decoded_rows::DecodedRows;
use super::{
    Attempt, carry_out, named_opening, producer_key, refused_by, sequence_at, served_version,
};
use crate::group::apply::RowSink;
use crate::group::entry::EntryOutcome;
use crate::group::producers::{ProducerKey, WriteDecision};
use crate::group::state::GroupState;

/// Part of a write for a child.
struct ChildPart {
    child: RegionId,
    decision: WriteDecision,
    rows: Option<DecodedRows>,
}

pub(super) fn apply(
    state: &mut GroupState,
    region: RegionId,
    attempt: &Attempt<'_>,
    sink: &dyn RowSink,
) -> io::Result<EntryOutcome> {
    let key = match producer_key(attempt.write) {
        Ok(key) => key,
        Err(refused) => return Ok(refused),
    };
    let parts = match cut(state, region, attempt, key) {
        Ok(parts) => parts,
        Err(refused) => return Ok(refused),
    };
    let (mut last, mut total, mut all_repeated) = (Sequence(0), 0_u32, true);
    for ChildPart { child, decision, rows } in parts {
        // Checked when the write was cut.
        let Some(child) = state.regions.get_mut(&child) else { continue };
        match carry_out(child, attempt, (key, decision), rows, sink)? {
            EntryOutcome::Done { sequence, rows, repeated } => {
                last = last.max(sequence);
                total = total.saturating_add(rows);
                all_repeated &= repeated;
            }
            refused @ EntryOutcome::Refused { .. } => return Ok(refused),
        }
    }
    Ok(EntryOutcome::Done { sequence: last, rows: total, repeated: all_repeated })
}

/// Decides about a write in all children before the first of them takes it.
fn cut(
    state: &GroupState,
    region: RegionId,
    attempt: &Attempt<'_>,
    key: ProducerKey,
) -> Result<Vec<ChildPart>, EntryOutcome> {
    let missing = || {
        let text = format!("a child of region {region} is not served by this group");
        EntryOutcome::refused(Reason::RouteBusy, text)
    };
    let parent = state.regions.get(&region).ok_or_else(missing)?;
    let write = attempt.write;
    served_version(&parent.descriptor, SchemaVersion(write.schema_version))?;
    let rows = DecodedRows::decode(&parent.descriptor, write)?;
    let part = |id: &RegionId| {
        let child = state.regions.get(id).filter(|child| child.children.is_empty());
        let child = child.ok_or_else(missing)?;
        let decision = child.producers.judge(&key, named_opening(write), attempt.serial());
        let serial = attempt.serial();
        if let Some(refused) = refused_by(&child.descriptor, &decision, key, serial) {
            return Err(refused);
        }
        sequence_at(child, attempt.at)?;
        let rows = rows.as_ref().map(|rows| rows.within(&child.descriptor)).transpose()?;
        Ok(ChildPart { child: *id, decision, rows: rows.flatten() })
    };
    parent.children.iter().map(part).collect()
}
