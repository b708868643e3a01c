//! `received`: the group owns the manifest of a region that it has prepared for. The region begins with the state that it
//! had in the other group, whose rows are all in files, and is not served before it is activated.

#[cfg(test)]
mod tests;

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{Epoch, LogIndex, ManifestVersion, OwnerEpoch, RegionId};
use tidewater_proto::v1::{self, Reason};

use super::prepared::{move_epoch, superseded};
use super::{Applied, ApplyEffect};
use crate::group::admits::ServingState;
use crate::group::entry::EntryOutcome;
use crate::group::obligation::step_from_wire;
use crate::group::state::{GREATEST_BASE, GroupState, RegionState};

pub(super) fn apply(
    state: &mut GroupState,
    index: LogIndex,
    entry: v1::RegionReceived,
) -> Result<Applied, EntryOutcome> {
    let epoch = move_epoch(entry.step.as_ref())?;
    if FeatureLevel::new(entry.level) > state.level {
        // The state may have fields that a replica of an earlier release would lose.
        let text = format!("the other group is at feature level {}: retry", entry.level);
        return Err(EntryOutcome::refused(Reason::RouteBusy, text));
    }
    let left = entry.region.map(RegionState::from_wire);
    let left = match left {
        Some(Ok(left)) => left,
        Some(Err(error)) => return Err(invalid(error.to_string())),
        None => return Err(invalid("a received region has no state".to_owned())),
    };
    let id = left.descriptor.region_id;
    if state.regions.get(&id).is_some_and(|known| known.owner.move_epoch == epoch) {
        return Ok(Applied::repeated());
    }
    if state.moves.prepared(id) != Some(epoch) || state.regions.contains_key(&id) {
        return Err(superseded(id, epoch));
    }
    check_departing(&left)?;
    check_epoch(&left, state.epoch)?;
    let version = ManifestVersion(entry.fence_version);
    let region = begun(left, index, epoch, version, entry.step.as_ref());
    let (descriptor, base) = (region.descriptor.clone(), region.base);
    state.moves.forget(id);
    state.regions.insert(id, region);
    Ok(Applied::with_effect(ApplyEffect::Receive { descriptor, base, version }))
}

/// Checks that the group has reached the last epoch in which rows of the region were read: rows that it writes must be of
/// a later one.
pub(crate) fn check_epoch(left: &RegionState, reached: Epoch) -> Result<(), EntryOutcome> {
    match left.fence_epoch {
        Some(needed) if needed > reached => {
            let id = left.descriptor.region_id;
            let text = format!(
                "region {id} was fenced at epoch {needed}, and the group is at epoch {reached}: retry"
            );
            Err(EntryOutcome::refused(Reason::RouteBusy, text))
        }
        _ => Ok(()),
    }
}

/// Checks that all of a region is in its manifest.
pub(crate) fn check_departing(left: &RegionState) -> Result<(), EntryOutcome> {
    let id: RegionId = left.descriptor.region_id;
    let is_recorded = left.obligations.is_empty()
        && left.areas.is_empty()
        && left.parents.is_empty()
        && left.children.is_empty();
    if left.serving() != ServingState::Departing || !is_recorded {
        return Err(invalid(format!(
            "region {id} is not fenced for a move with all its decisions recorded"
        )));
    }
    if left.last_sequence > GREATEST_BASE {
        return Err(invalid(format!("region {id} has too few sequences left")));
    }
    Ok(())
}

/// Returns the state in which the region begins. The sequences of this group follow those of the other.
fn begun(
    left: RegionState,
    index: LogIndex,
    epoch: u64,
    version: ManifestVersion,
    step: Option<&v1::ProcedureStep>,
) -> RegionState {
    let base = left.last_sequence;
    let mut producers = left.producers;
    producers.rebase(index);
    RegionState {
        base,
        flushed: base,
        manifest_version: version,
        owner: OwnerEpoch { move_epoch: epoch, ..OwnerEpoch::default() },
        producers,
        step: step.map(step_from_wire),
        held: false,
        fenced: false,
        moving_to: None,
        fence_epoch: None,
        arriving: true,
        ..left
    }
}

fn invalid(text: String) -> EntryOutcome {
    EntryOutcome::refused(Reason::InvalidArgument, text)
}
