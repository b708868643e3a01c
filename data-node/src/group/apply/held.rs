//! `held`: nothing is decided any more that the region's manifest must record, or it is again. A region is held
//! before it is sealed: a sealed manifest takes no obligation, and one that is open would be lost with the region.
//! A fenced region takes no writes either: all rows of a region that is merged are in files.

use tidewater_common::ids::{LogIndex, RegionId};
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
    let region = admitted(state, RegionId(entry.region_id), step, Operation::Hold)?;
    // It could neither be published nor abandoned while the region is held, and no manifest with an open staging
    // area is sealed.
    if entry.held && !region.areas.is_empty() {
        let text = format!("region {} has an open staging area", entry.region_id);
        return Err(EntryOutcome::refused(Reason::RouteBusy, text));
    }
    region.take_step(index, step)?;
    region.held = entry.held;
    region.fenced = entry.held && entry.fenced;
    Ok(Applied::outcome(EntryOutcome::DONE))
}
