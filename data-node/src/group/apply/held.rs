//! `held`: nothing is decided any more that the region's manifest must record, or it is again. A region is held
//! before it is sealed: a sealed manifest takes no obligation, and one that is open would be lost with the region.
//! A fenced region takes no writes either: all rows of a region that is merged or moved are in files.
//!
//! The abandonment of a move names its number, under which the group has fenced the manifest again: the target
//! group cannot take it over any more.

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{GroupId, LogIndex, OwnerEpoch, RegionId};
use tidewater_proto::v1::{self, Reason};

use super::{Applied, admitted};
use crate::group::admits::Operation;
use crate::group::entry::EntryOutcome;
use crate::group::state::GroupState;

pub(super) fn apply(
    state: &mut GroupState,
    index: LogIndex,
    entry: &v1::RegionHeld,
) -> Result<Applied, EntryOutcome> {
    let step = entry.step.as_ref();
    let epoch = (state.level >= FeatureLevel::new(5)).then_some(state.epoch);
    let region = admitted(state, RegionId(entry.region_id), step, Operation::Hold)?;
    // It could neither be published nor abandoned while the region is held, and no manifest with an open staging
    // area is sealed.
    if entry.held && !region.areas.is_empty() {
        let text = format!("region {} has an open staging area", entry.region_id);
        return Err(EntryOutcome::refused(Reason::RouteBusy, text));
    }
    let number = step.map_or(0, |step| step.number);
    if entry.move_epoch != 0 && (entry.held || entry.move_epoch != number) {
        let text = "only the abandonment of a move names its number";
        return Err(EntryOutcome::refused(Reason::InvalidArgument, text));
    }
    if !entry.held && region.moving_to.is_some() && entry.move_epoch == 0 {
        let text =
            format!("region {} is being moved: the manifest must be fenced first", entry.region_id);
        return Err(EntryOutcome::refused(Reason::InvalidArgument, text));
    }
    region.take_step(index, step)?;
    region.held = entry.held;
    region.fenced = entry.held && entry.fenced;
    region.moving_to =
        Some(GroupId(entry.target_group_id)).filter(|group| region.fenced && group.get() != 0);
    // Until the other group serves the region, it may still be at an earlier epoch, in which rows would follow.
    region.fence_epoch = region.moving_to.and(epoch);
    if !entry.held && entry.move_epoch != 0 {
        let own = OwnerEpoch { move_epoch: entry.move_epoch, ..OwnerEpoch::default() };
        region.owner = region.owner.max(own);
    }
    Ok(Applied::outcome(EntryOutcome::DONE))
}
