//! Replacement of a replica's state by a snapshot.

use std::collections::BTreeMap;
use std::io;

use tidewater_common::ids::RegionId;
use tidewater_region_engine::region::PendingObligation;
use tidewater_region_engine::{Region, RunImage};

use crate::group::shared::{ReplicaState, ignore_closed};
use crate::group::snapshot::SnapshotView;

/// Replaces all regions by new ones with the snapshot's rows. Their manifests are loaded in the
/// background at their latest versions, which may be newer than those in the snapshot: rows at or
/// below the flushed sequence in the manifest are not read from runs.
pub(super) fn install(shared: &ReplicaState, view: SnapshotView) -> io::Result<()> {
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
    let mut replaced = Vec::new();
    for (id, state) in &view.state.regions {
        let parents = state.parents.clone();
        shared.regions.set_arriving(*id, state.arriving);
        let region = shared.host(state.descriptor.clone(), state.base, state.flushed, parents)?;
        if let Some((since, _)) = view.state.readable_epochs(*id) {
            region.advance_since(since);
        }
        if let Some(images) = runs.remove(id) {
            region.restore(images);
        }
        if !state.children.is_empty() {
            replaced.push((*id, state.children.clone()));
        }
        for pending in &state.obligations {
            decide(&region, pending)?;
        }
        shared.targets.request(*id, state.manifest_version);
    }
    for (parent, children) in replaced {
        shared.regions.set_children(parent, children);
    }
    shared.set_level(view.state.level);
    shared.set_epoch(view.state.epoch);
    *shared.state.write() = view.state;
    shared.housekeeping.notify_one();
    Ok(())
}

/// Hands a region a decision that its manifest has yet to record. After a truncation, the snapshot
/// has no rows of the region, but files may still exist.
fn decide(region: &Region, pending: &PendingObligation) -> io::Result<()> {
    ignore_closed(region.apply_obligation(pending.clone()))
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{OwnerEpoch, Sequence, Term};
    use tidewater_region_engine::EngineError;
    use tidewater_region_engine::region::{Cause, Obligation};
    use tidewater_region_engine::storage::Storage;

    use super::*;
    use crate::group::testing::{host, options, schema, shared};

    // The manifest may be read, and contain its `Remove`, before all decisions are handed over. An
    // error would stop the group's Raft permanently.
    #[tokio::test]
    async fn removed_region_ignores_pending_decisions() {
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
            decide(&region, &PendingObligation { cause, obligation }).unwrap();
        }
        assert_eq!(region.obligations(), []);
    }
}
