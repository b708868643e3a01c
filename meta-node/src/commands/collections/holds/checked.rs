//! Checks of the acquisition and the release of holds.

use std::collections::BTreeSet;

use tidewater_common::ids::Epoch;
use tidewater_common::quote::quoted;
use tidewater_proto::v1;
use uuid::Uuid;

use crate::catalog::{EXPORT_HOLD_PREFIX, MetaState, ReadHold};
use crate::commands::CollectionCommandError;

/// Maximum number of tables of a hold. Apply depends on this limit and those below, so they never change.
const MAX_TABLES: usize = 1_000;
/// Maximum length of a name, in characters, and of a holder, in bytes.
const MAX_NAME_CHARS: usize = 128;
const MAX_HOLDER_BYTES: usize = 256;
/// Length of a lease in milliseconds: shortest, longest, default.
const MIN_LEASE_MS: u64 = 10_000;
const MAX_LEASE_MS: u64 = 30 * 24 * 3_600_000;
const DEFAULT_LEASE_MS: u64 = 60_000;

/// Fields of an acquisition that do not depend on the state.
pub(crate) struct CheckedAcquisition {
    pub(super) id: Uuid,
    pub(super) lease_ms: u64,
}

/// Checks a new acquisition, apart from its relation to the state.
///
/// # Errors
/// [`CollectionCommandError::BadRequest`] names the first problem.
pub(crate) fn check_acquire(
    request: &v1::AcquireReadHoldRequest,
) -> Result<CheckedAcquisition, CollectionCommandError> {
    let checked = check_fields(request)?;
    check_not_reserved(&request.name)?;
    Ok(checked)
}

/// Checks the fields of an acquisition that do not depend on the state.
///
/// # Errors
/// [`CollectionCommandError::BadRequest`] names the first problem.
pub(super) fn check_fields(
    request: &v1::AcquireReadHoldRequest,
) -> Result<CheckedAcquisition, CollectionCommandError> {
    let Ok(id) = Uuid::parse_str(&request.request_id) else {
        return bad("the request id of a hold is not a UUID");
    };
    check_name(&request.name)?;
    if request.holder.len() > MAX_HOLDER_BYTES {
        return bad("the holder of a hold has more than 256 bytes");
    }
    let lease_ms = match request.lease_ms {
        0 => DEFAULT_LEASE_MS,
        lease_ms if (MIN_LEASE_MS..=MAX_LEASE_MS).contains(&lease_ms) => lease_ms,
        _ => return bad("the lease of a hold must be 10s to 30d"),
    };
    if request.tables.is_empty() == request.like.is_empty() {
        return bad("a hold is of tables, or like another hold");
    }
    if request.tables.len() > MAX_TABLES {
        return bad("a hold has more than 1,000 tables");
    }
    Ok(CheckedAcquisition { id, lease_ms })
}

/// Returns whether an earlier identical request has acquired a hold, which may have moved to a later epoch since.
pub(super) fn is_acquired_by(
    hold: &ReadHold,
    request: &v1::AcquireReadHoldRequest,
    checked: &CheckedAcquisition,
    state: &MetaState,
) -> bool {
    let named: BTreeSet<&str> = request.tables.iter().map(String::as_str).collect();
    // A table may have been dropped since, and its name be that of a later one.
    let held = hold.tables.iter().filter_map(|id| state.table(*id));
    let held: BTreeSet<&str> = held.map(|table| table.original_name()).collect();
    let is_of_tables = !request.like.is_empty() || named == held;
    is_of_tables
        && (hold.request, hold.lease_ms) == (checked.id, checked.lease_ms)
        && hold.holder == request.holder
        && hold.epoch >= Epoch(request.epoch)
}

/// Refuses names that only the holds of exports have.
pub(super) fn check_not_reserved(name: &str) -> Result<(), CollectionCommandError> {
    if name.starts_with(EXPORT_HOLD_PREFIX) {
        return bad("names that begin with \"export:\" are of exports");
    }
    Ok(())
}

/// Refuses to change the hold of an export, which would lose what it has yet to read.
pub(super) fn check_not_of_export(
    state: &MetaState,
    hold: &ReadHold,
) -> Result<(), CollectionCommandError> {
    let Some(export) = state.exports().for_hold(hold) else { return Ok(()) };
    let (hold, export) = (quoted(&hold.name), quoted(&export.name));
    let text = format!(
        "hold {hold} is of export {export}, which moves and releases it: `tidewater export drop {export}` ends both"
    );
    Err(CollectionCommandError::BadRequest(text))
}

fn check_name(name: &str) -> Result<(), CollectionCommandError> {
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
        return bad("the name of a hold must have 1 to 128 characters");
    }
    if name.chars().any(char::is_control) {
        return bad("the name of a hold must not have control characters");
    }
    Ok(())
}

fn bad<T>(text: &str) -> Result<T, CollectionCommandError> {
    Err(CollectionCommandError::BadRequest(text.to_owned()))
}
