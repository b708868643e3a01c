//! Catalog changes: the output of validation, and their preparation and application.

use std::sync::Arc;

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{CatalogVersion, NodeId, RegionId, Revision, TableId};
use tidewater_proto::v1::{self, TableState};
use uuid::Uuid;

use super::{
    BalanceSettings, CatalogError, Collection, DELTAS_KEPT, Export, Group, Header, Hook,
    HookCursor, HookProcedure, MetaState, Node, Procedure, ReadHold, Refreshes, ReplacedRecords,
    ReplacementChange, RequestOutcome, RouteDescriptor, RouteError, RowKind, Source, Table,
    catalog_next_route_id_key, catalog_route_key, catalog_version_key, codec,
    encode_catalog_next_route_id, encode_catalog_route, encode_catalog_version, keys,
};

/// Change of a command: complete records after the change. Created by validation and applied by
/// [`MetaState::absorb`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CatalogChange {
    /// The header after the change, apart from the revision.
    pub header: Option<Header>,
    /// The next route id after the change.
    pub next_route_id: Option<RegionId>,
    /// Tables created or changed.
    pub tables: Vec<Table>,
    /// Tables deleted.
    pub table_deletes: Vec<TableId>,
    /// Routes created or changed.
    pub routes: Vec<RouteDescriptor>,
    /// Routes deleted.
    pub route_deletes: Vec<RegionId>,
    /// Groups created or changed.
    pub groups: Vec<Group>,
    /// Nodes created or changed.
    pub nodes: Vec<Node>,
    /// Nodes deleted.
    pub node_deletes: Vec<NodeId>,
    /// Hooks created or changed.
    pub hooks: Vec<Hook>,
    /// Names of deleted hooks.
    pub hook_deletes: Vec<String>,
    /// Procedures of hooks begun or continued; not part of the watched catalog.
    pub hook_procedures: Vec<HookProcedure>,
    /// Hooks whose procedures have ended.
    pub hook_procedure_deletes: Vec<String>,
    /// Procedures begun, continued or ended; not part of the watched catalog.
    pub procedures: Vec<Procedure>,
    /// Ended procedures to forget.
    pub procedure_deletes: Vec<Uuid>,
    /// Cursors created or moved; not part of the watched catalog.
    pub cursors: Vec<HookCursor>,
    /// Cursors deleted, by region and hook name.
    pub cursor_deletes: Vec<(RegionId, String)>,
    /// New routes that begin where a split of a hot route has divided it; not part of the watched catalog. The mark of a
    /// route is deleted with it.
    pub soft_starts: Vec<RegionId>,
    /// Settings of the balance; not part of the watched catalog.
    pub balance: Option<BalanceSettings>,
    /// Replacement of a member of the meta group; not part of the watched catalog.
    pub replacement: Option<ReplacementChange>,
    /// Sources created; not part of the watched catalog.
    pub sources: Vec<Source>,
    /// Refreshes of tables, changed; not part of the watched catalog. They are deleted with their table, and so is its
    /// source.
    pub refreshes: Vec<Refreshes>,
    /// Readable epochs of tables, changed; not part of the watched catalog. They are deleted with their table.
    pub collections: Vec<Collection>,
    /// Read holds acquired or changed; not part of the watched catalog.
    pub holds: Vec<ReadHold>,
    /// Names of read holds that have ended.
    pub hold_deletes: Vec<String>,
    /// Exports created or changed; not part of the watched catalog.
    pub exports: Vec<Export>,
    /// Names of exports that have ended.
    pub export_deletes: Vec<String>,
    /// Ids of collections handed out; not part of the watched catalog.
    pub ids_allocated: Vec<TableId>,
    /// Those that belong to a collection from now on, or were dropped.
    pub ids_used: Vec<TableId>,
    /// Request id to record, with its outcome.
    pub outcome: Option<(Uuid, RequestOutcome)>,
    /// Expired request ids to delete.
    pub forgotten: Vec<Uuid>,
    /// The change is invisible to watchers, and the revision stays. Ignored for changes of routes.
    pub is_unpublished: bool,
}

/// A state row to write (`Some`) or to delete (`None`).
pub type StateRowWrite = (Vec<u8>, Option<Vec<u8>>);

