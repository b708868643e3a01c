//! `held`: nothing is decided any more that the region's manifest must record, or it is again. A region is held
//! before it is sealed: a sealed manifest takes no obligation, and one that is open would be lost with the region.

use tidewater_common::ids::{LogIndex, RegionId};
use tidewater_proto::v1;

use super::{Applied, not_served};
use crate::group::admits::Operation;
use crate::group::entry::EntryOutcome;
use crate::group::obligation::step_from_wire;
use crate::group::state::{GroupState, StepResult};

pub(super) fn apply(state: &mut GroupState, index: LogIndex, entry: &v1::RegionHeld) -> Applied {
    let id = RegionId(entry.region_id);
    let Some(region) = state.regions.get_mut(&id) else {
        return Applied::outcome(not_served(id));
    };
    let step = entry.step.as_ref().map(step_from_wire);
    if let Some(earlier) = step.and_then(|step| region.earlier_step(step)) {
        return Applied::outcome(earlier);
    }
    if let Err(refused) = region.admit(Operation::Hold) {
        return Applied::outcome(refused);
    }
    match region.take_step(index, entry.step) {
        StepResult::Taken(_) => {
            region.held = entry.held;
            Applied::outcome(EntryOutcome::DONE)
        }
        StepResult::NotTaken(outcome) => Applied::outcome(outcome),
    }
}
