use tidewater_common::ids::{GroupId, ManifestVersion, OwnerEpoch, RegionId, Sequence, Term};
use tidewater_common::keys::KeyRange;
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::region::{Parent, Phase};
use tidewater_region_engine::storage::Storage;

use super::ReplicaState;
use crate::group::hosted::HostedRegion;
use crate::group::state::RegionState;
use crate::group::testing::{host, key, shared};

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
    let owner = OwnerEpoch { move_epoch: 0, term: Term(1) };
    parent.take_ownership(owner, GroupId(5)).await.unwrap();
    let empty = KeyRange::new(Vec::new(), Some(Vec::new()));
    let sealed_at = parent.set_range(empty, None).await.unwrap();
    for hosted in divide(&shared, sealed_at) {
        assert_eq!(hosted.region.stats().phase, Phase::Following);
    }
}

/// Divides region 7 and returns the regions that serve it then.
fn divide(shared: &ReplicaState, sealed_at: ManifestVersion) -> Vec<HostedRegion> {
    let descriptor = shared.regions.get(RegionId(7)).unwrap().descriptor;
    let dir = RegionDir {
        table_id: descriptor.table_id,
        region_id: descriptor.region_id,
        incarnation: descriptor.incarnation,
    };
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
