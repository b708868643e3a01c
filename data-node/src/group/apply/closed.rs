//! `closed`: the group no longer serves a region that its children have replaced. Calls that name it are answered
//! like those of a dropped region: their callers have an old route.

use tidewater_common::ids::RegionId;
use tidewater_proto::v1;

use super::{Applied, ApplyEffect};
use crate::group::admits::Operation;
use crate::group::entry::EntryOutcome;
use crate::group::state::GroupState;

pub(super) fn apply(
    state: &mut GroupState,
    entry: &v1::RegionClosed,
) -> Result<Applied, EntryOutcome> {
    let id = RegionId(entry.region_id);
    let Some(region) = state.regions.get(&id) else { return Ok(Applied::repeated()) };
    region.admit(Operation::Close)?;
    state.drop_region(id);
    Ok(Applied::with_effect(ApplyEffect::Close(id)))
}
