//! Checks that procedures on routes share.

use std::sync::Arc;

use tidewater_common::ids::{RegionId, TableId};
use tidewater_common::keys::split_global_key;
use tidewater_proto::v1::{LockMode, TableState};

use super::check_lock;
use crate::catalog::{MetaState, RouteDescriptor, RouteState};
use crate::commands::{CommandError, RouteCommandError};

/// Time for the preparation of a region, after which its split or merge is abandoned, milliseconds.
pub(super) const HOLD_TIME_MS: u64 = 10 * 60 * 1_000;

/// Checks the version of the catalog on which a caller has decided; 0: any.
pub(super) fn check_version(state: &MetaState, expected: u64) -> Result<(), CommandError> {
    let version = state.catalog_version();
    if expected != 0 && expected != version.get() {
        return Err(RouteCommandError::VersionMismatch { expected, version }.into());
    }
    Ok(())
}

/// Returns an active route of an active table, and the table.
pub(super) fn active_route(
    state: &MetaState,
    id: RegionId,
) -> Result<(TableId, &Arc<RouteDescriptor>), CommandError> {
    let route = state.route(id).ok_or(CommandError::Route(RouteCommandError::RouteNotFound(id)))?;
    let (table, _) = split_global_key(&route.start)
        .ok_or(CommandError::Route(RouteCommandError::RouteNotFound(id)))?;
    let of = state.table(table).ok_or(CommandError::TableIdNotFound(table))?;
    if of.state != TableState::Active {
        check_lock(state, of, LockMode::Routes)?;
        return Err(CommandError::TableState { table, state: of.state });
    }
    if route.state != RouteState::Active {
        return Err(RouteCommandError::RouteNotActive { route: id, state: route.state }.into());
    }
    Ok((table, route))
}
