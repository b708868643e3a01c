//! The cluster's catalog as the node's watch delivers it: what calls of the meta leader are checked
//! against.
//!
//! It may be older than the catalog on which a call was decided. A call therefore names its revision,
//! and waits for it here.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::RwLock;
use tidewater_common::ids::{Epoch, GroupId, Incarnation, NodeId, RegionId};
use tidewater_common::keys::split_global_key;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, NodeState, Reason, watch_event::Event};
use tidewater_raft_store::MemberRecords;
use tidewater_raft_store::types::{LogId, log_id};
use tokio::sync::watch;

/// Longest wait of a call for the catalog on which it was decided. Events of the watch are more frequent.
const WAIT: Duration = Duration::from_secs(3);

/// A region's place: the parts of its route that a data node needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegionPlace {
    pub(crate) table_id: u32,
    pub(crate) group_id: u64,
    /// Incarnation of the cluster at the region's creation.
    pub(crate) incarnation: u64,
    /// First row key.
    pub(crate) start: Vec<u8>,
    /// Row key after the last one; `None`: the end of the table.
    pub(crate) end: Option<Vec<u8>>,
}

/// Records of the catalog at one revision.
#[derive(Debug, Default)]
pub(crate) struct CatalogRecords {
    /// Tables name the changes in progress.
    pub(crate) has_table_changes: bool,
    /// All ids of regions that exist or have existed are smaller. 0: the meta node does not send it.
    pub(crate) next_region_id: u64,
    pub(crate) tables: BTreeMap<u32, v1::Table>,
    pub(crate) regions: BTreeMap<u64, RegionPlace>,
    pub(crate) groups: BTreeMap<u64, v1::Group>,
    pub(crate) nodes: BTreeMap<u64, v1::Node>,
}

/// The catalog of this node's watch.
#[derive(Debug)]
pub struct WatchedCatalog {
    records: RwLock<CatalogRecords>,
    revision: watch::Sender<u64>,
}

impl MemberRecords for WatchedCatalog {
    fn members(&self, group: GroupId) -> Option<(LogId, Vec<NodeId>)> {
        let records = self.records.read();
        let group = records.groups.get(&group.get()).filter(|group| !group.voters.is_empty())?;
        let members = group.voters.iter().chain(&group.learners).copied().map(NodeId).collect();
        Some((log_id(group.membership_term, group.membership_index), members))
    }
}

impl Default for WatchedCatalog {
    fn default() -> Self {
        Self { records: RwLock::default(), revision: watch::Sender::new(0) }
    }
}

impl WatchedCatalog {
    /// Applies an event of the catalog watch.
    pub fn follow(&self, event: &Event) {
        match event {
            Event::Snapshot(snapshot) => {
                *self.records.write() = CatalogRecords::from(snapshot);
                self.revision.send_replace(snapshot.revision);
            }
            Event::Delta(delta) => {
                self.records.write().apply(delta);
                self.revision.send_replace(delta.revision);
            }
            // Shows that the watch is not interrupted.
            Event::CurrentRevision(_) => self.revision.send_modify(|_| {}),
        }
    }

