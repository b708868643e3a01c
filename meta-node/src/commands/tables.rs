//! Tables: creation and drop, each with a command before and a command after the work on the regions.

use std::collections::BTreeMap;

use tidewater_common::agreed_limits::CLONE_STEP;
use tidewater_common::ids::{Epoch, GroupId, RegionId, TableId};
use tidewater_common::schema::{TableOptions, TableSchema};
use tidewater_proto::v1::{self, LoadPhase, LockMode, TableState};

use super::requests::IdentifiedRequest;
use super::{
    CommandError, CommandReply, GroupCommandError, Rules, clone_table, collections, cursors, hooks,
    new_table, procedures, refreshes,
};
use crate::catalog::{
    CatalogChange, DroppedRegion, Header, MetaState, OutcomeKind, RouteDescriptor, RouteError,
    RouteState, Table, TableChange,
};

pub(super) fn create(
    state: &MetaState,
    request: &v1::CreateTableRequest,
    rules: Rules,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let key = (request.request_id.as_str(), request.name.as_str());
    let identified = IdentifiedRequest::new(rules, OutcomeKind::CreateTable, key, request)?;
    if let Some(table) = identified.find_repeated(state)? {
        return Ok((CommandReply::Table(table), CatalogChange::default()));
    }
    let change = creation(state, request)?;
    Ok(identified.begun(state, change))
}

/// Returns the change that begins the creation of a table.
pub(super) fn creation(
    state: &MetaState,
    request: &v1::CreateTableRequest,
) -> Result<TableCreation, CommandError> {
    let id = new_id(state, &request.name)?;
    let mut change = creation_as(state, &mut Placement::new(state), id, request)?;
    if let Some(definition) = &request.refresh {
        let (source, refreshes) = refreshes::definition(state, id, definition)?;
        change.sources.push(source);
        change.refreshes.push(refreshes);
    }
    Ok((id, change))
}

/// Returns the change that begins the creation of a table with this id, without its source.
pub(super) fn creation_as(
    state: &MetaState,
    placement: &mut Placement,
    id: TableId,
    request: &v1::CreateTableRequest,
) -> Result<CatalogChange, CommandError> {
    let (schema, options) = new_table::definition(request)?;
    new_id(state, &request.name)?;
    let regions = new_table::region_count(request.regions, &options, state.open_groups().count())?;
    let ranges = new_table::split(id, &options, regions)?;
    let new = TableDefinition { id, name: request.name.clone(), schema, options, clone_of: None };
    begin_in(state, placement, new, ranges)
}

/// Id of a new table, and the change that begins its creation.
pub(super) type TableCreation = (TableId, CatalogChange);

/// Definition of a new table.
pub(super) struct TableDefinition {
    pub(super) id: TableId,
    pub(super) name: String,
    pub(super) schema: TableSchema,
    pub(super) options: TableOptions,
    /// Source table of a clone.
    pub(super) clone_of: Option<TableId>,
}

/// Returns the id of a new table, unless its name is in use.
pub(super) fn new_id(state: &MetaState, name: &str) -> Result<TableId, CommandError> {
    match state.table_named(name) {
        Some(_) => Err(CommandError::TableExists(name.to_owned())),
        None => Ok(state.header().next_table_id),
    }
}

