use tidewater_common::ids::{ManifestVersion, RegionId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_region_engine::storage::Storage;

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
        let descriptor = shared.regions.get(RegionId(7)).unwrap().descriptor;
        let children = [RegionId(8), RegionId(9)];
        let ranges = [KeyRange::new(Vec::new(), Some(key(10))), KeyRange::new(key(10), None)];
        for (id, range) in children.into_iter().zip(ranges) {
            let child = descriptor.child(id, range).unwrap();
            let child = RegionState::new(child, Sequence(0));
            shared.state.write().regions.insert(id, child);
        }
        if is_closed {
            parent.close();
        }
        shared.divide(RegionId(7), &children).unwrap();
        let serving = shared.regions.serving(RegionId(7)).unwrap();
        let serving = serving.iter().map(|hosted| hosted.descriptor.region_id);
        assert_eq!(serving.collect::<Vec<_>>(), children);
    }
}
