//! Who works with the staging areas of a region: one at a time, whoever asked. A repeat of a call waits
//! for the first one, which goes on when its caller is gone, and then finds what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::RegionId;
use tidewater_proto::v1::AreaPublished;
use tidewater_region_engine::manifest::AreaId;
use tokio::sync::OwnedMutexGuard;

/// Publications that were proposed and whose outcome is not known: none of these areas is withdrawn,
/// and whoever wants the same proposes the same again.
pub type InDoubt = BTreeMap<AreaId, AreaPublished>;

/// One lock for each region.
#[derive(Debug, Default)]
pub struct AreaWork(Mutex<BTreeMap<RegionId, Arc<tokio::sync::Mutex<InDoubt>>>>);

impl AreaWork {
    /// Waits until nobody else works with the region's areas.
    pub async fn begin(&self, region: RegionId) -> OwnedMutexGuard<InDoubt> {
        let lock = self.0.lock().entry(region).or_default().clone();
        lock.lock_owned().await
    }

    /// The region is put away.
    pub fn forget(&self, region: RegionId) {
        self.0.lock().remove(&region);
    }
}
