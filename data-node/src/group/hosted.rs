//! Regions of a group on this node, looked up by calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;
use tidewater_common::ids::RegionId;
use tidewater_hook_kinds::EventTables;
use tidewater_region_engine::Region;

use super::descriptor::Descriptor;
use super::region_load::RegionLoad;

/// A region of a group on this node.
#[derive(Debug, Clone)]
pub struct HostedRegion {
    /// Identity, schema, range.
    pub descriptor: Arc<Descriptor>,
    /// Rows and files of the region.
    pub region: Arc<Region>,
    /// Its load in the current window.
    pub load: Arc<RegionLoad>,
}

impl HostedRegion {
    /// Returns a region without load.
    pub fn new(descriptor: Arc<Descriptor>, region: Arc<Region>) -> Self {
        let load = Arc::new(RegionLoad::new(descriptor.region_id.get()));
        Self { descriptor, region, load }
    }
}

/// All regions of one group on this node. Locks are held for map operations only.
#[derive(Debug, Default)]
pub struct HostedRegions {
    by_id: RwLock<BTreeMap<RegionId, HostedRegion>>,
    /// Children that have replaced a region, in key order.
    children: RwLock<BTreeMap<RegionId, Vec<RegionId>>>,
    /// Regions that the group has received, and does not serve yet.
    arriving: RwLock<BTreeSet<RegionId>>,
    /// Tables that hold events.
    event_tables: EventTables,
}

impl HostedRegions {
    /// Creates an empty set. Tables of regions are added to `event_tables` if they hold events.
    pub fn new(event_tables: EventTables) -> Self {
        Self { event_tables, ..Self::default() }
    }

    /// Returns a region if the group serves it.
    pub fn get(&self, region: RegionId) -> Option<HostedRegion> {
        self.by_id.read().get(&region).cloned()
    }

    /// Returns the regions that serve reads of a region: itself, or the children that have replaced it, in key
    /// order. `None`: the group does not serve it, or not all of them yet.
    pub fn serving(&self, region: RegionId) -> Option<Vec<HostedRegion>> {
        let children = self.children.read();
        let regions = self.by_id.read();
        match children.get(&region) {
            Some(children) => children.iter().map(|child| regions.get(child).cloned()).collect(),
            None => Some(vec![regions.get(&region).cloned()?]),
        }
    }

    /// Sets whether the group has yet to serve a region that it has received.
    pub fn set_arriving(&self, region: RegionId, is_arriving: bool) {
        let mut arriving = self.arriving.write();
        if is_arriving {
            arriving.insert(region);
        } else {
            arriving.remove(&region);
        }
    }

    /// Returns whether the group has yet to serve a region that it has received.
    pub fn is_arriving(&self, region: RegionId) -> bool {
        self.arriving.read().contains(&region)
    }

    /// Lets children serve the reads of a region.
    pub fn set_children(&self, parent: RegionId, children: Vec<RegionId>) {
        self.children.write().insert(parent, children);
    }

    /// Returns whether children have replaced a region.
    pub fn is_replaced(&self, region: RegionId) -> bool {
        self.children.read().contains_key(&region)
    }

    /// Returns the regions that no children have replaced, by id.
    pub fn current(&self) -> Vec<HostedRegion> {
        let children = self.children.read();
        let regions = self.by_id.read();
        let current = regions.iter().filter(|(id, _)| !children.contains_key(id));
        current.map(|(_, hosted)| hosted.clone()).collect()
    }

    /// Returns all regions, by id.
    pub fn all(&self) -> Vec<HostedRegion> {
        self.by_id.read().values().cloned().collect()
    }

    /// Adds a region and closes the previous one with the same id.
    pub fn insert(&self, hosted: HostedRegion) {
        let id = hosted.descriptor.region_id;
        if hosted.descriptor.options.holds_events {
            self.event_tables.add(hosted.descriptor.table_id);
        }
        let old = self.by_id.write().insert(id, hosted);
        if let Some(old) = old {
            old.region.close();
        }
    }

    /// Replaces a region's description: name, schema or options have changed.
    pub fn set_descriptor(&self, descriptor: Arc<Descriptor>) {
        if let Some(hosted) = self.by_id.write().get_mut(&descriptor.region_id) {
            hosted.descriptor = descriptor;
        }
    }

    /// Removes a region and closes it.
    pub fn remove(&self, region: RegionId) {
        let mut children = self.children.write();
        let old = self.by_id.write().remove(&region);
        children.remove(&region);
        drop(children);
        self.set_arriving(region, false);
        if let Some(old) = old {
            old.region.close();
        }
    }

    /// Removes and closes all regions: the replica stops, or a snapshot replaces its state.
    pub fn clear(&self) {
        self.children.write().clear();
        self.arriving.write().clear();
        let old = std::mem::take(&mut *self.by_id.write());
        for hosted in old.values() {
            hosted.region.close();
        }
    }
}
