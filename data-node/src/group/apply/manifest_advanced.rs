//! `manifest advanced`: sets the manifest version that replicas load. Versions never decrease.

use tidewater_common::ids::Sequence;
use tidewater_proto::v1::Reason;

use super::{Applied, ApplyEffect};
use crate::group::admits::Operation;
use crate::group::entry::{EntryOutcome, ManifestAdvance};
use crate::group::state::GroupState;

pub(super) fn apply(state: &mut GroupState, advance: &ManifestAdvance) -> Applied {
    let id = advance.region_id;
    let Some(region) = state.regions.get_mut(&id) else {
        return Applied::outcome(EntryOutcome::refused(
            Reason::RegionNotFound,
            format!("region {id} is not open in this group: its manifest cannot advance"),
        ));
    };
    if let Err(refused) = region.admit(Operation::Advance) {
        return Applied::outcome(refused);
    }
    if advance.owner < region.owner {
        return Applied::outcome(EntryOutcome::refused(
            Reason::RegionFenced,
            format!("region {id} is owned by the newer {}, not {}", region.owner, advance.owner),
        ));
    }
    region.owner = advance.owner;
    region.flushed = region.flushed.max(advance.flushed);
    region.obligations.retain(|pending| pending.cause.sequence > advance.done);
    if advance.version <= region.manifest_version {
        return Applied::outcome(EntryOutcome::Done {
            sequence: Sequence(0),
            rows: 0,
            repeated: true,
        });
    }
    region.manifest_version = advance.version;
    // The region's own manifest exists.
    region.parents.clear();
    Applied::with_effect(ApplyEffect::Follow(id, advance.version))
}
