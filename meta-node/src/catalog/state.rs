//! The state of the meta group, in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tidewater_common::ids::{
    CatalogVersion, GroupId, Incarnation, NodeId, RegionId, Revision, TableId,
};
use tidewater_proto::v1::{self, GroupState};
use uuid::Uuid;

use super::{
    CatalogError, Cursors, Group, Header, Hook, Node, Outcome, RouteDescriptor, Table,
    validate_routes,
};

/// Deltas kept for watchers that were away.
pub const DELTAS_KEPT: usize = 1_024;
/// How long a request id is remembered, in replicated time.
pub const OUTCOME_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;
/// How long a compactor that is not up is remembered, in replicated time. Apply depends on it, so
/// it never changes.
pub const COMPACTOR_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;
/// Request ids remembered at once; beyond it, new ones are refused for a while.
pub const MAX_OUTCOMES: usize = 100_000;
/// How often the leader advances replicated time. Apply depends on it, so it never changes.
pub const TICK_INTERVAL_MS: u64 = 1_000;
/// What a new cluster's state admits.
pub const FEATURE_LEVEL: u32 = 1;
/// Ids below are for meta nodes, whose ids operators choose; no id may mean two nodes.
pub const FIRST_NODE_ID: NodeId = NodeId(101);

/// All that the meta group knows. Cloning copies pointers, so a clone is a frozen view.
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
    pub(super) outcomes: BTreeMap<Uuid, Arc<Outcome>>,
    pub(super) deltas: VecDeque<Arc<v1::CatalogDelta>>,
    // Indexes over the above; rebuilt on load.
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
    /// Counters and everything else there is one of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Grows by exactly one with every command that changes routes.
    pub fn catalog_version(&self) -> CatalogVersion {
        self.catalog_version
    }

    /// Above every route id ever given out.
    pub fn next_route_id(&self) -> RegionId {
        self.next_route_id
    }

    /// All tables, also those being dropped.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }

    /// A table, also one being dropped.
    pub fn table(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables.get(&id)
    }

    /// The live table of this name.
    pub fn table_named(&self, name: &str) -> Option<&Arc<Table>> {
        self.names.get(name).and_then(|id| self.tables.get(id))
    }

    /// All routes, by id.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteDescriptor>> {
        self.routes.values()
    }

    /// One route.
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

    /// All groups, also abandoned ones.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    /// One group.
    pub fn group(&self, id: GroupId) -> Option<&Arc<Group>> {
        self.groups.get(&id)
    }

    /// Active groups with how many regions each serves.
    pub fn active_groups(&self) -> impl Iterator<Item = (GroupId, usize)> {
        self.groups
            .values()
            .filter(|group| group.state == GroupState::Active)
            .map(|group| (group.id, self.regions_of.get(&group.id).copied().unwrap_or(0)))
    }

    /// All nodes, also removed ones; but compactors only while they may come back.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// Whether a node with this id registered once and its record was deleted since.
    pub fn is_forgotten(&self, id: NodeId) -> bool {
        (FIRST_NODE_ID..self.header.next_node_id).contains(&id) && !self.nodes.contains_key(&id)
    }

    /// The node whose data directory this is.
    pub fn node_of_directory(&self, directory: Uuid) -> Option<&Arc<Node>> {
        self.directories.get(&directory).and_then(|id| self.nodes.get(id))
    }

    /// All hooks by configuration, by name.
    pub fn hooks(&self) -> impl Iterator<Item = &Arc<Hook>> {
        self.hooks.values()
    }

    /// One hook.
    pub fn hook(&self, name: &str) -> Option<&Arc<Hook>> {
        self.hooks.get(name)
    }

    /// How far durable hooks are with each region.
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// What a request id led to, if that is still remembered.
    pub fn outcome(&self, request: Uuid) -> Option<&Arc<Outcome>> {
        self.outcomes.get(&request)
    }

    /// How many request ids are remembered.
    pub fn outcome_count(&self) -> usize {
        self.outcomes.len()
    }

    /// Request ids that happened before a time, oldest first, at most `limit`.
    pub fn outcomes_before(&self, time_ms: u64, limit: usize) -> Vec<Uuid> {
        let old = self.outcome_times.range(..(time_ms, Uuid::nil()));
        old.take(limit).map(|(_, request)| *request).collect()
    }

    /// Deltas after a revision, oldest first, at most `limit`; `None` when some of them are no
    /// longer kept, or when the revision has not been reached here.
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

    /// Everything that watchers see.
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
        }
    }

    /// Checks what must hold between records: every key of every live table has exactly one route,
    /// every cursor is that of a durable hook, and the ring of deltas has no hole.
    pub fn verify(&self) -> Result<(), CatalogError> {
        let routes: Vec<_> = self.routes_by_start().into_iter().map(Arc::as_ref).collect();
        let live = self.tables.values().filter(|table| table.is_live()).map(|table| table.id);
        validate_routes(&routes, live)?;
        for cursor in self.cursors.iter() {
            let hook = self.hooks.get(&cursor.hook);
            if hook.is_none_or(|hook| !hook.durable || hook.generation != cursor.generation) {
                let problem = format!("{:?} is no durable hook of its generation", cursor.hook);
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
