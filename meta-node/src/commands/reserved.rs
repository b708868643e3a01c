//! Reserved tables: a definition whose routes are saved before regions exist, by restores, imports and tools. The
//! routes of a table that is served are changed by procedures only.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidewater_common::ids::{CatalogVersion, Epoch, GroupId, RegionId, TableId};
use tidewater_common::rows::MAX_KEY_BYTES;
use tidewater_proto::v1::{self, GroupState, LockMode, TableState};

use super::requests::IdentifiedRequest;
use super::tables::{self, TableDefinition};
use super::{
    CommandError, CommandReply, GroupCommandError, RouteCommandError, Rules, new_table, procedures,
};
use crate::catalog::{
    CatalogChange, Coverage, MetaState, OutcomeKind, RouteDescriptor, RouteError, RouteState,
    Table, validate_routes,
};

/// Maximum number of routes of a save, which is one entry of the log.
pub(super) const MAX_SAVED_ROUTES: usize = 10_000;

/// Distance of the highest id that a save may name from the next route id.
const MAX_ID_DISTANCE: u64 = 1 << 32;
/// Maximum length of a bound: the id of a table, then a row key.
const MAX_BOUND_BYTES: usize = 4 + MAX_KEY_BYTES;

/// Reserves a table. The same definition returns the table that it has reserved.
pub(super) fn reserve(
    state: &MetaState,
    request: &v1::ReserveTableRequest,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let malformed = |text: &str| CommandError::Malformed(text.to_owned());
    let definition =
        request.definition.as_ref().ok_or_else(|| malformed("it has no definition"))?;
    if definition.regions != 0 {
        return Err(malformed("the regions of a reserved table follow from its routes"));
    }
    let (schema, options) = new_table::definition(definition)?;
    if let Some(table) = state.table_named(&definition.name) {
        let is_same = (&table.schema, &table.options) == (&schema, &options);
        return match table.state {
            TableState::Reserved if is_same => {
                Ok((CommandReply::Table(table.id), CatalogChange::default()))
            }
            _ => Err(CommandError::TableExists(definition.name.clone())),
        };
    }
    let id = tables::new_id(state, &definition.name)?;
    let name = definition.name.clone();
    let new = TableDefinition { id, name, schema, options, clone_of: None };
    let (table, header) = tables::defined(state, new, TableState::Reserved)?;
    let change =
        CatalogChange { header: Some(header), tables: vec![table], ..CatalogChange::default() };
    Ok((CommandReply::Table(id), change))
}

/// Replaces the routes of a reserved table.
pub(super) fn save(
    state: &MetaState,
    request: &v1::SaveRoutesRequest,
    rules: Rules,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let id = TableId(request.table_id);
    let name = id.to_string();
    let key = (request.request_id.as_str(), name.as_str());
    let identified = IdentifiedRequest::new(rules, OutcomeKind::SaveRoutes, key, request)?;
    if let Some(table) = identified.find_repeated(state)? {
        return Ok((CommandReply::Table(table), CatalogChange::default()));
    }
    let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
    check_reserved(state, table)?;
    let version = state.catalog_version();
    if CatalogVersion(request.expected_version) != version {
        return Err(RouteCommandError::VersionMismatch {
            expected: request.expected_version,
            version,
        }
        .into());
    }
    let (routes, next_route_id) = saved_routes(state, id, &request.routes)?;
    let kept: BTreeSet<RegionId> = routes.iter().map(|route| route.route_id).collect();
    let before = state.routes_of(id).map(|route| route.route_id);
    let change = CatalogChange {
        next_route_id: Some(next_route_id),
        route_deletes: before.filter(|route| !kept.contains(route)).collect(),
        routes,
        ..CatalogChange::default()
    };
    Ok(identified.begun(state, (id, change)))
}

/// Checks that a table is reserved, and that no procedure opens it.
fn check_reserved(state: &MetaState, table: &Table) -> Result<(), CommandError> {
    procedures::check_lock(state, table, LockMode::Exclusive)?;
    match table.state {
        TableState::Reserved => Ok(()),
        _ => Err(CommandError::Route(RouteCommandError::RouteLive(table.name.clone()))),
    }
}

/// Validates the routes of a save and mints missing ids. Returns them in key order, and the next route id.
fn saved_routes(
    state: &MetaState,
    table: TableId,
    routes: &[v1::Route],
) -> Result<(Vec<RouteDescriptor>, RegionId), CommandError> {
    let max = MAX_SAVED_ROUTES;
    if !(1..=max).contains(&routes.len()) {
        return Err(RouteCommandError::SavedRoutes { routes: routes.len(), max }.into());
    }
    let mut next = state.next_route_id();
    let own: BTreeSet<RegionId> = state.routes_of(table).map(|route| route.route_id).collect();
    for route in routes.iter().filter(|route| route.route_id != 0) {
        let id = RegionId(route.route_id);
        if id < state.next_route_id() && !own.contains(&id) {
            return Err(RouteCommandError::RouteIdUsed(id).into());
        }
        let bound = state.next_route_id().get().saturating_add(MAX_ID_DISTANCE);
        if id.get() >= bound {
            return Err(RouteCommandError::RouteIdTooHigh { id, bound }.into());
        }
        let above = id.get().checked_add(1).ok_or(RouteError::RouteIdOverflow)?;
        next = next.max(RegionId(above));
    }
    let mut saved = Vec::with_capacity(routes.len());
    for route in routes {
        let length = route.start.len().max(route.end.as_ref().map_or(0, Bytes::len));
        if length > MAX_BOUND_BYTES {
            return Err(RouteCommandError::BoundTooLong(length).into());
        }
        let mut route_id = RegionId(route.route_id);
        if route_id == RegionId(0) {
            route_id = next;
            next = RegionId(next.get().checked_add(1).ok_or(RouteError::RouteIdOverflow)?);
        }
        saved.push(RouteDescriptor {
            route_id,
            start: route.start.to_vec(),
            end: route.end.as_ref().map(|end| end.to_vec()),
            group_id: GroupId(route.group_id),
            state: RouteState::Active,
            parent_route_id: None,
            epoch: Epoch(0),
            incarnation: state.header().incarnation,
        });
    }
    saved.sort_by(|left, right| left.start.cmp(&right.start));
    let sorted: Vec<&RouteDescriptor> = saved.iter().collect();
    validate_routes(&sorted, [(table, Coverage::Partial)])
        .map_err(RouteCommandError::SavedRoute)?;
    saved.iter().try_for_each(|route| check_group(state, route.group_id))?;
    Ok((saved, next))
}

fn check_group(state: &MetaState, id: GroupId) -> Result<(), CommandError> {
    match state.group(id) {
        None => Err(CommandError::Group(GroupCommandError::GroupNotFound(id))),
        Some(group) if group.takes_routes() => Ok(()),
        Some(group) if group.state == GroupState::Active => {
            Err(CommandError::Group(GroupCommandError::Retiring(id)))
        }
        Some(group) => Err(CommandError::Group(GroupCommandError::GroupState {
            group: id,
            state: group.state,
        })),
    }
}

#[cfg(test)]
mod tests;
