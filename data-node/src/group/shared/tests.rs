use tidewater_common::ids::{ManifestVersion, RegionId};
use tidewater_region_engine::storage::Storage;

use crate::group::testing::{host, shared};

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
