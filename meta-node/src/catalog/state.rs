//! In-memory state of the meta group.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tidewater_common::ids::{
    CatalogVersion, GroupId, Incarnation, NodeId, RegionId, Revision, TableId,
};
use tidewater_proto::v1::{self, GroupState};
use uuid::Uuid;

use super::{
    CatalogError, Cursors, Group, Header, Hook, Node, RequestOutcome, RouteDescriptor, Table,
    validate_routes,
};

/// Number of deltas kept for watchers that reconnect.
pub const DELTAS_KEPT: usize = 1_024;
/// Retention of request ids, in milliseconds of replicated time.
pub const OUTCOME_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;
/// Retention of the record of a compactor that is not up, in milliseconds of replicated time. Apply
/// depends on it, so it never changes.
pub const COMPACTOR_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;
/// Maximum number of recorded request ids; at the limit, the oldest make room for new ones.
pub const MAX_OUTCOMES: usize = 100_000;
/// Interval at which the leader advances replicated time. Apply depends on it, so it never changes.
pub const TICK_INTERVAL_MS: u64 = 1_000;
/// Feature level of a new cluster.
pub const FEATURE_LEVEL: u32 = 1;
/// First id of data and compactor nodes. Operators choose lower ids for meta nodes; an id never
/// identifies two nodes.
pub const FIRST_NODE_ID: NodeId = NodeId(101);

/// Complete state of the meta group. Cloning copies pointers, so a clone is a frozen view.
#[derive(Debug, Clone, PartialEq)]
pub struct MetaState {
    pub(super) header: Header,
    pub(super) catalog_version: CatalogVersion,
    pub(super) next_route_id: RegionId,
    pub(super) tables: BTreeMap<TableId, Arc<Table>>,
    pub(super) routes: BTreeMap<RegionId, Arc<RouteDescriptor>>,
    pub(super) groups: BTreeMap<GroupId, Arc<Group>>,
    pub(super) nodes: BTreeMap<NodeId, Arc<Node>>,
    pub(super) hooks: BTreeMap<String, Arc<Hook>>,
    pub(super) cursors: Cursors,
    pub(super) outcomes: BTreeMap<Uuid, Arc<RequestOutcome>>,
    pub(super) deltas: VecDeque<Arc<v1::CatalogDelta>>,
    // Indexes over the fields above; rebuilt on load.
    pub(super) names: BTreeMap<String, TableId>,
    pub(super) directories: BTreeMap<Uuid, NodeId>,
    pub(super) outcome_times: BTreeSet<(u64, Uuid)>,
    pub(super) regions_of: BTreeMap<GroupId, usize>,
}

impl Default for MetaState {
    fn default() -> Self {
        Self {
            header: Header {
                cluster_id: None,
                incarnation: Incarnation(0),
                feature_level: FEATURE_LEVEL,
                time_ms: 0,
                revision: Revision(0),
                next_table_id: TableId(1),
                next_group_id: GroupId(1),
                next_node_id: FIRST_NODE_ID,
                object_store_id: None,
            },
            catalog_version: CatalogVersion(0),
            next_route_id: RegionId(1),
            tables: BTreeMap::new(),
            routes: BTreeMap::new(),
            groups: BTreeMap::new(),
            nodes: BTreeMap::new(),
            hooks: BTreeMap::new(),
            cursors: Cursors::default(),
            outcomes: BTreeMap::new(),
            deltas: VecDeque::new(),
            names: BTreeMap::new(),
            directories: BTreeMap::new(),
            outcome_times: BTreeSet::new(),
            regions_of: BTreeMap::new(),
        }
    }
}

impl MetaState {
    /// Counters and the other singletons of the state.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Catalog version; grows by exactly one with every command that changes routes.
    pub fn catalog_version(&self) -> CatalogVersion {
        self.catalog_version
    }

    /// Next route id, above every route id ever assigned.
    pub fn next_route_id(&self) -> RegionId {
        self.next_route_id
    }

    /// All tables, including those being dropped.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }

    /// The table with this id, also while it is being dropped.
    pub fn table(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables.get(&id)
    }

    /// The live table with this name.
    pub fn table_named(&self, name: &str) -> Option<&Arc<Table>> {
        self.names.get(name).and_then(|id| self.tables.get(id))
    }

