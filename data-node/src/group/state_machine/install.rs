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
    use tidewater_common::feature_level::FeatureLevel;
    use tidewater_common::ids::{Epoch, OwnerEpoch, Sequence, Term};
    use tidewater_common::schema::TableOptions;
    use tidewater_proto::v1::{self, group_entry::Entry};
    use tidewater_raft_store::types::StoredMembership;
    use tidewater_region_engine::EngineError;
    use tidewater_region_engine::region::{Cause, Obligation};
    use tidewater_region_engine::storage::Storage;

    use super::*;
    use crate::group::testing::{TestGroup, host, opened, options, region, schema, shared};

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

    #[tokio::test]
    async fn installed_region_keeps_its_own_oldest_readable_epoch() {
        let mut group = TestGroup::default();
        group.state.level = FeatureLevel::HIGHEST;
        let own = TableOptions { explicit_since: true, ..options() };
        let own = v1::RegionDescriptor { options: Some((&own).into()), ..region(7, None, None) };
        group.apply(opened(own));
        group.apply(opened(region(8, None, None)));
        let tables = vec![v1::TableSince { table_id: 3, since: 40 }];
        let barrier = v1::GroupBarrier { previous: 0, epoch: 100, since: 80, tables };
        group.apply(Entry::Barrier(barrier));
        let shared = shared(Storage::memory(), 1 << 20);
        let view = SnapshotView {
            group: shared.group,
            applied: None,
            membership: StoredMembership::default(),
            state: group.state,
            runs: Vec::new(),
        };
        let mut file = Vec::new();
        view.write(&mut file).unwrap();
        install(&shared, SnapshotView::read(&mut file.as_slice()).unwrap()).unwrap();
        let sinces = || {
            [7, 8].map(|id| shared.regions.get(RegionId(id)).map(|hosted| hosted.region.since()))
        };
        assert_eq!(sinces(), [Some(Epoch(40)), Some(Epoch(80))]);
        shared.state.write().since = Epoch(90);
        shared.advance_since();
        assert_eq!(sinces(), [Some(Epoch(40)), Some(Epoch(90))]);
    }
}
