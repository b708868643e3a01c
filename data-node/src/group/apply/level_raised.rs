//! Raises of the group's feature level.

use tidewater_common::feature_level::FeatureLevel;
use tidewater_proto::v1::LevelRaised;

use super::Applied;
use crate::group::entry::EntryOutcome;
use crate::group::state::GroupState;

/// Raises the level by one; an entry of a higher level has been refused. Repeats, also those of an earlier
/// leader, change nothing, and the level never falls.
pub(super) fn apply(state: &mut GroupState, entry: &LevelRaised) -> Applied {
    let level = FeatureLevel::new(entry.level);
    if level <= state.level {
        return Applied::repeated();
    }
    state.level = level;
    Applied::outcome(EntryOutcome::DONE)
}
