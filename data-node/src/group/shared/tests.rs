use tidewater_common::ids::{Epoch, ManifestVersion, OwnerEpoch, RegionId, Sequence, Term};
use tidewater_common::keys::KeyRange;
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::region::{Cause, Obligation, Parent, PendingObligation, Phase};
use tidewater_region_engine::storage::Storage;
use tidewater_region_engine::{Region, RowOp, RowsWrite};

use super::ReplicaState;
use crate::group::descriptor::Descriptor;
use crate::group::hosted::HostedRegion;
use crate::group::state::RegionState;
use crate::group::testing::{batch, host, key, region, shared};

// A load or a flush that an install overtakes reports to a replaced region object. Counting the
// report for the successor would leave the successor loading forever.
#[tokio::test]
async fn load_of_a_replaced_region_is_ignored() {
    let shared = shared(Storage::memory(), 1 << 20);
    let id = RegionId(7);
    let old = host(&shared, 7);
    let new = host(&shared, 7);
    shared.targets.request(id, ManifestVersion(3));
    shared.record_loaded(id, &old, ManifestVersion(9));
    assert!(shared.targets.is_open(id));
    shared.record_loaded(id, &new, ManifestVersion(2));
    assert!(shared.targets.is_open(id));
    shared.record_loaded(id, &new, ManifestVersion(3));
    assert!(!shared.targets.is_open(id));
}

// A replica that applies the log late finds the parent removed, and its children have flushed its rows.
#[tokio::test]
async fn children_replace_a_region_that_is_closed() {
    for is_closed in [false, true] {
        let shared = shared(Storage::memory(), 1 << 20);
        let parent = host(&shared, 7);
        if is_closed {
            parent.close();
        }
        let serving = divide(&shared, ManifestVersion(1));
        let serving = serving.iter().map(|hosted| hosted.descriptor.region_id);
        assert_eq!(serving.collect::<Vec<_>>(), [RegionId(8), RegionId(9)]);
    }
}

#[tokio::test]
async fn children_of_a_sealed_region_serve_at_once() {
    let shared = shared(Storage::memory(), 1 << 20);
    let parent = host(&shared, 7);
    let sealed_at = seal(&shared, &parent).await;
    for hosted in divide(&shared, sealed_at) {
        assert_eq!(hosted.region.stats().phase, Phase::Following);
    }
}

async fn seal(shared: &ReplicaState, region: &Region) -> ManifestVersion {
    let owner = OwnerEpoch { move_epoch: 0, term: Term(1) };
    region.take_ownership(owner, shared.group).await.unwrap();
    let empty = KeyRange::new(Vec::new(), Some(Vec::new()));
    region.set_range(empty, None).await.unwrap()
}

fn dir(descriptor: &Descriptor) -> RegionDir {
    RegionDir {
        table_id: descriptor.table_id,
        region_id: descriptor.region_id,
        incarnation: descriptor.incarnation,
    }
}

/// Divides region 7 and returns the regions that serve it then.
fn divide(shared: &ReplicaState, sealed_at: ManifestVersion) -> Vec<HostedRegion> {
    let descriptor = shared.regions.get(RegionId(7)).unwrap().descriptor;
    let dir = dir(&descriptor);
    let children = [RegionId(8), RegionId(9)];
    let ranges = [KeyRange::new(Vec::new(), Some(key(10))), KeyRange::new(key(10), None)];
    for (id, range) in children.into_iter().zip(ranges) {
        let child = descriptor.child(id, range).unwrap();
        let mut child = RegionState::new(child, Sequence(0));
        child.parents = vec![Parent { dir, sealed_at, last_sequence: Sequence(0) }];
        shared.state.write().regions.insert(id, child);
    }
    shared.divide(RegionId(7), &children).unwrap();
    shared.regions.serving(RegionId(7)).unwrap()
}

