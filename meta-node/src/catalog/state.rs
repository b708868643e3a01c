//! In-memory state of the meta group.

use std::sync::Arc;

use rpds::{RedBlackTreeMapSync as PersistentMap, RedBlackTreeSetSync as PersistentSet};

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{
    CatalogVersion, Epoch, GroupId, Incarnation, NodeId, RegionId, Revision, SourceId, TableId,
    Term,
};
use tidewater_common::schema::dropped_table_id;
use tidewater_proto::v1;
use uuid::Uuid;

use super::{
    BalanceSettings, CatalogError, Collection, CursorWork, Cursors, Export, Exports, Group, Header,
    Hook, HookProcedure, MemberReplacement, Node, Procedures, ReadHold, ReadHolds, Refreshes,
    RequestOutcome, RouteDescriptor, RouteIndex, Since, Source, Table, validate_routes,
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
/// First id of data and compactor nodes. Operators choose lower ids for meta nodes; an id never
/// identifies two nodes.
pub const FIRST_NODE_ID: NodeId = NodeId(101);

/// Complete state of the meta group. Clones share their records and the nodes of their trees: a clone is a
/// frozen view and takes constant time.
#[derive(Debug, Clone, PartialEq)]
pub struct MetaState {
    pub(super) header: Header,
    pub(super) catalog_version: CatalogVersion,
    pub(super) next_route_id: RegionId,
    pub(super) tables: PersistentMap<TableId, Arc<Table>>,
    pub(super) routes: PersistentMap<RegionId, Arc<RouteDescriptor>>,
    pub(super) groups: PersistentMap<GroupId, Arc<Group>>,
    pub(super) nodes: PersistentMap<NodeId, Arc<Node>>,
    pub(super) hooks: PersistentMap<String, Arc<Hook>>,
    pub(super) hook_procedures: PersistentMap<String, HookProcedure>,
    pub(super) procedures: Procedures,
    pub(super) cursors: Cursors,
    pub(super) outcomes: PersistentMap<Uuid, Arc<RequestOutcome>>,
    pub(super) deltas: PersistentMap<Revision, Arc<v1::CatalogDelta>>,
    pub(super) balance: BalanceSettings,
    pub(super) soft_starts: PersistentSet<RegionId>,
    pub(super) replacement: Option<MemberReplacement>,
    pub(super) sources: PersistentMap<SourceId, Arc<Source>>,
    pub(super) refreshes: PersistentMap<TableId, Arc<Refreshes>>,
    pub(super) collections: PersistentMap<TableId, Arc<Collection>>,
    pub(super) holds: ReadHolds,
    pub(super) exports: Exports,
    pub(super) unused_ids: PersistentSet<TableId>,
    // Indexes over the fields above; rebuilt on load.
    pub(super) starts: RouteIndex,
    pub(super) in_progress: PersistentSet<TableId>,
    pub(super) names: PersistentMap<String, TableId>,
    pub(super) directories: PersistentMap<Uuid, NodeId>,
    pub(super) outcome_times: PersistentSet<(u64, Uuid)>,
    pub(super) regions_of: PersistentMap<GroupId, usize>,
}

impl Default for MetaState {
    fn default() -> Self {
        Self {
            header: Header {
                cluster_id: None,
                incarnation: Incarnation(0),
                feature_level: FeatureLevel::FIRST,
                time_ms: 0,
                agreed_term: Term(0),
                revision: Revision(0),
                next_table_id: TableId(1),
                next_group_id: GroupId(1),
                next_node_id: FIRST_NODE_ID,
                object_store_id: None,
            },
            catalog_version: CatalogVersion(0),
            next_route_id: RegionId(1),
            tables: PersistentMap::default(),
            routes: PersistentMap::default(),
            groups: PersistentMap::default(),
            nodes: PersistentMap::default(),
            hooks: PersistentMap::default(),
            hook_procedures: PersistentMap::default(),
            procedures: Procedures::default(),
            cursors: Cursors::default(),
            outcomes: PersistentMap::default(),
            deltas: PersistentMap::default(),
            balance: BalanceSettings::default(),
            soft_starts: PersistentSet::default(),
            replacement: None,
            sources: PersistentMap::default(),
            refreshes: PersistentMap::default(),
            collections: PersistentMap::default(),
            holds: ReadHolds::default(),
            exports: Exports::default(),
            unused_ids: PersistentSet::default(),
            starts: RouteIndex::default(),
            in_progress: PersistentSet::default(),
            names: PersistentMap::default(),
            directories: PersistentMap::default(),
            outcome_times: PersistentSet::default(),
            regions_of: PersistentMap::default(),
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

    /// The tables that are being created, changed, loaded or dropped.
    pub fn tables_in_progress(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.in_progress.iter().filter_map(|id| self.tables.get(id))
    }

    /// The table with this id, also while it is being dropped.
    pub fn table(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables.get(&id)
    }

    /// The live table with this name, unless it was dropped.
    pub fn table_named(&self, name: &str) -> Option<&Arc<Table>> {
        self.names.get(name).and_then(|id| self.tables.get(id))
    }

    /// The live table that lists show with this name, also a dropped one.
    pub fn table_shown_as(&self, name: &str) -> Option<&Arc<Table>> {
        let dropped = || {
            let table = self.tables.get(&dropped_table_id(name)?)?;
            (table.is_live() && table.name == name).then_some(table)
        };
        self.table_named(name).or_else(dropped)
    }

    /// All routes, by id.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteDescriptor>> {
        self.routes.values()
    }

    /// Number of routes.
    pub fn route_count(&self) -> usize {
        self.routes.size()
    }

    /// The routes with this id or above, by id.
    pub fn routes_from(&self, id: RegionId) -> impl Iterator<Item = &Arc<RouteDescriptor>> {
        self.routes.range(id..).map(|(_, route)| route)
    }

    /// The route with this id.
    pub fn route(&self, id: RegionId) -> Option<&Arc<RouteDescriptor>> {
        self.routes.get(&id)
    }

    /// All routes, sorted by start.
    pub fn routes_by_start(&self) -> impl Iterator<Item = &Arc<RouteDescriptor>> {
        self.starts.iter()
    }

    /// The routes of one table, sorted by start.
    pub fn routes_of(&self, table: TableId) -> impl Iterator<Item = &Arc<RouteDescriptor>> {
        self.starts.in_table(table)
    }

    /// The route that starts at this global key.
    pub fn route_starting_at(&self, start: &[u8]) -> Option<&Arc<RouteDescriptor>> {
        self.starts.get(start)
    }

    /// All groups, including abandoned ones.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    /// The group with this id.
    pub fn group(&self, id: GroupId) -> Option<&Arc<Group>> {
        self.groups.get(&id)
    }

    /// Groups that new routes are placed in, each with its number of routes.
    pub fn open_groups(&self) -> impl Iterator<Item = (GroupId, usize)> {
        let open = self.groups.values().filter(|group| group.takes_routes());
        open.map(|group| (group.id, self.routes_in(group.id)))
    }

    /// Number of routes of a group.
    pub fn routes_in(&self, group: GroupId) -> usize {
        self.regions_of.get(&group).copied().unwrap_or(0)
    }

    /// Groups that have replicas, or are about to have them.
    pub fn live_groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values().filter(|group| group.is_live())
    }

    /// Returns whether a route begins where a split of a hot route has divided it.
    pub fn has_soft_start(&self, route: RegionId) -> bool {
        self.soft_starts.contains(&route)
    }

    /// The routes that begin where a split of a hot route has divided it, by id.
    pub fn soft_starts(&self) -> impl Iterator<Item = RegionId> {
        self.soft_starts.iter().copied()
    }

    /// The replacement of a member of the meta group that is in progress.
    pub fn member_replacement(&self) -> Option<&MemberReplacement> {
        self.replacement.as_ref()
    }

    /// The source with this id.
    pub fn source(&self, id: SourceId) -> Option<&Arc<Source>> {
        self.sources.get(&id)
    }

    /// The refreshes of all refreshable tables, by table. Tables that were dropped while they are held are refreshed no more.
    pub fn refreshes(&self) -> impl Iterator<Item = &Arc<Refreshes>> {
        let is_dropped = |id| self.tables.get(&id).is_some_and(|table| table.dropped.is_some());
        self.refreshes.values().filter(move |of| !is_dropped(of.table))
    }

    /// The refreshes of a refreshable table.
    pub fn refreshes_of(&self, table: TableId) -> Option<&Arc<Refreshes>> {
        self.refreshes.get(&table)
    }

    /// Returns the records of readable epochs, by table.
    pub fn collections(&self) -> impl Iterator<Item = &Arc<Collection>> {
        self.collections.values()
    }

    /// Returns the record of a table's readable epochs.
    pub fn collection(&self, table: TableId) -> Option<&Arc<Collection>> {
        self.collections.get(&table)
    }

    /// Returns the read holds.
    pub fn holds(&self) -> &ReadHolds {
        &self.holds
    }

    /// Returns the exports.
    pub fn exports(&self) -> &Exports {
        &self.exports
    }

    /// Returns the oldest readable epoch of a table as of an epoch of the leader; `None` for a table without a record, and
    /// if the record has none.
    pub fn since_at(&self, table: TableId, upper: Epoch) -> Option<Epoch> {
        match self.collections.get(&table)?.since_at(self.kept_from(table), upper) {
            Since::Known(since) => Some(since),
            Since::AtLeast(_) => None,
        }
    }

    /// Returns the least epoch that the holds of a table keep, and that of the last publication of a refreshable one, which stays
    /// readable until the next one.
    pub fn kept_from(&self, table: TableId) -> Option<Epoch> {
        let held = self.holds.least_of(table).map(|hold| hold.epoch);
        held.into_iter().chain(self.published_of(table)).min()
    }

    /// Returns the published epoch of a table if it is refreshable.
    pub fn published_of(&self, table: TableId) -> Option<Epoch> {
        let table = self.tables.get(&table).filter(|table| table.options.refreshable);
        table.map(|table| table.published)
    }

    /// Returns whether an id was handed out, belongs to no collection yet, and was not dropped.
    pub fn is_unused_id(&self, id: TableId) -> bool {
        self.unused_ids.contains(&id)
    }

    /// Returns the number of ids that were handed out, belong to no collection yet, and were not dropped.
    pub fn unused_id_count(&self) -> usize {
        self.unused_ids.size()
    }

    /// Settings of the balance of routes.
    pub fn balance(&self) -> BalanceSettings {
        self.balance
    }

    /// All nodes, including removed ones. Records of compactors are deleted after [`COMPACTOR_KEPT_MS`].
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// Returns whether a node with this id was registered and its record has been deleted since. An id that this
    /// state has yet to assign is not forgotten: a later state may have the node.
    pub fn is_forgotten(&self, id: NodeId) -> bool {
        (FIRST_NODE_ID..self.header.next_node_id).contains(&id) && !self.nodes.contains_key(&id)
    }

    /// Returns whether a group with this id was created and its record has been deleted since.
    pub fn is_forgotten_group(&self, id: GroupId) -> bool {
        id < self.header.next_group_id && !self.groups.contains_key(&id)
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

    /// Unfinished additions and removals of durable hooks, by name.
    pub fn hook_procedures(&self) -> impl Iterator<Item = &HookProcedure> {
        self.hook_procedures.values()
    }

    /// The unfinished addition or removal of the hook with this name.
    pub fn hook_procedure(&self, hook: &str) -> Option<&HookProcedure> {
        self.hook_procedures.get(hook)
    }

    /// The procedures that run, and those that ended within the last 24 h.
    pub fn procedures(&self) -> &Procedures {
        &self.procedures
    }

    /// Cursors of the durable hooks, and those of removed hooks that are yet to be deleted.
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// Recorded outcome of a request id, if it has not expired.
    pub fn outcome(&self, request: Uuid) -> Option<&Arc<RequestOutcome>> {
        self.outcomes.get(&request)
    }

    /// Number of recorded request ids.
    pub fn outcome_count(&self) -> usize {
        self.outcomes.size()
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

    /// Returns whether all deltas after a revision are kept, and this state has reached the revision.
    pub fn keeps_deltas_since(&self, revision: Revision) -> bool {
        let behind = self.header.revision.get().checked_sub(revision.get());
        let first = Revision(revision.get().saturating_add(1));
        behind.is_some_and(|behind| behind == 0 || self.deltas.contains_key(&first))
    }

    /// Deltas after a revision, oldest first, at most `limit`. `None` when some of them are no
    /// longer kept, or when this state has not reached the revision.
    pub fn deltas_since(
        &self,
        revision: Revision,
        limit: usize,
    ) -> Option<Vec<Arc<v1::CatalogDelta>>> {
        let first = Revision(revision.get().saturating_add(1));
        let kept = self.deltas.range(first..).map(|(_, delta)| Arc::clone(delta));
        self.keeps_deltas_since(revision).then(|| kept.take(limit).collect())
    }

    /// Adds the changes of tables that are in progress now to the tables of a snapshot or a delta.
    pub fn publish_changes(&self, tables: &mut [v1::Table]) {
        for published in tables {
            if let Some(table) = self.tables.get(&TableId(published.table_id)) {
                table.publish_change(published);
                let running = self.procedures.of_table(table.id);
                let of_table: Vec<_> = running.filter(|of| of.table == table.id).collect();
                let routes = of_table.iter().filter_map(|of| of.published_route.clone());
                published.route_changes = routes.collect();
                let change = of_table.iter().find_map(|of| of.published.clone());
                published.change = published.change.take().or(change);
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

    /// Returns a stored delta with the facts of this state that stored deltas lack, as it is published. The
    /// state must have reached the delta; it may be later, since later deltas then repeat these facts.
    pub fn published_delta(&self, stored: &v1::CatalogDelta) -> v1::CatalogDelta {
        let mut delta = stored.clone();
        delta.next_route_id = self.next_route_id().get();
        self.publish_changes(&mut delta.table_upserts);
        self.publish_starts(&mut delta.node_upserts);
        delta
    }

    /// Checks the invariants between records: every key of every live table has exactly one route,
    /// every cursor belongs to a durable hook or to one that is being removed, the locks of all procedures are
    /// compatible, every hold and every export is of live tables, and the ring of deltas has no hole.
    pub fn verify(&self) -> Result<(), CatalogError> {
        // Not by the index: it has one of several routes with the same start.
        let mut routes: Vec<_> = self.routes.values().map(Arc::as_ref).collect();
        routes.sort_by(|left, right| left.start.cmp(&right.start));
        let live = self.tables.values().filter(|table| table.is_live());
        validate_routes(&routes, live.map(|table| (table.id, table.coverage())))?;
        for cursor in self.cursors.iter() {
            let hook = self.hooks.get(&cursor.hook);
            let is_of = |hook: &Arc<Hook>| hook.durable && hook.generation == cursor.generation;
            let is_removed = |procedure: &HookProcedure| {
                procedure.work == CursorWork::Delete && procedure.generation == cursor.generation
            };
            let removed = self.hook_procedure(&cursor.hook).filter(|found| is_removed(found));
            if !hook.is_some_and(is_of) && removed.is_none() {
                let problem =
                    format!("hook {:?} of its generation is not a durable hook", cursor.hook);
                return Err(CatalogError::InvalidRecord { kind: "cursor", problem });
            }
        }
        for procedure in self.hook_procedures.values() {
            let hook = self.hooks.get(&procedure.hook).map(|hook| hook.generation);
            let fits = match procedure.work {
                CursorWork::Create { .. } => hook.is_none_or(|of| of == procedure.generation),
                CursorWork::Delete => hook.is_none(),
            };
            if !fits {
                let problem = format!("hook {:?} is another one", procedure.hook);
                return Err(CatalogError::InvalidRecord { kind: "hook procedure", problem });
            }
        }
        self.procedures.verify(|table| self.tables.get(&table).map(AsRef::as_ref))?;
        for hold in self.holds.iter() {
            self.verify_hold(hold)?;
        }
        for export in self.exports.iter() {
            self.verify_export(export)?;
        }
        let mut expected = self.header.revision.get();
        for delta in self.deltas.values().rev() {
            if delta.revision != expected {
                return Err(CatalogError::DeltaHole { missing: expected });
            }
            expected = expected.saturating_sub(1);
        }
        Ok(())
    }

    /// Checks that the tables of a hold are live, and that none of them is readable only from a later epoch on.
    fn verify_hold(&self, hold: &ReadHold) -> Result<(), CatalogError> {
        let is_held = |table: &TableId| {
            let is_live = self.tables.get(table).is_some_and(|table| table.is_live());
            let record = self.collections.get(table);
            let is_held = record.is_some_and(|of| match of.since {
                Since::Known(since) => since <= hold.epoch,
                Since::AtLeast(_) => false,
            });
            is_live && is_held
        };
        if hold.tables.iter().all(is_held) {
            return Ok(());
        }
        let problem = format!(
            "a table of hold {:?} does not exist, or cannot be read at its epoch",
            hold.name
        );
        Err(CatalogError::InvalidRecord { kind: "hold", problem })
    }

    /// Checks that the table of an export is live, and that its hold is as it follows from the export.
    fn verify_export(&self, export: &Export) -> Result<(), CatalogError> {
        let is_live = self.tables.get(&export.table).is_some_and(|table| table.is_live());
        let hold = self.holds.get(&export.hold_name());
        if is_live && hold.is_some_and(|hold| **hold == export.hold()) {
            return Ok(());
        }
        let problem =
            format!("the table or the hold of export {:?} is missing or another one", export.name);
        Err(CatalogError::InvalidRecord { kind: "export", problem })
    }
}