/// Effects of an applied change on the store.
#[derive(Debug, Default)]
pub struct ChangeEffects {
    /// Rows to write, in any order.
    pub rows: Vec<StateRowWrite>,
    /// Records that the change has replaced.
    pub replaced: ReplacedRecords,
}

impl CatalogChange {
    /// Returns whether routes change, and with them the catalog version.
    pub fn touches_routes(&self) -> bool {
        !self.routes.is_empty() || !self.route_deletes.is_empty()
    }

    fn is_watched(&self) -> bool {
        let touches_catalog = !self.tables.is_empty()
            || !self.table_deletes.is_empty()
            || !self.groups.is_empty()
            || !self.nodes.is_empty()
            || !self.node_deletes.is_empty()
            || !self.hooks.is_empty()
            || !self.hook_deletes.is_empty();
        self.touches_routes() || (touches_catalog && !self.is_unpublished)
    }
}

impl MetaState {
    /// Encodes the rows of a change. After an error, the change must not be applied.
    ///
    /// Encoding precedes [`absorb`](Self::absorb), so that a record that cannot be stored changes nothing.
    pub(crate) fn prepare(&self, change: CatalogChange) -> Result<PreparedChange, CatalogError> {
        let mut header = change.header.clone();
        let mut version = self.catalog_version;
        let mut rows = Vec::new();
        for route in &change.routes {
            rows.push((catalog_route_key(route.route_id), Some(encode_catalog_route(route)?)));
        }
        if change.touches_routes() {
            let next = version.get().checked_add(1).ok_or(RouteError::VersionOverflow)?;
            version = CatalogVersion(next);
            rows.push((catalog_version_key(), Some(encode_catalog_version(version))));
        }
        let mut delta = None;
        if change.is_watched() {
            let header = header.get_or_insert_with(|| self.header.clone());
            let next = header.revision.get().checked_add(1).ok_or(RouteError::VersionOverflow)?;
            header.revision = Revision(next);
            delta = Some(Arc::new(self.delta(&change, header.revision, version)));
        }
        self.plain_rows(&change, header.as_ref(), delta.as_deref(), &mut rows);
        let level = header.as_ref().unwrap_or(&self.header).feature_level;
        check_row_levels(&rows, level)?;
        Ok(PreparedChange { change, header, version, delta, rows })
    }

    fn delta(
        &self,
        change: &CatalogChange,
        revision: Revision,
        version: CatalogVersion,
    ) -> v1::CatalogDelta {
        v1::CatalogDelta {
            revision: revision.get(),
            previous_catalog_version: self.catalog_version.get(),
            catalog_version: version.get(),
            table_upserts: change.tables.iter().map(Into::into).collect(),
            table_deletes: change.table_deletes.iter().map(|id| id.get()).collect(),
            route_upserts: change.routes.iter().map(Into::into).collect(),
            route_deletes: change.route_deletes.iter().map(|id| id.get()).collect(),
            group_upserts: change.groups.iter().map(Into::into).collect(),
            node_upserts: change.nodes.iter().map(Into::into).collect(),
            node_deletes: change.node_deletes.iter().map(|id| id.get()).collect(),
            hook_upserts: change.hooks.iter().map(Into::into).collect(),
            hook_deletes: change.hook_deletes.clone(),
            // Sent to watchers, not stored: replicas of the previous release store the same bytes.
            next_route_id: 0,
        }
    }

