//! `manifest advanced`: sets a target for the replicas. Versions never go back.

use tidewater_common::ids::Sequence;
use tidewater_proto::v1::Reason;

use super::{Applied, Effect};
use crate::group::entry::{Advance, Outcome};
use crate::group::state::GroupState;

pub(super) fn apply(state: &mut GroupState, advance: &Advance) -> Applied {
    let id = advance.region_id;
    let Some(region) = state.regions.get_mut(&id) else {
        return Applied::outcome(Outcome::refused(
            Reason::RegionNotFound,
            format!("region {id} is not open here: its manifest cannot advance"),
        ));
    };
    if advance.owner < region.owner {
        return Applied::outcome(Outcome::refused(
            Reason::RegionFenced,
            format!("region {id} is owned by {}, which came after {}", region.owner, advance.owner),
        ));
    }
    region.owner = advance.owner;
    region.flushed = region.flushed.max(advance.flushed);
    region.obligations.retain(|pending| pending.cause.sequence > advance.done);
    if advance.version <= region.manifest_version {
        return Applied::outcome(Outcome::Done { sequence: Sequence(0), rows: 0, repeated: true });
    }
    region.manifest_version = advance.version;
    Applied::with_effect(Effect::Follow(id, advance.version))
}
