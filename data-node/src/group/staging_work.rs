//! Serialization of the work with a region's staging areas: one task at a time per region. A
//! repeated call waits for the first one, which continues after its caller disconnects, and then
//! finds its result.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::RegionId;
use tidewater_proto::v1::AreaPublished;
use tidewater_region_engine::manifest::AreaId;
use tokio::sync::OwnedMutexGuard;

/// Proposed publications with an unknown outcome. None of these areas may be abandoned, and a
/// repeated call must propose the same publication again.
pub type UnknownPublications = BTreeMap<AreaId, AreaPublished>;

/// One lock per region.
#[derive(Debug, Default)]
pub struct StagingWork(Mutex<BTreeMap<RegionId, Arc<tokio::sync::Mutex<UnknownPublications>>>>);

impl StagingWork {
    /// Waits for exclusive access to the region's staging areas.
    pub async fn lock(&self, region: RegionId) -> OwnedMutexGuard<UnknownPublications> {
        let lock = self.0.lock().entry(region).or_default().clone();
        lock.lock_owned().await
    }

    /// Removes the lock of a closed region.
    pub fn remove(&self, region: RegionId) {
        self.0.lock().remove(&region);
    }
}