    fn plain_rows(
        &self,
        change: &CatalogChange,
        header: Option<&Header>,
        delta: Option<&v1::CatalogDelta>,
        rows: &mut Vec<StateRowWrite>,
    ) {
        if let Some(header) = header {
            rows.push((keys::header(), Some(codec::encode_header(header))));
        }
        if let Some(next) = change.next_route_id {
            rows.push((catalog_next_route_id_key(), Some(encode_catalog_next_route_id(next))));
        }
        for table in &change.tables {
            let message = v1::TableRecord::from(table);
            rows.push((keys::table(table.id), Some(codec::encode_message(&message))));
        }
        for group in &change.groups {
            let message = v1::Group::from(group);
            rows.push((keys::group(group.id), Some(codec::encode_message(&message))));
        }
        for node in &change.nodes {
            let message = v1::NodeRecord::from(node);
            rows.push((keys::node(node.id), Some(codec::encode_message(&message))));
        }
        for hook in &change.hooks {
            let message = v1::Hook::from(hook);
            rows.push((keys::hook(&hook.name), Some(codec::encode_message(&message))));
        }
        rows.extend(change.hook_deletes.iter().map(|name| (keys::hook(name), None)));
        for procedure in &change.hook_procedures {
            let message = v1::HookProcedure::from(procedure);
            let key = keys::hook_procedure(&procedure.hook);
            rows.push((key, Some(codec::encode_message(&message))));
        }
        let ended = change.hook_procedure_deletes.iter();
        rows.extend(ended.map(|hook| (keys::hook_procedure(hook), None)));
        for procedure in &change.procedures {
            let message = v1::ProcedureRecord::from(procedure);
            rows.push((keys::procedure(procedure.id), Some(codec::encode_message(&message))));
        }
        rows.extend(change.procedure_deletes.iter().map(|id| (keys::procedure(*id), None)));
        for cursor in &change.cursors {
            let message = v1::HookCursor::from(cursor);
            let key = keys::cursor(cursor.region, &cursor.hook);
            rows.push((key, Some(codec::encode_message(&message))));
        }
        let deleted = change.cursor_deletes.iter();
        rows.extend(deleted.map(|(region, hook)| (keys::cursor(*region, hook), None)));
        let soft = change.soft_starts.iter();
        rows.extend(soft.map(|route| {
            let message = v1::SoftStart { route_id: route.get() };
            (keys::soft_start(*route), Some(codec::encode_message(&message)))
        }));
        let hard = change.route_deletes.iter().filter(|route| self.has_soft_start(**route));
        rows.extend(hard.map(|route| (keys::soft_start(*route), None)));
        if let Some(settings) = change.balance {
            // Equal states have equal rows: the defaults have none.
            let is_set = settings != BalanceSettings::default();
            let message = v1::BalanceSettings::from(settings);
            rows.push((keys::balance(), is_set.then(|| codec::encode_message(&message))));
        }
        match &change.replacement {
            Some(ReplacementChange::Set(replacement)) => {
                let message = v1::MemberReplacement::from(replacement);
                rows.push((keys::member_replacement(), Some(codec::encode_message(&message))));
            }
            Some(ReplacementChange::End) => rows.push((keys::member_replacement(), None)),
            None => {}
        }
        for source in &change.sources {
            let message = v1::SourceRecord::from(source);
            rows.push((keys::source(source.id), Some(codec::encode_message(&message))));
        }
        for refreshes in &change.refreshes {
            let message = v1::RefreshRecord::from(refreshes);
            let key = keys::refresh(refreshes.table);
            rows.push((key, Some(codec::encode_message(&message))));
        }
        for of_table in change.table_deletes.iter().filter_map(|id| self.refreshes.get(id)) {
            rows.push((keys::refresh(of_table.table), None));
            rows.push((keys::source(of_table.source), None));
        }
        for collection in &change.collections {
            let message = v1::CollectionRecord::from(collection);
            rows.push((keys::collection(collection.table), Some(codec::encode_message(&message))));
        }
        let of_table = change.table_deletes.iter().filter(|id| self.collections.contains_key(*id));
        rows.extend(of_table.map(|id| (keys::collection(*id), None)));
        rows.extend(change.hold_deletes.iter().map(|name| (keys::read_hold(name), None)));
        for hold in &change.holds {
            let message = v1::ReadHold::from(hold);
            rows.push((keys::read_hold(&hold.name), Some(codec::encode_message(&message))));
        }
        rows.extend(change.export_deletes.iter().map(|name| (keys::export(name), None)));
        for export in &change.exports {
            let message = v1::Export::from(export);
            rows.push((keys::export(&export.name), Some(codec::encode_message(&message))));
        }
        for id in &change.ids_allocated {
            let message = v1::AllocatedId { table_id: id.get() };
            rows.push((keys::unused_id(*id), Some(codec::encode_message(&message))));
        }
        rows.extend(change.ids_used.iter().map(|id| (keys::unused_id(*id), None)));
        if let Some((request, outcome)) = &change.outcome {
            let message = v1::OutcomeRecord::from(outcome);
            rows.push((keys::outcome(*request), Some(codec::encode_message(&message))));
        }
        rows.extend(change.node_deletes.iter().map(|id| (keys::node(*id), None)));
        rows.extend(change.table_deletes.iter().map(|id| (keys::table(*id), None)));
        rows.extend(change.route_deletes.iter().map(|id| (catalog_route_key(*id), None)));
        rows.extend(change.forgotten.iter().map(|request| (keys::outcome(*request), None)));
        if let Some(delta) = delta {
            let key = keys::delta(Revision(delta.revision));
            rows.push((key, Some(codec::encode_message(delta))));
            if self.deltas.size() >= DELTAS_KEPT
                && let Some((oldest, _)) = self.deltas.first()
            {
                rows.push((keys::delta(*oldest), None));
            }
        }
    }

