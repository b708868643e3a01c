//! Replaces a replica's state by that of a snapshot.

use std::collections::BTreeMap;
use std::io;

use tidewater_common::ids::RegionId;
use tidewater_region_engine::region::PendingObligation;
use tidewater_region_engine::{Region, RunImage};

use crate::group::shared::{Shared, still_there};
use crate::group::snapshot::SnapshotView;

/// Regions begin anew with the snapshot's rows; their manifests are opened at their tails in the
/// background, which may be newer than what the snapshot names: rows at or below the flushed
/// sequence found there are not read from runs.
pub(super) fn install(shared: &Shared, view: SnapshotView) -> io::Result<()> {
    if view.group != shared.group {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "a snapshot of group {} cannot be installed in group {}",
                view.group, shared.group
            ),
        ));
    }
    let mut runs: BTreeMap<RegionId, Vec<RunImage>> = BTreeMap::new();
    for (region, image) in view.runs {
        runs.entry(region).or_default().push(image);
    }
    shared.targets.clear();
    shared.regions.clear();
    for (id, state) in &view.state.regions {
        let region = shared.host(state.descriptor.clone(), state.base, state.flushed)?;
        if let Some(images) = runs.remove(id) {
            region.restore(images);
        }
        for pending in &state.obligations {
            owe(&region, pending)?;
        }
        shared.targets.want(*id, state.manifest_version);
    }
    *shared.state.write() = view.state;
    shared.housekeeping.notify_one();
    Ok(())
}

/// Hands over what the manifest has still to record: of what is truncated, the snapshot has no rows,
/// but files that are there yet.
fn owe(region: &Region, pending: &PendingObligation) -> io::Result<()> {
    still_there(region.apply_obligation(pending.clone()))
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{OwnerEpoch, Sequence, Term};
    use tidewater_region_engine::EngineError;
    use tidewater_region_engine::region::{Cause, Obligation};
    use tidewater_region_engine::storage::Storage;

    use super::*;
    use crate::group::testing::{host, options, schema, shared};

    // The manifest may be read, and have its `Remove`, before all is handed over; failing here would
    // stop the group's Raft for good.
    #[tokio::test]
    async fn a_region_that_is_gone_is_owed_nothing() {
        let shared = shared(Storage::memory(), 1 << 20);
        let owner = host(&shared, 7);
        let own = OwnerEpoch { move_epoch: 0, term: Term(1) };
        owner.take_ownership(own, shared.group).await.unwrap();
        owner.remove().await.unwrap();
        let region = host(&shared, 7);
        assert!(matches!(region.load().await, Err(EngineError::Removed { .. })));
        let alter = Obligation::Alter { schema: Box::new(schema(2)), options: options() };
        for obligation in [Obligation::Truncate, alter] {
            let cause = Cause { sequence: Sequence(70), procedure: None };
            owe(&region, &PendingObligation { cause, obligation }).unwrap();
        }
        assert_eq!(region.obligations(), []);
    }
}
