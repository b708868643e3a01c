//! `dropped`: the region's manifest has its `Remove`; the replicas forget the region.

use tidewater_common::ids::{RegionId, Sequence};

use super::{Applied, Effect};
use crate::group::entry::Outcome;
use crate::group::state::GroupState;

pub(super) fn apply(state: &mut GroupState, region: RegionId) -> Applied {
    if state.drop_region(region) {
        Applied::with_effect(Effect::Close(region))
    } else {
        Applied::outcome(Outcome::Done { sequence: Sequence(0), rows: 0, repeated: true })
    }
}