    /// Applies a change that was prepared on exactly this state.
    pub(crate) fn absorb(&mut self, prepared: PreparedChange) -> ChangeEffects {
        let PreparedChange { change, header, version, delta, rows } = prepared;
        let replaced = ReplacedRecords::of(self, &change);
        if let Some(header) = header {
            self.header = header;
        }
        if let Some(next) = change.next_route_id {
            self.next_route_id = next;
        }
        self.catalog_version = version;
        change.tables.into_iter().for_each(|table| self.put_table(table));
        change.table_deletes.into_iter().for_each(|id| self.delete_table(id));
        for source in change.sources {
            self.sources.insert_mut(source.id, Arc::new(source));
        }
        for refreshes in change.refreshes {
            self.refreshes.insert_mut(refreshes.table, Arc::new(refreshes));
        }
        for collection in change.collections {
            self.collections.insert_mut(collection.table, Arc::new(collection));
        }
        change.hold_deletes.iter().for_each(|name| self.holds.remove(name));
        change.holds.into_iter().for_each(|hold| self.holds.put(hold));
        change.export_deletes.iter().for_each(|name| self.exports.remove(name));
        change.exports.into_iter().for_each(|export| self.exports.put(export));
        for id in change.ids_allocated {
            self.unused_ids.insert_mut(id);
        }
        for id in &change.ids_used {
            self.unused_ids.remove_mut(id);
        }
        for route in change.route_deletes {
            self.soft_starts.remove_mut(&route);
            self.delete_route(route);
        }
        for route in change.soft_starts {
            self.soft_starts.insert_mut(route);
        }
        change.routes.into_iter().for_each(|route| self.put_route(route));
        for group in change.groups {
            self.groups.insert_mut(group.id, Arc::new(group));
        }
        change.node_deletes.into_iter().for_each(|id| self.delete_node(id));
        change.nodes.into_iter().for_each(|node| self.put_node(node));
        for name in &change.hook_deletes {
            self.hooks.remove_mut(name);
        }
        for hook in change.hooks {
            self.hooks.insert_mut(hook.name.clone(), Arc::new(hook));
        }
        for hook in &change.hook_procedure_deletes {
            self.hook_procedures.remove_mut(hook);
        }
        for procedure in change.hook_procedures {
            self.hook_procedures.insert_mut(procedure.hook.clone(), procedure);
        }
        change.procedure_deletes.into_iter().for_each(|id| self.procedures.remove(id));
        change.procedures.into_iter().for_each(|procedure| self.procedures.put(procedure));
        for (region, hook) in &change.cursor_deletes {
            self.cursors.remove(*region, hook);
        }
        change.cursors.into_iter().for_each(|cursor| self.cursors.put(cursor));
        if let Some(settings) = change.balance {
            self.balance = settings;
        }
        match change.replacement {
            Some(ReplacementChange::Set(replacement)) => self.replacement = Some(replacement),
            Some(ReplacementChange::End) => self.replacement = None,
            None => {}
        }
        if let Some((request, outcome)) = change.outcome {
            self.put_outcome(request, outcome);
        }
        for request in change.forgotten {
            if let Some(outcome) = self.outcomes.get(&request) {
                self.outcome_times.remove_mut(&(outcome.time_ms, request));
                self.outcomes.remove_mut(&request);
            }
        }
        if let Some(delta) = delta {
            let oldest = self.deltas.first().map(|(revision, _)| *revision);
            if let Some(oldest) = oldest.filter(|_| self.deltas.size() >= DELTAS_KEPT) {
                self.deltas.remove_mut(&oldest);
            }
            self.deltas.insert_mut(Revision(delta.revision), delta);
        }
        ChangeEffects { rows, replaced }
    }

