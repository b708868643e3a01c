use tidewater_common::ids::{ManifestVersion, RegionId};
use tidewater_region_engine::storage::Storage;

use crate::group::testing::{host, shared};

// A load or a flush that an install overtook reports on a region object that is no more: taking that
// for its successor would leave the successor loading for good.
#[tokio::test]
async fn what_a_replaced_region_has_reached_says_nothing_about_its_successor() {
    let shared = shared(Storage::memory(), 1 << 20);
    let id = RegionId(7);
    let old = host(&shared, 7);
    let new = host(&shared, 7);
    shared.targets.want(id, ManifestVersion(3));
    shared.reached(id, &old, ManifestVersion(9));
    assert!(shared.targets.is_open(id));
    shared.reached(id, &new, ManifestVersion(2));
    assert!(shared.targets.is_open(id));
    shared.reached(id, &new, ManifestVersion(3));
    assert!(!shared.targets.is_open(id));
}