/// Begins the creation of a table with one region for each range.
pub(super) fn begin(
    state: &MetaState,
    new: TableDefinition,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<TableCreation, CommandError> {
    let id = new.id;
    begin_in(state, &mut Placement::new(state), new, ranges).map(|change| (id, change))
}

/// Begins the creation of a table with regions in the groups of a placement.
fn begin_in(
    state: &MetaState,
    placement: &mut Placement,
    new: TableDefinition,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<CatalogChange, CommandError> {
    let id = new.id;
    let routes = placement.assign(state, ranges)?;
    let (table, header) = defined(state, new, TableState::Creating)?;
    Ok(CatalogChange {
        header: Some(header),
        next_route_id: Some(placement.next),
        tables: vec![table],
        cursors: cursors::for_new_routes(state, id, &routes),
        routes,
        ..CatalogChange::default()
    })
}

/// Returns the record of a new table, and the header with the next table id.
pub(super) fn defined(
    state: &MetaState,
    new: TableDefinition,
    of: TableState,
) -> Result<(Table, Header), CommandError> {
    // The next id is the upper bound of the table's keys, so the greatest id is never assigned.
    let next = new.id.get().checked_add(1).ok_or(CommandError::IdsUsedUp("table"))?;
    let table = Table {
        id: new.id,
        name: new.name,
        state: of,
        schema: new.schema,
        options: new.options,
        dropping: Vec::new(),
        created_ms: state.header().time_ms,
        change: None,
        // The adoption of the source's files is the first change of a clone.
        changes: new.clone_of.map_or(0, |_| CLONE_STEP.0),
        clone_of: new.clone_of,
        published: Epoch(0),
        complete: Epoch(0),
        dropped: None,
        description: None,
    };
    let next_table_id = state.header().next_table_id.max(TableId(next));
    Ok((table, Header { next_table_id, ..state.header().clone() }))
}

/// Groups and ids of the routes of new tables.
#[derive(Debug)]
pub(super) struct Placement {
    load: BTreeMap<GroupId, usize>,
    /// The next route id.
    next: RegionId,
}

impl Placement {
    /// Returns the placement of the first route.
    pub(super) fn new(state: &MetaState) -> Self {
        Self { load: state.open_groups().collect(), next: state.next_route_id() }
    }

    /// Creates a route for each range, in the active group with the fewest regions, lowest id first.
    fn assign(
        &mut self,
        state: &MetaState,
        ranges: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<Vec<RouteDescriptor>, CommandError> {
        let mut routes = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            let (group, count) = self
                .load
                .iter_mut()
                .min_by_key(|(group, count)| (**count, **group))
                .ok_or(CommandError::Group(GroupCommandError::NoGroups))?;
            *count += 1;
            routes.push(RouteDescriptor {
                route_id: self.next,
                start,
                end: Some(end),
                group_id: *group,
                state: RouteState::Active,
                parent_route_id: None,
                epoch: Epoch(0),
                incarnation: state.header().incarnation,
            });
            let next = self.next.get().checked_add(1).ok_or(RouteError::RouteIdOverflow)?;
            self.next = RegionId(next);
        }
        Ok(routes)
    }
}

pub(super) fn activate(
    state: &MetaState,
    command: &v1::ActivateTable,
) -> Result<CatalogChange, CommandError> {
    let id = TableId(command.table_id);
    let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
    match table.state {
        TableState::Active => Ok(CatalogChange::default()),
        TableState::Creating => {
            procedures::check_lock(state, table, LockMode::Exclusive)?;
            Ok(activated(table))
        }
        state => Err(CommandError::TableState { table: id, state }),
    }
}

/// Returns the change that ends the creation of a table.
pub(super) fn activated(table: &Table) -> CatalogChange {
    let table = Table { state: TableState::Active, clone_of: None, ..table.clone() };
    CatalogChange { tables: vec![table], ..CatalogChange::default() }
}

/// Begins the drop of a table: deletes its routes and frees its name. Its regions are removed later.
pub(super) fn begin_drop(
    state: &MetaState,
    request: &v1::DropTableRequest,
    rules: Rules,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let key = (request.request_id.as_str(), request.name.as_str());
    let identified = IdentifiedRequest::new(rules, OutcomeKind::DropTable, key, request)?;
    if let Some(table) = identified.find_repeated(state)? {
        return Ok((CommandReply::Table(table), CatalogChange::default()));
    }
    let table = state
        .table_named(&request.name)
        .ok_or_else(|| CommandError::TableNotFound(request.name.clone()))?;
    collections::check_not_held(state, table, "dropped")?;
    clone_table::check_not_being_cloned(state, table)?;
    check_not_publishing(table)?;
    let procedures = procedures::ended_by_drop(state, table)?;
    let change = CatalogChange { procedures, ..dropped(state, table) };
    Ok(identified.begun(state, (table.id, change)))
}

/// Returns the change that begins the drop of a table: its regions become regions to remove.
pub(super) fn dropped(state: &MetaState, table: &Table) -> CatalogChange {
    let dropping: Vec<_> = state
        .routes_of(table.id)
        .map(|route| DroppedRegion { region_id: route.route_id, group_id: route.group_id })
        .collect();
    let route_deletes = dropping.iter().map(|region| region.region_id).collect();
    let dropped = Table {
        state: TableState::Dropping,
        dropping,
        change: None,
        clone_of: None,
        ..table.clone()
    };
    CatalogChange { tables: vec![dropped], route_deletes, ..CatalogChange::default() }
}

/// Rejects a drop during the publication of a load: after the point of no return, all regions must
/// publish, so that no region shows a load that others do not.
pub(super) fn check_not_publishing(table: &Table) -> Result<(), CommandError> {
    match &table.change {
        Some(change @ TableChange::Load(load)) if load.phase == LoadPhase::Publishing => {
            Err(CommandError::busy(table, change.verb()))
        }
        _ => Ok(()),
    }
}

pub(super) fn finish_drop(
    state: &MetaState,
    command: &v1::FinishDropTable,
) -> Result<CatalogChange, CommandError> {
    let id = TableId(command.table_id);
    let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
    match table.state {
        TableState::Dropping => {
            procedures::check_lock(state, table, LockMode::Exclusive)?;
            Ok(deleted(state, id))
        }
        state => Err(CommandError::TableState { table: id, state }),
    }
}

/// Returns the change that ends the drop of a table.
pub(super) fn deleted(state: &MetaState, id: TableId) -> CatalogChange {
    CatalogChange {
        table_deletes: vec![id],
        hook_deletes: hooks::deleted_with_table(state, id),
        ..CatalogChange::default()
    }
}
