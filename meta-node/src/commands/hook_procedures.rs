//! Procedures of durable hooks: the cursors of all regions are created and deleted by commands of some
//! regions each, which the leader proposes until the procedure has ended.
//!
//! A table that is created after the hook has its cursors at once. So a procedure passes over regions that
//! have one.

use tidewater_common::ids::{RegionId, Revision};
use tidewater_common::keys::split_global_key;
use tidewater_proto::v1;

use super::{CommandError, cursors};
use crate::catalog::{
    CatalogChange, Coverage, CursorWork, Hook, HookProcedure, MetaState, RouteDescriptor,
};

/// Maximum number of regions of one step.
const MAX_REGIONS: usize = 10_000;

/// Returns the procedure of a hook at its first region.
pub(super) fn begin(hook: &Hook, work: CursorWork) -> HookProcedure {
    HookProcedure {
        hook: hook.name.clone(),
        generation: hook.generation,
        next_region: RegionId(0),
        work,
    }
}

/// Number of hooks that have cursors: durable hooks, and removed ones whose cursors are being deleted.
pub(super) fn hooks_with_cursors(state: &MetaState) -> usize {
    let durable = state.hooks().filter(|hook| hook.durable).count();
    let removed = state.hook_procedures().filter(|found| found.work == CursorWork::Delete).count();
    durable + removed
}

/// Continues a procedure. Without effect when another command has taken this step.
pub(super) fn step(
    state: &MetaState,
    command: &v1::StepHook,
) -> Result<CatalogChange, CommandError> {
    let regions = usize::try_from(command.regions).unwrap_or(usize::MAX);
    if !(1..=MAX_REGIONS).contains(&regions) {
        let text = format!("a step has 1 to {MAX_REGIONS} regions, not {regions}");
        return Err(CommandError::Malformed(text));
    }
    let is_next = |procedure: &&HookProcedure| {
        procedure.generation == Revision(command.generation)
            && procedure.next_region == RegionId(command.from_region_id)
    };
    let Some(procedure) = state.hook_procedure(&command.hook).filter(is_next) else {
        return Ok(CatalogChange::default());
    };
    let mut change = CatalogChange::default();
    let next = match procedure.work {
        CursorWork::Create { .. } => create(state, procedure, regions, &mut change),
        CursorWork::Delete => delete(state, procedure, regions, &mut change),
    };
    match next {
        Some(next_region) => {
            change.hook_procedures = vec![HookProcedure { next_region, ..procedure.clone() }];
        }
        None => change.hook_procedure_deletes = vec![procedure.hook.clone()],
    }
    Ok(change)
}

/// Creates the cursors of the next regions, or of all regions of the only observed table; returns the region
/// after them.
fn create(
    state: &MetaState,
    procedure: &HookProcedure,
    regions: usize,
    change: &mut CatalogChange,
) -> Option<RegionId> {
    // The hook may have been deleted with its table.
    let hook =
        state.hook(&procedure.hook).filter(|hook| hook.generation == procedure.generation)?;
    // A reserved table gets its cursors when it is opened.
    let has_regions =
        |table| state.table(table).is_some_and(|table| table.coverage() == Coverage::Whole);
    let mut visit = |table, route: &RouteDescriptor| {
        if has_regions(table) && state.cursors().get(route.route_id, &hook.name).is_none() {
            change.cursors.extend(cursors::cursor_at(hook, table, route, procedure.work));
        }
    };
    // One table has few regions, which are not the next ones by id.
    if let Some(table) = hook.table {
        state.routes_of(table).for_each(|route| visit(table, route));
        return None;
    }
    let mut routes = state.routes_from(procedure.next_region);
    for route in routes.by_ref().take(regions) {
        if let Some((table, _)) = split_global_key(&route.start) {
            visit(table, route);
        }
    }
    routes.next().map(|route| route.route_id)
}

/// Deletes the cursors of the next regions; returns the region after them.
fn delete(
    state: &MetaState,
    procedure: &HookProcedure,
    regions: usize,
    change: &mut CatalogChange,
) -> Option<RegionId> {
    let mut rest = state.cursors().regions_from(procedure.next_region);
    for (region, _) in rest.by_ref().take(regions) {
        if state.cursors().get(region, &procedure.hook).is_some() {
            change.cursor_deletes.push((region, procedure.hook.clone()));
        }
    }
    rest.next().map(|(region, _)| region)
}

#[cfg(test)]
mod tests;
