//! Hints of refused calls: the state of the region whose route or schema is out of date in the call.

use tidewater_common::catalog_hint::{CatalogHint, RegionPresence, ServedRegion};
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::reason::RetryAction;
use tidewater_common::refusal::Refusal;
use tidewater_region_engine::layout::RegionDir;

use crate::group::state::GroupState;
use crate::groups::Groups;

/// Region that a call names, and its group.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallTarget {
    pub(super) group: GroupId,
    pub(super) region: RegionId,
}

impl CallTarget {
    /// Creates the target of a call from the ids of its request.
    pub(super) fn new(group: u64, region: u64) -> Self {
        Self { group: GroupId(group), region: RegionId(region) }
    }

    /// Returns the directory of the region, if this node has it.
    pub(super) fn dir(self, groups: &Groups) -> Option<RegionDir> {
        let replica = groups.get(self.group).ok()?;
        Some(replica.shared.regions.get(self.region)?.descriptor.dir())
    }
}

/// Adds the state of the region to an RPC error after which the caller refreshes its catalog.
pub(super) fn with_hint(groups: &Groups, target: CallTarget, refusal: Refusal) -> Refusal {
    if refusal.retry_action() != RetryAction::RefreshCatalog {
        return refusal;
    }
    let Ok(replica) = groups.get(target.group) else { return refusal };
    let region = target.region;
    let presence = presence(&replica.shared.state.read(), replica.group(), region);
    refusal.catalog_hint(CatalogHint::Region { region, presence })
}

/// Returns the presence of a region in a group, as far as the replica has applied the group's log.
fn presence(state: &GroupState, group: GroupId, region: RegionId) -> RegionPresence {
    match state.regions.get(&region) {
        Some(served) => RegionPresence::Served(ServedRegion {
            table: served.descriptor.table_id,
            schema_version: served.descriptor.schema_version(),
            group,
            range: Some(served.descriptor.range.clone()),
        }),
        None if state.dropped.contains(&region) => RegionPresence::Dropped,
        None => match state.moves.departure(region) {
            Some(departure) => RegionPresence::Moved(departure.to),
            None => RegionPresence::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{SchemaVersion, Sequence, TableId};
    use tidewater_common::keys::KeyRange;

    use super::*;
    use crate::group::descriptor::Descriptor;
    use crate::group::moves::Departure;
    use crate::group::state::RegionState;
    use crate::group::testing::{key, region};

    #[test]
    fn presence_follows_the_registry_of_the_group() {
        let mut state = GroupState::default();
        let described = region(7, Some(3), None);
        let descriptor = Descriptor::new(&described).unwrap();
        state.regions.insert(RegionId(7), RegionState::new(descriptor, Sequence(0)));
        state.drop_region(RegionId(6));
        state.moves.depart(RegionId(9), Departure { epoch: 4, to: GroupId(2) });
        let presence = |id| presence(&state, GroupId(5), RegionId(id));
        let expected = ServedRegion {
            table: TableId(described.table_id),
            schema_version: SchemaVersion(1),
            group: GroupId(5),
            range: Some(KeyRange::new(key(3), None)),
        };
        assert_eq!(presence(7), RegionPresence::Served(expected));
        assert_eq!(presence(6), RegionPresence::Dropped);
        assert_eq!(presence(8), RegionPresence::Unknown);
        assert_eq!(presence(9), RegionPresence::Moved(GroupId(2)));
    }
}