// A merge names both parents; a replica that has read their seals serves at once.
#[tokio::test]
async fn child_replaces_regions_that_are_sealed_or_removed() {
    for is_closed in [false, true] {
        let shared = shared(Storage::memory(), 1 << 20);
        let whole = Descriptor::new(&region(7, None, None)).unwrap();
        let ids = [RegionId(7), RegionId(8)];
        let ranges = [KeyRange::new(Vec::new(), Some(key(10))), KeyRange::new(key(10), None)];
        let mut parents = Vec::new();
        for (id, range) in ids.into_iter().zip(ranges) {
            let descriptor = whole.child(id, range).unwrap();
            let state = RegionState::new(descriptor.clone(), Sequence(0));
            shared.state.write().regions.insert(id, state);
            let parent =
                shared.host(descriptor.clone(), Sequence(0), Sequence(0), Vec::new()).unwrap();
            parents.push(Parent {
                dir: dir(&descriptor),
                sealed_at: seal(&shared, &parent).await,
                last_sequence: Sequence(0),
            });
            if is_closed && id == ids[1] {
                parent.close();
            }
        }
        let child = RegionId(9);
        let of_child = whole.child(child, KeyRange::whole()).unwrap();
        let state = RegionState { parents, ..RegionState::new(of_child, Sequence(0)) };
        shared.state.write().regions.insert(child, state);
        shared.merge(&ids, child).unwrap();
        for id in ids {
            let serving = shared.regions.serving(id).unwrap();
            assert_eq!(serving.len(), 1);
            assert_eq!(serving[0].descriptor.region_id, child);
            let phase = serving[0].region.stats().phase;
            let expected = if is_closed { Phase::Loading } else { Phase::Following };
            assert_eq!(phase, expected);
        }
    }
}

// The log knows that the manifest has recorded it; this replica has not read that yet.
#[tokio::test]
async fn decision_recorded_elsewhere_does_not_prevent_a_division() {
    let shared = shared(Storage::memory(), 1 << 20);
    let parent = host(&shared, 7);
    let cause = Cause { sequence: Sequence(5), procedure: None };
    let truncate = PendingObligation { cause, obligation: Obligation::Truncate };
    parent.apply_obligation(truncate).unwrap();
    assert_eq!(divide(&shared, ManifestVersion(1)).len(), 2);
}

// One replica may have read the flush of one parent only: it must not fail where others apply the merge.
#[tokio::test]
async fn flush_known_to_the_log_permits_a_merge() {
    let shared = shared(Storage::memory(), 1 << 20);
    let whole = Descriptor::new(&region(7, None, None)).unwrap();
    let ids = [RegionId(7), RegionId(8)];
    let ranges = [KeyRange::new(Vec::new(), Some(key(10))), KeyRange::new(key(10), None)];
    let flushed = [Sequence(5), Sequence(9)];
    for ((id, range), (flushed, has_read)) in
        ids.into_iter().zip(ranges).zip(flushed.into_iter().zip([false, true]))
    {
        let descriptor = whole.child(id, range).unwrap();
        let state = RegionState::new(descriptor.clone(), Sequence(0));
        shared.state.write().regions.insert(id, RegionState { flushed, ..state });
        let read = if has_read { flushed } else { Sequence(0) };
        let parent = shared.host(descriptor, Sequence(0), read, Vec::new()).unwrap();
        let batch = batch(&[if has_read { 15 } else { 5 }]);
        let write = RowsWrite { sequence: flushed, epoch: Epoch(0), op: RowOp::Put, batch };
        parent.apply(write).unwrap();
    }
    let child = RegionId(9);
    let of_child = RegionState::new(whole.child(child, KeyRange::whole()).unwrap(), Sequence(0));
    shared.state.write().regions.insert(child, of_child);
    shared.merge(&ids, child).unwrap();
    let merged = shared.regions.get(child).unwrap().region;
    assert_eq!((merged.flushed_sequence(), merged.stats().memtable_rows), (Sequence(9), 0));
}

#[tokio::test]
async fn replaced_region_is_served_by_all_children() {
    let shared = shared(Storage::memory(), 1 << 20);
    let [parent, left, right] = [7, 8, 9].map(RegionId);
    host(&shared, 7);
    host(&shared, 8);
    shared.regions.set_children(parent, vec![left, right]);
    assert!(shared.regions.serving(parent).is_none(), "one of them is not open yet");
    host(&shared, 9);
    assert_eq!(shared.regions.serving(parent).map(|of| of.len()), Some(2));
    let current = shared.regions.current();
    let current: Vec<RegionId> = current.iter().map(|of| of.descriptor.region_id).collect();
    assert_eq!(current, [left, right]);
}