    /// All routes, by id.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteDescriptor>> {
        self.routes.values()
    }

    /// The route with this id.
    pub fn route(&self, id: RegionId) -> Option<&Arc<RouteDescriptor>> {
        self.routes.get(&id)
    }

    /// All routes, sorted by start.
    pub fn routes_by_start(&self) -> Vec<&Arc<RouteDescriptor>> {
        let mut routes: Vec<_> = self.routes.values().collect();
        routes.sort_by(|left, right| left.start.cmp(&right.start));
        routes
    }

    /// The routes of one table, sorted by start.
    pub fn routes_of(&self, table: TableId) -> Vec<&Arc<RouteDescriptor>> {
        let prefix = table.get().to_be_bytes();
        let mut routes: Vec<_> =
            self.routes.values().filter(|route| route.start.starts_with(&prefix)).collect();
        routes.sort_by(|left, right| left.start.cmp(&right.start));
        routes
    }

    /// All groups, including abandoned ones.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    /// The group with this id.
    pub fn group(&self, id: GroupId) -> Option<&Arc<Group>> {
        self.groups.get(&id)
    }

    /// Active groups, each with the number of regions that it serves.
    pub fn active_groups(&self) -> impl Iterator<Item = (GroupId, usize)> {
        self.groups
            .values()
            .filter(|group| group.state == GroupState::Active)
            .map(|group| (group.id, self.regions_of.get(&group.id).copied().unwrap_or(0)))
    }

    /// All nodes, including removed ones. Records of compactors are deleted after [`COMPACTOR_KEPT_MS`].
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// Returns whether a node with this id was registered and its record has been deleted since.
    pub fn is_forgotten(&self, id: NodeId) -> bool {
        (FIRST_NODE_ID..self.header.next_node_id).contains(&id) && !self.nodes.contains_key(&id)
    }

    /// The node with this data directory id.
    pub fn node_of_directory(&self, directory: Uuid) -> Option<&Arc<Node>> {
        self.directories.get(&directory).and_then(|id| self.nodes.get(id))
    }

    /// All configured hooks, by name.
    pub fn hooks(&self) -> impl Iterator<Item = &Arc<Hook>> {
        self.hooks.values()
    }

    /// The hook with this name.
    pub fn hook(&self, name: &str) -> Option<&Arc<Hook>> {
        self.hooks.get(name)
    }

    /// Cursors of the durable hooks.
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// Recorded outcome of a request id, if it has not expired.
    pub fn outcome(&self, request: Uuid) -> Option<&Arc<RequestOutcome>> {
        self.outcomes.get(&request)
    }

    /// Number of recorded request ids.
    pub fn outcome_count(&self) -> usize {
        self.outcomes.len()
    }

    /// Recorded request ids with their times, oldest first.
    pub fn outcomes_by_time(&self) -> impl Iterator<Item = (u64, Uuid)> {
        self.outcome_times.iter().copied()
    }

    /// Request ids recorded before `time_ms`, oldest first, at most `limit`.
    pub fn outcomes_before(&self, time_ms: u64, limit: usize) -> Vec<Uuid> {
        let old = self.outcome_times.range(..(time_ms, Uuid::nil()));
        old.take(limit).map(|(_, request)| *request).collect()
    }

    /// Deltas after a revision, oldest first, at most `limit`. `None` when some of them are no
    /// longer kept, or when this state has not reached the revision.
    pub fn deltas_since(
        &self,
        revision: Revision,
        limit: usize,
    ) -> Option<Vec<Arc<v1::CatalogDelta>>> {
        let behind = self.header.revision.get().checked_sub(revision.get())?;
        let behind = usize::try_from(behind).ok()?;
        let first = self.deltas.len().checked_sub(behind)?;
        Some(self.deltas.range(first..).take(limit).cloned().collect())
    }

    /// The catalog as sent to watchers.
    pub fn catalog_snapshot(&self) -> v1::CatalogSnapshot {
        v1::CatalogSnapshot {
            cluster_id: self.header.cluster_id.map_or_else(String::new, |id| id.to_string()),
            incarnation: self.header.incarnation.get(),
            revision: self.header.revision.get(),
            catalog_version: self.catalog_version.get(),
            tables: self.tables.values().map(|table| table.as_ref().into()).collect(),
            routes: self.routes_by_start().into_iter().map(|route| route.as_ref().into()).collect(),
            groups: self.groups.values().map(|group| group.as_ref().into()).collect(),
            nodes: self.nodes.values().map(|node| node.as_ref().into()).collect(),
            hooks: self.hooks.values().map(|hook| hook.as_ref().into()).collect(),
            has_table_changes: false,
            next_route_id: 0,
        }
    }

    /// Returns the catalog with the changes of tables that are in progress, for watchers.
    pub fn published_snapshot(&self) -> v1::CatalogSnapshot {
        let mut snapshot = self.catalog_snapshot();
        self.publish_changes(&mut snapshot.tables);
        self.publish_starts(&mut snapshot.nodes);
        snapshot.has_table_changes = true;
        snapshot.next_route_id = self.next_route_id.get();
        snapshot
    }

    /// Adds the changes of tables that are in progress now to the tables of a snapshot or a delta.
    pub fn publish_changes(&self, tables: &mut [v1::Table]) {
        for published in tables {
            if let Some(table) = self.tables.get(&TableId(published.table_id)) {
                table.publish_change(published);
            }
        }
    }

    /// Adds the numbers of the newest starts to the nodes of a snapshot or a delta.
    pub fn publish_starts(&self, nodes: &mut [v1::Node]) {
        for published in nodes {
            if let Some(node) = self.nodes.get(&NodeId(published.node_id)) {
                published.boot = node.boot.get();
            }
        }
    }

    /// Checks the invariants between records: every key of every live table has exactly one route,
    /// every cursor belongs to a durable hook, and the ring of deltas has no hole.
    pub fn verify(&self) -> Result<(), CatalogError> {
        let routes: Vec<_> = self.routes_by_start().into_iter().map(Arc::as_ref).collect();
        let live = self.tables.values().filter(|table| table.is_live()).map(|table| table.id);
        validate_routes(&routes, live)?;
        for cursor in self.cursors.iter() {
            let hook = self.hooks.get(&cursor.hook);
            if hook.is_none_or(|hook| !hook.durable || hook.generation != cursor.generation) {
                let problem =
                    format!("hook {:?} of its generation is not a durable hook", cursor.hook);
                return Err(CatalogError::InvalidRecord { kind: "cursor", problem });
            }
        }
        let mut expected = self.header.revision.get();
        for delta in self.deltas.iter().rev() {
            if delta.revision != expected {
                return Err(CatalogError::DeltaHole { missing: expected });
            }
            expected = expected.saturating_sub(1);
        }
        Ok(())
    }
}
