//! `prepared`: the group is about to receive a region. The entry shows that a quorum of the group answers; it has no
//! other effect until the region is received.

use tidewater_common::ids::RegionId;
use tidewater_proto::v1::{self, Reason};

use super::Applied;
use crate::group::entry::EntryOutcome;
use crate::group::state::GroupState;

pub(super) fn apply(
    state: &mut GroupState,
    entry: &v1::RegionPrepared,
) -> Result<Applied, EntryOutcome> {
    let id = RegionId(entry.region_id);
    let epoch = move_epoch(entry.step.as_ref())?;
    if let Some(region) = state.regions.get(&id) {
        if region.owner.move_epoch == epoch {
            return Ok(Applied::repeated());
        }
        let text = format!("region {id} is served by this group already");
        return Err(EntryOutcome::refused(Reason::RouteBusy, text));
    }
    if state.dropped.contains(&id) {
        let text = format!("region {id} was dropped; its id is never used again");
        return Err(EntryOutcome::refused(Reason::RegionNotFound, text));
    }
    let ended = state.moves.departure(id).is_some_and(|departure| departure.epoch >= epoch);
    let prepared = state.moves.prepared(id);
    if ended || prepared.is_some_and(|prepared| prepared > epoch) {
        return Err(superseded(id, epoch));
    }
    if prepared == Some(epoch) {
        return Ok(Applied::repeated());
    }
    if !state.moves.prepare(id, epoch) {
        let text = "the group prepares for too many regions: retry when their moves have ended";
        return Err(EntryOutcome::refused(Reason::RouteBusy, text));
    }
    Ok(Applied::outcome(EntryOutcome::DONE))
}

/// Returns the number of the move that an entry names.
pub(super) fn move_epoch(step: Option<&v1::ProcedureStep>) -> Result<u64, EntryOutcome> {
    step.map(|step| step.number).filter(|number| *number != 0).ok_or_else(|| {
        let text = "an entry of a move must name the procedure step that causes it";
        EntryOutcome::refused(Reason::InvalidArgument, text)
    })
}

/// Returns the refusal of an entry of a move that has ended in this group.
pub(super) fn superseded(region: RegionId, epoch: u64) -> EntryOutcome {
    let text = format!("move {epoch} of region {region} has ended in this group");
    EntryOutcome::refused(Reason::ProcedureSuperseded, text)
}