    pub(super) fn put_table(&mut self, table: Table) {
        // A dropped table has another name.
        if let Some(known) = self.tables.get(&table.id).cloned() {
            self.remove_name(&known);
        }
        if table.is_named() {
            self.names.insert_mut(table.name.clone(), table.id);
        }
        let is_settled = matches!(table.state, TableState::Active | TableState::Reserved);
        if is_settled && table.change.is_none() {
            self.in_progress.remove_mut(&table.id);
        } else {
            self.in_progress.insert_mut(table.id);
        }
        self.tables.insert_mut(table.id, Arc::new(table));
    }

    fn delete_table(&mut self, id: TableId) {
        let Some(table) = self.tables.get(&id).cloned() else { return };
        if let Some(refreshes) = self.refreshes.get(&id).cloned() {
            self.sources.remove_mut(&refreshes.source);
            self.refreshes.remove_mut(&id);
        }
        self.collections.remove_mut(&id);
        self.remove_name(&table);
        self.in_progress.remove_mut(&id);
        self.tables.remove_mut(&id);
    }

    /// Frees the name of a table, unless it is that of a later one.
    fn remove_name(&mut self, table: &Table) {
        if self.names.get(&table.name) == Some(&table.id) {
            self.names.remove_mut(&table.name);
        }
    }

    pub(super) fn put_route(&mut self, route: RouteDescriptor) {
        self.delete_route(route.route_id);
        let regions = self.regions_of.get(&route.group_id).copied().unwrap_or(0);
        self.regions_of.insert_mut(route.group_id, regions + 1);
        let route = Arc::new(route);
        self.starts.put(Arc::clone(&route));
        self.routes.insert_mut(route.route_id, route);
    }

    fn delete_route(&mut self, id: RegionId) {
        let Some(route) = self.routes.get(&id).cloned() else { return };
        match self.regions_of.get(&route.group_id).copied() {
            Some(regions @ 2..) => self.regions_of.insert_mut(route.group_id, regions - 1),
            _ => drop(self.regions_of.remove_mut(&route.group_id)),
        }
        self.starts.remove(&route);
        self.routes.remove_mut(&id);
    }

    pub(super) fn put_node(&mut self, node: Node) {
        if let Some(directory) = node.directory_id {
            self.directories.insert_mut(directory, node.id);
        }
        self.nodes.insert_mut(node.id, Arc::new(node));
    }

    fn delete_node(&mut self, id: NodeId) {
        let directory = self.nodes.get(&id).and_then(|node| node.directory_id);
        if let Some(directory) = directory {
            self.directories.remove_mut(&directory);
        }
        self.nodes.remove_mut(&id);
    }

    pub(super) fn put_outcome(&mut self, request: Uuid, outcome: RequestOutcome) {
        if let Some(before) = self.outcomes.get(&request) {
            self.outcome_times.remove_mut(&(before.time_ms, request));
        }
        self.outcome_times.insert_mut((outcome.time_ms, request));
        self.outcomes.insert_mut(request, Arc::new(outcome));
    }
}

/// Checks that a state at this level may have these rows: otherwise a release that the cluster may still
/// return to could not load it.
fn check_row_levels(rows: &[StateRowWrite], level: FeatureLevel) -> Result<(), CatalogError> {
    for (key, _) in rows {
        let kind = RowKind::from_key(key).ok_or(CatalogError::UnknownKey(key.len()))?;
        if kind.level() > level {
            return Err(CatalogError::RowAboveLevel { needed: kind.level(), level });
        }
    }
    Ok(())
}

/// A change with encoded rows, which can be applied without an error.
#[derive(Debug)]
pub(crate) struct PreparedChange {
    change: CatalogChange,
    header: Option<Header>,
    version: CatalogVersion,
    delta: Option<Arc<v1::CatalogDelta>>,
    rows: Vec<StateRowWrite>,
}
