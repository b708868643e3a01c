//! `released`: another group has the region. Of a region that was fenced for the move, the service ends; of one that was
//! to be received, the preparation does. Calls that name it receive the group.

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_proto::v1::{self, Reason};

use super::prepared::{move_epoch, superseded};
use super::{Applied, ApplyEffect};
use crate::group::admits::{Operation, ServingState};
use crate::group::entry::EntryOutcome;
use crate::group::moves::Departure;
use crate::group::state::GroupState;

pub(super) fn apply(
    state: &mut GroupState,
    entry: &v1::RegionReleased,
) -> Result<Applied, EntryOutcome> {
    let id = RegionId(entry.region_id);
    let epoch = move_epoch(entry.step.as_ref())?;
    let to = GroupId(entry.group_id);
    let Some(region) = state.regions.get(&id) else {
        let known = state.moves.departure(id);
        if state.dropped.contains(&id) || known.is_some_and(|known| known.epoch >= epoch) {
            return Ok(Applied::repeated());
        }
        state.moves.depart(id, Departure { epoch, to });
        return Ok(Applied::outcome(EntryOutcome::DONE));
    };
    // A later move has brought it back.
    if region.owner.move_epoch > epoch {
        return Ok(Applied::repeated());
    }
    // It was received with this move, or kept by this group.
    if region.owner.move_epoch == epoch && region.serving() != ServingState::Departing {
        return Err(superseded(id, epoch));
    }
    region.admit(Operation::Release)?;
    if region.moving_to != Some(to) || region.step.is_none_or(|step| step.number != epoch) {
        let text = format!("region {id} is being moved to another group than {to}");
        return Err(EntryOutcome::refused(Reason::RouteBusy, text));
    }
    state.regions.remove(&id);
    state.moves.depart(id, Departure { epoch, to });
    Ok(Applied::with_effect(ApplyEffect::Close(id)))
}
