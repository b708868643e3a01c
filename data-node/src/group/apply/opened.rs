//! `opened`: adds a region to the group.

use tidewater_common::ids::{Epoch, Sequence};
use tidewater_proto::v1::{self, Reason};

use super::{Applied, ApplyEffect};
use crate::group::descriptor::Descriptor;
use crate::group::entry::EntryOutcome;
use crate::group::state::{GroupState, RegionState};

pub(super) fn apply(state: &mut GroupState, entry: &v1::RegionOpened) -> Applied {
    let Some(wire) = &entry.region else {
        return Applied::outcome(EntryOutcome::refused(
            Reason::InvalidArgument,
            "the request to open a region lacks its description",
        ));
    };
    let descriptor = match Descriptor::new(wire) {
        Ok(descriptor) => descriptor,
        Err(error) => {
            return Applied::outcome(EntryOutcome::refused(
                Reason::InvalidArgument,
                error.to_string(),
            ));
        }
    };
    let id = descriptor.region_id;
    if let Some(known) = state.regions.get(&id) {
        if known.descriptor == descriptor {
            return Applied::outcome(EntryOutcome::Done {
                sequence: Sequence(0),
                rows: 0,
                repeated: true,
            });
        }
        return Applied::outcome(EntryOutcome::refused(
            Reason::InvalidArgument,
            format!("region {id} is already open with another schema, range or table"),
        ));
    }
    if state.dropped.contains(&id) {
        return Applied::outcome(EntryOutcome::refused(
            Reason::RegionNotFound,
            format!("region {id} was dropped; its id is never used again"),
        ));
    }
    if let Some(departure) = state.moves.departure(id) {
        return Applied::outcome(departure.refusal(id));
    }
    let base = Sequence(entry.base);
    // A clone has the files of its source, and was not there before either. A refreshable table is read as of epoch 0 until
    // its first refresh.
    let since = if descriptor.options.refreshable { Epoch(0) } else { state.epoch };
    state.regions.insert(id, RegionState { since, ..RegionState::new(descriptor.clone(), base) });
    Applied::with_effect(ApplyEffect::Open { descriptor, base })
}
