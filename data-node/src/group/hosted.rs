//! The regions of a group as this node hosts them: what calls look up.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tidewater_common::ids::RegionId;
use tidewater_region_engine::Region;

use super::descriptor::Descriptor;

/// A region on this node.
#[derive(Debug, Clone)]
pub struct Hosted {
    /// Identity, schema, range.
    pub descriptor: Arc<Descriptor>,
    /// Rows and files.
    pub region: Arc<Region>,
}

/// All regions of one group on this node. Locks are held for map operations only.
#[derive(Debug, Default)]
pub struct HostedRegions {
    by_id: RwLock<BTreeMap<RegionId, Hosted>>,
}

impl HostedRegions {
    /// The region, when the group serves it.
    pub fn get(&self, region: RegionId) -> Option<Hosted> {
        self.by_id.read().get(&region).cloned()
    }

    /// All of them, by id.
    pub fn all(&self) -> Vec<Hosted> {
        self.by_id.read().values().cloned().collect()
    }

    /// Adds a region; one of the same id is closed.
    pub fn insert(&self, hosted: Hosted) {
        let id = hosted.descriptor.region_id;
        let old = self.by_id.write().insert(id, hosted);
        if let Some(old) = old {
            old.region.close();
        }
    }

    /// The region is another one from here on, in name, schema or options.
    pub fn describe(&self, descriptor: Arc<Descriptor>) {
        if let Some(hosted) = self.by_id.write().get_mut(&descriptor.region_id) {
            hosted.descriptor = descriptor;
        }
    }

    /// Puts a region away.
    pub fn remove(&self, region: RegionId) {
        let old = self.by_id.write().remove(&region);
        if let Some(old) = old {
            old.region.close();
        }
    }

    /// Puts all regions away: the replica stops, or its state is replaced by a snapshot.
    pub fn clear(&self) {
        let old = std::mem::take(&mut *self.by_id.write());
        for hosted in old.values() {
            hosted.region.close();
        }
    }
}
