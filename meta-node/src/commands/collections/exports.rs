//! Exports: created with a hold at the epoch of their contents, recorded step by step, dropped.
//!
//! The hold of an export follows from its record, and both are always written by one command: no barrier passes an epoch that
//! a step has yet to read.

mod checked;
mod prefix;
mod progress;

use tidewater_common::ids::Epoch;
use tidewater_proto::v1;

use self::checked::CheckedExport;
pub(crate) use self::checked::check_create;
use self::prefix::TargetPrefix;
pub(super) use self::progress::record;
use super::{CollectionsAt, holds};
use crate::catalog::{CatalogChange, Export, Exports, MetaState, ReadHold, Table};
use crate::commands::{CollectionCommandError, CommandError};

/// Least epoch of contents: a record has epoch 0 for none. The contents as of this one have the rows of both.
const FIRST_EPOCH: Epoch = Epoch(1);
/// Maximum number of exports of a cluster. Apply depends on it, so it never changes.
const MAX_EXPORTS: usize = 1_000;

/// Creates an export. A repeated request changes nothing.
pub(super) fn create(
    at: &CollectionsAt<'_>,
    request: &v1::CreateExportRequest,
) -> Result<CatalogChange, CommandError> {
    let checked = check_create(request)?;
    let exports = at.state.exports();
    // Before the token, which the first request has used.
    if let Some(export) = exports.by_id(checked.id) {
        return if is_created_by(export, request, &checked, at.state) {
            Ok(CatalogChange::default())
        } else {
            Err(CommandError::RequestIdReused(checked.id))
        };
    }
    if exports.get(&request.name).is_some() {
        return Err(CollectionCommandError::ExportExists(request.name.clone()).into());
    }
    check_prefix(exports, &request.target)?;
    check_count(exports.count() + 1)?;
    let table = at.table(&request.table)?;
    let token = token(at, table, &request.token)?;
    let (record, since) = at.advanced(table)?;
    let export = Export {
        id: checked.id,
        name: request.name.clone(),
        table: table.id,
        target: request.target.clone(),
        interval_ms: checked.interval_ms,
        as_of: first_epoch(at, request, (table, since), token)?,
        created_ms: at.state.header().time_ms,
        steps: 0,
        frontier: None,
        advanced_ms: 0,
        step_as_of: None,
        files: 0,
        rows: 0,
        bytes: 0,
    };
    check_hold(at.state, &export.hold(), token)?;
    Ok(CatalogChange {
        holds: vec![export.hold()],
        hold_deletes: token.iter().map(|token| token.name.clone()).collect(),
        exports: vec![export],
        ..at.changed(vec![record])
    })
}

/// Ends an export, and releases its hold.
pub(super) fn drop(
    at: &CollectionsAt<'_>,
    request: &v1::DropExportRequest,
) -> Result<CatalogChange, CommandError> {
    let export = at.state.exports().get(&request.name);
    let export =
        export.ok_or_else(|| CollectionCommandError::ExportNotFound(request.name.clone()))?;
    Ok(CatalogChange {
        export_deletes: vec![export.name.clone()],
        hold_deletes: vec![export.hold_name()],
        ..CatalogChange::default()
    })
}

/// Returns whether an earlier identical request has created an export. Its token was used by that.
fn is_created_by(
    export: &Export,
    request: &v1::CreateExportRequest,
    checked: &CheckedExport,
    state: &MetaState,
) -> bool {
    let table = state.table_named(&request.table).map(|table| table.id);
    export.name == request.name
        && table == Some(export.table)
        && export.target == request.target
        && export.interval_ms == checked.interval_ms
        && (request.epoch == 0 || export.as_of == Epoch(request.epoch))
}

/// Refuses a prefix that is that of another export, contains it, or is in it: each would find objects of the other.
fn check_prefix(exports: &Exports, target: &str) -> Result<(), CollectionCommandError> {
    let Some(prefix) = TargetPrefix::of(target) else { return Ok(()) };
    let is_other = |export: &Export| {
        TargetPrefix::of(&export.target).is_some_and(|other| prefix.overlaps(&other))
    };
    let other = exports.iter().find(|export| is_other(export));
    let Some(other) = other else { return Ok(()) };
    Err(CollectionCommandError::ExportPrefixInUse { url: prefix.url, export: other.name.clone() })
}

/// Checks the number of exports of a cluster after a creation.
fn check_count(exports: usize) -> Result<(), CollectionCommandError> {
    if exports > MAX_EXPORTS {
        return Err(CollectionCommandError::TooManyExports(MAX_EXPORTS));
    }
    Ok(())
}

/// Returns the hold of the token of a request, if it has one.
fn token<'a>(
    at: &'a CollectionsAt<'_>,
    table: &Table,
    name: &str,
) -> Result<Option<&'a ReadHold>, CollectionCommandError> {
    if name.is_empty() {
        return Ok(None);
    }
    let hold = at.state.holds().get(name);
    let hold = hold.ok_or_else(|| CollectionCommandError::ExportTokenExpired(name.to_owned()))?;
    if hold.tables != [table.id] {
        let text = format!("token {name:?} is not of table {:?}", table.name);
        return Err(CollectionCommandError::BadRequest(text));
    }
    Ok(Some(hold.as_ref()))
}

/// Returns the epoch of the contents of an export: the requested one, or that of the token, or the last one that has begun. An
/// export of a refreshable table begins at its published epoch: the steps are from one publication to another.
fn first_epoch(
    at: &CollectionsAt<'_>,
    request: &v1::CreateExportRequest,
    (table, since): (&Table, Epoch),
    token: Option<&ReadHold>,
) -> Result<Epoch, CommandError> {
    let requested = (request.epoch != 0).then_some(Epoch(request.epoch));
    if let (Some(token), Some(requested)) = (token, requested)
        && requested < token.epoch
    {
        let text =
            format!("token {:?} is at epoch {}, after epoch {requested}", token.name, token.epoch);
        return Err(CollectionCommandError::BadRequest(text).into());
    }
    let held = token.map(|token| token.epoch);
    if let Some(published) = at.state.published_of(table.id) {
        let published = published.max(FIRST_EPOCH);
        if requested.is_some_and(|requested| requested != published) {
            let text = format!(
                "an export of a refreshable table begins at its published epoch, {published}: leave the epoch out"
            );
            return Err(CollectionCommandError::BadRequest(text).into());
        }
        return Ok(published);
    }
    // A change that began later may have been applied before, with a later barrier.
    let epoch = requested.or(held).unwrap_or(at.upper.max(since));
    holds::common_epoch(at.upper, &[(since, table)], Some(epoch.max(FIRST_EPOCH)))
}

/// Checks that the hold of a new export can be acquired, and the token's released.
fn check_hold(
    state: &MetaState,
    hold: &ReadHold,
    token: Option<&ReadHold>,
) -> Result<(), CollectionCommandError> {
    let holds = state.holds();
    // Acquired by a caller before the level of exports.
    if holds.get(&hold.name).is_some() {
        return Err(CollectionCommandError::HoldExists(hold.name.clone()));
    }
    let used = usize::from(token.is_some());
    holds::check_counts(holds.count() + 1 - used, holds.held_tables() + 1 - used)
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::Reason;

    use super::*;

    #[test]
    fn exports_of_a_cluster_are_bounded() {
        assert_eq!(check_count(1_000), Ok(()));
        let error = CommandError::from(check_count(1_001).unwrap_err());
        assert_eq!(error.reason(), Reason::InvalidArgument);
        let text = "the cluster has at most 1000 exports: drop those that are not needed";
        assert_eq!(error.to_string(), text);
    }
}
