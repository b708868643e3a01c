//! `activated`: the group serves a region that it has received. The other group has ended its service.

use tidewater_common::ids::{LogIndex, RegionId};
use tidewater_proto::v1;

use super::{Applied, ApplyEffect, admitted};
use crate::group::admits::Operation;
use crate::group::entry::EntryOutcome;
use crate::group::state::GroupState;

pub(super) fn apply(
    state: &mut GroupState,
    index: LogIndex,
    entry: &v1::RegionActivated,
) -> Result<Applied, EntryOutcome> {
    let id = RegionId(entry.region_id);
    let step = entry.step.as_ref();
    let region = admitted(state, id, step, Operation::Activate)?;
    region.take_step(index, step)?;
    region.arriving = false;
    Ok(Applied::with_effect(ApplyEffect::Activate(id)))
}
