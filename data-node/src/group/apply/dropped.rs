//! `dropped`: the region's manifest has its `Remove`; the replicas remove the region from their
//! state.

use tidewater_common::ids::{RegionId, Sequence};

use super::{Applied, ApplyEffect};
use crate::group::entry::EntryOutcome;
use crate::group::state::GroupState;

pub(super) fn apply(state: &mut GroupState, region: RegionId) -> Applied {
    if state.drop_region(region) {
        Applied::with_effect(ApplyEffect::Close(region))
    } else {
        Applied::outcome(EntryOutcome::Done { sequence: Sequence(0), rows: 0, repeated: true })
    }
}
