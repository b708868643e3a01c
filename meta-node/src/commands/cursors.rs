//! Cursors of durable hooks: made with the hook and with regions, moved by the owners of regions by
//! compare and set, gone with the hook, or when the removal of their region has been told.
//!
//! Whoever splits or merges regions makes the cursors of the new ones in the command that makes their
//! routes ([`of_new_routes`]); whoever moves one moves the group of its cursors along.

use std::collections::BTreeSet;

use tidewater_common::ids::{ManifestVersion, RegionId, TableId};
use tidewater_proto::v1::{self, CursorState, HookStart};

use super::CommandError;
use crate::catalog::{Change, Cursor, Hook, MetaState, RouteDescriptor};

/// Cursors that one command moves.
pub(crate) const MOST_ADVANCES: usize = 10_000;

/// A cursor for each region that the hook sees.
pub(super) fn of_new_hook(
    state: &MetaState,
    hook: &Hook,
    request: &v1::AddHookRequest,
) -> Result<Vec<Cursor>, CommandError> {
    let malformed = |text: &str| Err(CommandError::Malformed(text.to_owned()));
    let Ok(start) = HookStart::try_from(request.start) else {
        return malformed("a hook begins now, with a snapshot, or with a version");
    };
    if !hook.durable {
        return match (start, request.version) {
            (HookStart::Now, 0) => Ok(Vec::new()),
            _ => malformed("only a durable hook begins anywhere but now"),
        };
    }
    let (version, begins) = match (start, request.version) {
        (HookStart::Now, 0) => (0, CursorState::Now),
        (HookStart::Snapshot, 0) => (0, CursorState::Start),
        (HookStart::Version, 0) => return malformed("the first version of a manifest is 1"),
        (HookStart::Version, first) => (first - 1, CursorState::From),
        _ => return malformed("a version is given, but not as where to begin"),
    };
    let live = state.tables().filter(|table| table.is_live() && hook.sees(table.id));
    let regions = live.flat_map(|table| {
        state.routes_of(table.id).into_iter().map(|route| (table.id, route.as_ref()))
    });
    Ok(regions
        .map(|(table, route)| Cursor {
            version: ManifestVersion(version),
            state: begins,
            ..of_region(state, hook, table, route)
        })
        .collect())
}

/// Cursors of new regions, which durable hooks are told everything of.
pub(super) fn of_new_routes(
    state: &MetaState,
    table: TableId,
    routes: &[RouteDescriptor],
) -> Vec<Cursor> {
    let hooks = state.hooks().filter(|hook| hook.durable && hook.sees(table));
    hooks
        .flat_map(|hook| routes.iter().map(move |route| of_region(state, hook, table, route)))
        .collect()
}

fn of_region(state: &MetaState, hook: &Hook, table: TableId, route: &RouteDescriptor) -> Cursor {
    Cursor {
        hook: hook.name.clone(),
        generation: hook.generation,
        region: route.route_id,
        table,
        incarnation: state.header().incarnation,
        group: route.group_id,
        version: ManifestVersion(0),
        state: CursorState::Tail,
    }
}

/// The cursors that go with a hook.
pub(super) fn of_hook(state: &MetaState, hook: &str) -> Vec<(RegionId, String)> {
    let cursors = state.cursors().of_hook(hook);
    cursors.map(|cursor| (cursor.region, cursor.hook.clone())).collect()
}

/// Moves the cursors that are at what is expected.
pub(super) fn advance(
    state: &MetaState,
    command: &v1::AdvanceCursors,
) -> Result<Change, CommandError> {
    if command.advances.len() > MOST_ADVANCES {
        return Err(CommandError::TooManyAdvances(command.advances.len()));
    }
    let mut change = Change::default();
    let mut seen = BTreeSet::new();
    for advance in &command.advances {
        // The state is that before the command: of two on one cursor, the first counts.
        if !seen.insert((advance.region_id, advance.hook.as_str())) {
            continue;
        }
        match moved(state, advance) {
            Some(Moved::To(cursor)) => change.cursors.push(cursor),
            Some(Moved::Away(cursor)) => change.cursor_deletes.push(cursor),
            None => {}
        }
    }
    change.hook_deletes = without_regions(state, &change.cursor_deletes);
    Ok(change)
}

enum Moved {
    To(Cursor),
    Away((RegionId, String)),
}

/// What becomes of a cursor; `None`: it stays as it is.
fn moved(state: &MetaState, advance: &v1::CursorAdvance) -> Option<Moved> {
    let region = RegionId(advance.region_id);
    let cursor = state.cursors().get(region, &advance.hook)?;
    let expected = cursor.generation.get() == advance.generation
        && cursor.version.get() == advance.expected_version
        && cursor.state == advance.expected_state();
    if !expected {
        return None;
    }
    if advance.done {
        // As long as it has a route, it is not dropped.
        let dropped = state.route(region).is_none();
        return dropped.then(|| Moved::Away((region, advance.hook.clone())));
    }
    let (version, to) = (ManifestVersion(advance.version), advance.state());
    may_move((cursor.version, cursor.state), (version, to))
        .then(|| Moved::To(Cursor { version, state: to, ..cursor.clone() }))
}

/// The one home of how a cursor moves.
fn may_move(from: (ManifestVersion, CursorState), to: (ManifestVersion, CursorState)) -> bool {
    use CursorState::{From, Gone, Lagged, Now, Start, Tail};
    match (from.1, to.1) {
        (Now | Start | Lagged, Tail) => to.0 >= from.0,
        (Tail, Tail) => to.0 > from.0,
        (From, Tail | Gone) | (Tail, Lagged) => to.0 == from.0,
        _ => false,
    }
}

/// Hooks for one table that is gone, of which the last cursors go.
fn without_regions(state: &MetaState, gone: &[(RegionId, String)]) -> Vec<String> {
    let names: BTreeSet<&str> = gone.iter().map(|(_, hook)| hook.as_str()).collect();
    let of_no_table = |name: &&str| {
        let table = state.hook(name).and_then(|hook| hook.table);
        table.is_some_and(|table| state.table(table).is_none())
    };
    let goes = |name: &&str| {
        let own = gone.iter().filter(|(_, hook)| hook == name).count();
        state.cursors().of_hook(name).count() == own
    };
    names.into_iter().filter(of_no_table).filter(goes).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