    /// Reads the current records.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&CatalogRecords) -> T) -> T {
        read(&self.records.read())
    }

    /// Returns the regions of all tables.
    pub(crate) fn region_ids(&self) -> Vec<RegionId> {
        self.records.read().regions.keys().copied().map(RegionId).collect()
    }

    /// Returns whether a node is up.
    pub(crate) fn is_up(&self, node: u64) -> bool {
        let records = self.records.read();
        records.nodes.get(&node).is_some_and(|node| node.state() == NodeState::Up)
    }

    /// Waits for a revision, then checks a call against the records. `revision` 0: the current one.
    pub(crate) async fn check<T>(
        &self,
        revision: u64,
        check: impl FnOnce(&CatalogRecords) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut known = self.revision.subscribe();
        let needed = revision.max(1);
        let reached = known.wait_for(|known| *known >= needed);
        let reached = matches!(tokio::time::timeout(WAIT, reached).await, Ok(Ok(_)));
        if !reached {
            let known = *self.revision.borrow();
            return Err(Refusal::new(
                Reason::CatalogBehind,
                format!("this node knows the catalog up to revision {known}, not {revision}"),
            )
            .retry_after(Duration::from_millis(500)));
        }
        check(&self.records.read())
    }

    /// Waits until a table is published at an epoch or at a later one, or complete at it. Ends after a short time if the watch has delivered
    /// other events only: the publication does not exist then.
    ///
    /// # Errors
    /// [`Reason::CatalogBehind`]: the watch has delivered no events.
    pub(crate) async fn wait_for_publication(
        &self,
        table: u32,
        epoch: Epoch,
    ) -> Result<(), Refusal> {
        let mut events = self.revision.subscribe();
        let mut is_watching = false;
        let published = async {
            while !self.is_published(table, epoch) && events.changed().await.is_ok() {
                is_watching = true;
            }
        };
        let waited = tokio::time::timeout(WAIT, published).await;
        if waited.is_ok() || is_watching {
            return Ok(());
        }
        let text = format!(
            "this node receives no changes of the catalog, and knows no publication of table {table} at epoch {epoch}"
        );
        Err(Refusal::new(Reason::CatalogBehind, text).retry_after(Duration::from_millis(500)))
    }

    fn is_published(&self, table: u32, epoch: Epoch) -> bool {
        let records = self.records.read();
        let reached = |table: &v1::Table| table.published_epoch.max(table.complete_epoch);
        records.tables.get(&table).is_some_and(|table| Epoch(reached(table)) >= epoch)
    }
}

impl From<&v1::CatalogSnapshot> for CatalogRecords {
    fn from(snapshot: &v1::CatalogSnapshot) -> Self {
        let place = |route: &v1::Route| Some((route.route_id, place(route)?));
        Self {
            has_table_changes: snapshot.has_table_changes,
            next_region_id: snapshot.next_route_id,
            tables: snapshot.tables.iter().map(|table| (table.table_id, table.clone())).collect(),
            regions: snapshot.routes.iter().filter_map(place).collect(),
            groups: snapshot.groups.iter().map(|group| (group.group_id, group.clone())).collect(),
            nodes: snapshot.nodes.iter().map(|node| (node.node_id, node.clone())).collect(),
        }
    }
}

impl CatalogRecords {
    fn apply(&mut self, delta: &v1::CatalogDelta) {
        self.next_region_id = self.next_region_id.max(delta.next_route_id);
        for table in &delta.table_deletes {
            self.tables.remove(table);
        }
        for route in &delta.route_deletes {
            self.regions.remove(route);
        }
        for node in &delta.node_deletes {
            self.nodes.remove(node);
        }
        let place = |route: &v1::Route| Some((route.route_id, place(route)?));
        self.regions.extend(delta.route_upserts.iter().filter_map(place));
        self.tables.extend(delta.table_upserts.iter().map(|table| (table.table_id, table.clone())));
        self.groups.extend(delta.group_upserts.iter().map(|group| (group.group_id, group.clone())));
        self.nodes.extend(delta.node_upserts.iter().map(|node| (node.node_id, node.clone())));
    }
}

fn place(route: &v1::Route) -> Option<RegionPlace> {
    let (table, start) = split_global_key(&route.start)?;
    // The last region of a table ends where the next table begins.
    let end = route.end.as_deref().and_then(split_global_key);
    let end = end.filter(|(other, _)| *other == table);
    Some(RegionPlace {
        table_id: table.get(),
        group_id: route.group_id,
        incarnation: route.incarnation.max(Incarnation::FIRST.get()),
        start: start.to_vec(),
        end: end.map(|(_, key)| key.to_vec()),
    })
}

#[cfg(test)]
mod tests;
