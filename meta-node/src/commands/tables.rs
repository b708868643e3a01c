//! Tables: created in two steps around the opening of their regions, dropped in two around their
//! removal.

use std::collections::BTreeMap;

use tidewater_common::ids::{Epoch, GroupId, RegionId, TableId};
use tidewater_common::schema::{TableOptions, TableSchema};
use tidewater_proto::v1::{self, LoadPhase, TableState};
use uuid::Uuid;

use super::{CommandError, Reply, clone_table, cursors, hooks, new_table};
use crate::catalog::{
    CatalogError, Change, DroppedRegion, Header, MAX_OUTCOMES, MetaState, Outcome, OutcomeKind,
    RouteDescriptor, RouteState, Table, TableChange,
};

pub(super) fn create(
    state: &MetaState,
    request: &v1::CreateTableRequest,
) -> Result<(Reply, Change), CommandError> {
    let kind = OutcomeKind::CreateTable;
    let request_id = request_id(&request.request_id)?;
    if let Some(table) = repeated(state, request_id, kind, &request.name)? {
        return Ok((Reply::Table(table), Change::default()));
    }
    let (schema, options) = new_table::definition(request)?;
    let id = new_id(state, &request.name)?;
    let regions =
        new_table::region_count(request.regions, &options, state.active_groups().count())?;
    let ranges = new_table::split(id, &options, regions)?;
    let new = NewTable { id, name: request.name.clone(), schema, options, clone_of: None };
    begin(state, (request_id, kind), new, ranges)
}

/// A table that is about to be made.
pub(super) struct NewTable {
    pub(super) id: TableId,
    pub(super) name: String,
    pub(super) schema: TableSchema,
    pub(super) options: TableOptions,
    /// The table whose rows it gets.
    pub(super) clone_of: Option<TableId>,
}

/// The id that a new table of this name gets.
pub(super) fn new_id(state: &MetaState, name: &str) -> Result<TableId, CommandError> {
    match state.table_named(name) {
        Some(_) => Err(CommandError::TableExists(name.to_owned())),
        None => Ok(state.header().next_table_id),
    }
}

/// Begins a table with regions of these ranges, which are opened next.
pub(super) fn begin(
    state: &MetaState,
    (request_id, kind): (Uuid, OutcomeKind),
    new: NewTable,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<(Reply, Change), CommandError> {
    let id = new.id;
    // The id after the last table's bounds its keys, so the greatest one is never given out.
    let next = id.get().checked_add(1).ok_or(CommandError::IdsUsedUp("table"))?;
    let (routes, next_route_id) = place(state, ranges)?;
    let time_ms = state.header().time_ms;
    let outcome = Outcome { time_ms, kind, table_name: new.name.clone(), table_id: id };
    let table = Table {
        id,
        name: new.name,
        state: TableState::Creating,
        schema: new.schema,
        options: new.options,
        dropping: Vec::new(),
        created_ms: time_ms,
        change: None,
        // That a clone gets its rows is a change, the first one.
        changes: u64::from(new.clone_of.is_some()),
        clone_of: new.clone_of,
    };
    let change = Change {
        header: Some(Header { next_table_id: TableId(next), ..state.header().clone() }),
        next_route_id: Some(next_route_id),
        tables: vec![table],
        cursors: cursors::of_new_routes(state, id, &routes),
        routes,
        outcome: Some((request_id, outcome)),
        ..Change::default()
    };
    Ok((Reply::Table(id), change))
}

/// Each range goes to the active group with the fewest regions, the lowest id first.
fn place(
    state: &MetaState,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<(Vec<RouteDescriptor>, RegionId), CommandError> {
    let mut load: BTreeMap<GroupId, usize> = state.active_groups().collect();
    let mut next = state.next_route_id();
    let mut routes = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        let (group, count) = load
            .iter_mut()
            .min_by_key(|(group, count)| (**count, **group))
            .ok_or(CommandError::NoGroups)?;
        *count += 1;
        routes.push(RouteDescriptor {
            route_id: next,
            start,
            end: Some(end),
            group_id: *group,
            state: RouteState::Active,
            parent_route_id: None,
            epoch: Epoch(0),
        });
        next = RegionId(next.get().checked_add(1).ok_or(CatalogError::RouteIdOverflow)?);
    }
    Ok((routes, next))
}

pub(super) fn activate(
    state: &MetaState,
    command: &v1::ActivateTable,
) -> Result<Change, CommandError> {
    let id = TableId(command.table_id);
    let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
    match table.state {
        TableState::Active => Ok(Change::default()),
        TableState::Creating => {
            let table =
                Table { state: TableState::Active, clone_of: None, ..table.as_ref().clone() };
            Ok(Change { tables: vec![table], ..Change::default() })
        }
        state => Err(CommandError::TableState { table: id, state }),
    }
}

/// From here the table has no routes and no name; its regions are still to be removed.
pub(super) fn begin_drop(
    state: &MetaState,
    request: &v1::DropTableRequest,
) -> Result<(Reply, Change), CommandError> {
    let kind = OutcomeKind::DropTable;
    let request_id = request_id(&request.request_id)?;
    if let Some(table) = repeated(state, request_id, kind, &request.name)? {
        return Ok((Reply::Table(table), Change::default()));
    }
    let table = state
        .table_named(&request.name)
        .ok_or_else(|| CommandError::TableNotFound(request.name.clone()))?;
    clone_table::not_being_cloned(state, table)?;
    not_being_published(table)?;
    let routes = state.routes_of(table.id);
    let dropping = routes
        .iter()
        .map(|route| DroppedRegion { region_id: route.route_id, group_id: route.group_id })
        .collect();
    let dropped = Table {
        state: TableState::Dropping,
        dropping,
        change: None,
        clone_of: None,
        ..table.as_ref().clone()
    };
    let time_ms = state.header().time_ms;
    let outcome = Outcome { time_ms, kind, table_name: request.name.clone(), table_id: table.id };
    let change = Change {
        tables: vec![dropped],
        route_deletes: routes.iter().map(|route| route.route_id).collect(),
        outcome: Some((request_id, outcome)),
        ..Change::default()
    };
    Ok((Reply::Table(table.id), change))
}

/// A publication goes forward, so that no region shows a load which others do not: first that ends.
fn not_being_published(table: &Table) -> Result<(), CommandError> {
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
) -> Result<Change, CommandError> {
    let id = TableId(command.table_id);
    let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
    match table.state {
        TableState::Dropping => Ok(Change {
            table_deletes: vec![id],
            hook_deletes: hooks::of_table(state, id),
            ..Change::default()
        }),
        state => Err(CommandError::TableState { table: id, state }),
    }
}

pub(super) fn request_id(text: &str) -> Result<Uuid, CommandError> {
    text.parse().map_err(|_| CommandError::Malformed("the request id is no UUID".to_owned()))
}

/// The table that this very request got before; an error when its id was another request's, or
/// when no more ids can be remembered.
pub(super) fn repeated(
    state: &MetaState,
    request: Uuid,
    kind: OutcomeKind,
    name: &str,
) -> Result<Option<TableId>, CommandError> {
    match state.outcome(request) {
        Some(outcome) if outcome.kind == kind && outcome.table_name == name => {
            Ok(Some(outcome.table_id))
        }
        Some(_) => Err(CommandError::RequestIdReused(request)),
        None if state.outcome_count() >= MAX_OUTCOMES => {
            Err(CommandError::OutcomesFull(state.outcome_count()))
        }
        None => Ok(None),
    }
}
