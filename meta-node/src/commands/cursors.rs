//! Cursors of durable hooks.
//!
//! A cursor is created with its region, or by the procedure of its hook ([`super::hook_procedures`]; under
//! older rules with its hook), and moved by the region's owner through
//! compare-and-set. It is deleted with the hook, or when the hook has received the region's removal.
//!
//! A command that splits or merges regions must also create the cursors of the new regions
//! ([`for_new_routes`]); a command that moves a region must also update the group of its cursors.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_common::ids::{ManifestVersion, RegionId, TableId};
use tidewater_proto::v1::{self, CursorState, HookStart};

use super::{CommandError, HookCommandError};
use crate::catalog::{
    CatalogChange, Coverage, CursorWork, Hook, HookCursor, MetaState, RouteDescriptor, Table,
};

/// Maximum number of cursors that one command moves.
pub(crate) const MAX_ADVANCES: usize = 10_000;

/// Returns the position of a new hook's cursors; `None`: the hook is not durable.
pub(super) fn start_of(request: &v1::AddHookRequest) -> Result<Option<CursorWork>, CommandError> {
    let malformed = |text: &str| Err(CommandError::Malformed(text.to_owned()));
    let Ok(start) = HookStart::try_from(request.start) else {
        return malformed("the start of a hook must be now, a snapshot or a version");
    };
    if !request.durable {
        return match (start, request.version) {
            (HookStart::Now, 0) => Ok(None),
            _ => malformed("only a durable hook can start with a snapshot or a version"),
        };
    }
    let (version, state) = match (start, request.version) {
        (HookStart::Now, 0) => (0, CursorState::Now),
        (HookStart::Snapshot, 0) => (0, CursorState::Start),
        (HookStart::Version, 0) => return malformed("the first version of a manifest is 1"),
        (HookStart::Version, first) => (first - 1, CursorState::From),
        _ => return malformed("only the start `version` takes a version"),
    };
    Ok(Some(CursorWork::Create { version: ManifestVersion(version), state }))
}

/// Returns a cursor for each region that the new hook observes.
pub(super) fn for_new_hook(state: &MetaState, hook: &Hook, start: CursorWork) -> Vec<HookCursor> {
    let has_regions = |table: &&Arc<Table>| {
        table.coverage() == Coverage::Whole && table.is_live() && hook.observes(table.id)
    };
    let live = state.tables().filter(has_regions);
    let regions =
        live.flat_map(|table| state.routes_of(table.id).map(|route| (table.id, route.as_ref())));
    regions.filter_map(|(table, route)| cursor_at(hook, table, route, start)).collect()
}

/// Returns the cursor that a procedure creates in a region.
pub(super) fn cursor_at(
    hook: &Hook,
    table: TableId,
    route: &RouteDescriptor,
    work: CursorWork,
) -> Option<HookCursor> {
    match work {
        CursorWork::Create { version, state } => {
            Some(HookCursor { version, state, ..new_cursor(hook, table, route) })
        }
        CursorWork::Delete => None,
    }
}

/// Returns the cursors of new regions, of which durable hooks receive all versions.
pub(super) fn for_new_routes(
    state: &MetaState,
    table: TableId,
    routes: &[RouteDescriptor],
) -> Vec<HookCursor> {
    let hooks = state.hooks().filter(|hook| hook.durable && hook.observes(table));
    hooks.flat_map(|hook| routes.iter().map(move |route| new_cursor(hook, table, route))).collect()
}

fn new_cursor(hook: &Hook, table: TableId, route: &RouteDescriptor) -> HookCursor {
    HookCursor {
        hook: hook.name.clone(),
        generation: hook.generation,
        region: route.route_id,
        table,
        incarnation: route.incarnation,
        group: route.group_id,
        version: ManifestVersion(0),
        state: CursorState::Tail,
    }
}

/// Returns the keys of a hook's cursors, which are deleted with the hook.
pub(super) fn keys_of_hook(state: &MetaState, hook: &str) -> Vec<(RegionId, String)> {
    let cursors = state.cursors().of_hook(hook);
    cursors.map(|cursor| (cursor.region, cursor.hook.clone())).collect()
}

/// Moves the cursors that are at the expected position.
pub(super) fn advance(
    state: &MetaState,
    command: &v1::AdvanceCursors,
) -> Result<CatalogChange, CommandError> {
    if command.advances.len() > MAX_ADVANCES {
        return Err(HookCommandError::TooManyAdvances(command.advances.len()).into());
    }
    let mut change = CatalogChange::default();
    let mut seen = BTreeSet::new();
    for advance in &command.advances {
        // Decisions use the state before the command: the first of two updates of a cursor wins.
        if !seen.insert((advance.region_id, advance.hook.as_str())) {
            continue;
        }
        match decide_advance(state, advance) {
            Some(CursorAdvance::Move(cursor)) => change.cursors.push(cursor),
            Some(CursorAdvance::Delete(key)) => change.cursor_deletes.push(key),
            None => {}
        }
    }
    change.hook_deletes = hooks_without_regions(state, &change.cursor_deletes);
    Ok(change)
}

enum CursorAdvance {
    Move(HookCursor),
    Delete((RegionId, String)),
}

/// Decides on one update of a cursor; `None`: the cursor is unchanged.
fn decide_advance(state: &MetaState, advance: &v1::CursorAdvance) -> Option<CursorAdvance> {
    let region = RegionId(advance.region_id);
    let cursor = state.cursors().get(region, &advance.hook)?;
    let expected = cursor.generation.get() == advance.generation
        && cursor.version.get() == advance.expected_version
        && cursor.state == advance.expected_state();
    if !expected {
        return None;
    }
    if advance.done {
        // A region with a route is not dropped.
        let dropped = state.route(region).is_none();
        return dropped.then(|| CursorAdvance::Delete((region, advance.hook.clone())));
    }
    let version = ManifestVersion(advance.version);
    let to = advance.state();
    may_move((cursor.version, cursor.state), (version, to))
        .then(|| CursorAdvance::Move(HookCursor { version, state: to, ..cursor.clone() }))
}

/// Transition function of cursors: returns whether a cursor may move from one position to another.
fn may_move(from: (ManifestVersion, CursorState), to: (ManifestVersion, CursorState)) -> bool {
    use CursorState::{From, Gone, Lagged, Now, Start, Tail};
    match (from.1, to.1) {
        (Now | Start | Lagged, Tail) => to.0 >= from.0,
        (Tail, Tail) => to.0 > from.0,
        (From, Tail | Gone) => to.0 == from.0,
        // Below: the cursor was above its manifest.
        (Tail, Lagged) => to.0 <= from.0,
        _ => false,
    }
}

/// Returns the hooks of a deleted table that lose their last cursors with the `deleted` ones.
fn hooks_without_regions(state: &MetaState, deleted: &[(RegionId, String)]) -> Vec<String> {
    let names: BTreeSet<&str> = deleted.iter().map(|(_, hook)| hook.as_str()).collect();
    let has_deleted_table = |name: &&str| {
        let table = state.hook(name).and_then(|hook| hook.table);
        table.is_some_and(|table| state.table(table).is_none())
    };
    let loses_all_cursors = |name: &&str| {
        let own = deleted.iter().filter(|(_, hook)| hook == name).count();
        state.cursors().count(name) == own
    };
    names
        .into_iter()
        .filter(has_deleted_table)
        .filter(loses_all_cursors)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests;
