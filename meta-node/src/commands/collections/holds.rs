//! Read holds: acquired, renewed, moved to a later epoch, released, expired.

mod checked;

use std::collections::BTreeSet;

use tidewater_collections::{CommonEpochError, earliest_common};
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{Epoch, TableId};
use tidewater_proto::v1;

pub(crate) use self::checked::check_acquire;
use self::checked::{check_fields, check_not_of_export, check_not_reserved, is_acquired_by};
use super::{CollectionsAt, complete_at};
use crate::catalog::{CatalogChange, Collection, ReadHold, Table};
use crate::commands::{CollectionCommandError, CommandError};

/// Maximum number of holds of a cluster. Apply depends on this limit and those below, so they never change.
const MAX_HOLDS: usize = 100_000;
/// Maximum sum of the numbers of tables of all holds.
const MAX_HELD_TABLES: usize = 1_000_000;
/// Maximum number of holds that one command renews or releases.
pub(crate) const MAX_NAMES: usize = 1_000;

/// Acquires a hold. A repeated request changes nothing.
pub(super) fn acquire(
    at: &CollectionsAt<'_>,
    request: &v1::AcquireReadHoldRequest,
) -> Result<CatalogChange, CommandError> {
    let checked = check_fields(request)?;
    // Before that level, releases accept these names: their logs replay to the same state.
    if at.state.header().feature_level >= FeatureLevel::EXPORTS {
        check_not_reserved(&request.name)?;
    }
    let holds = at.state.holds();
    if let Some(held) = holds.get(&request.name) {
        return if held.request != checked.id {
            Err(CollectionCommandError::HoldExists(request.name.clone()).into())
        } else if is_acquired_by(held, request, &checked, at.state) {
            Ok(CatalogChange::default())
        } else {
            Err(CommandError::RequestIdReused(checked.id))
        };
    }
    let (records, held) = if request.like.is_empty() {
        let (records, epoch) = held_records(at, request)?;
        let tables = records.iter().map(|record| record.table).collect();
        (records, (tables, epoch))
    } else {
        (Vec::new(), like(at, request)?)
    };
    let (tables, epoch) = held;
    check_counts(holds.count() + 1, holds.held_tables() + tables.len())?;
    let time_ms = at.state.header().time_ms;
    let completed = complete_at(at.state, &tables, epoch);
    let hold = ReadHold {
        name: request.name.clone(),
        holder: request.holder.clone(),
        tables,
        epoch,
        lease_ms: checked.lease_ms,
        lease_end_ms: time_ms.saturating_add(checked.lease_ms),
        acquired_ms: time_ms,
        request: checked.id,
    };
    Ok(CatalogChange { holds: vec![hold], tables: completed, ..at.changed(records) })
}

/// Returns the records of the tables of a hold, in the order of their ids, and its epoch.
fn held_records(
    at: &CollectionsAt<'_>,
    request: &v1::AcquireReadHoldRequest,
) -> Result<(Vec<Collection>, Epoch), CommandError> {
    let mut seen = BTreeSet::new();
    let mut records = Vec::with_capacity(request.tables.len());
    let mut sinces = Vec::with_capacity(request.tables.len());
    for name in &request.tables {
        let table = at.table(name)?;
        if !seen.insert(table.id) {
            let text = format!("table {name:?} is named twice");
            return Err(CollectionCommandError::BadRequest(text).into());
        }
        let (record, since) = at.advanced(table)?;
        sinces.push((since, table));
        records.push(record);
    }
    records.sort_by_key(|record| record.table);
    let requested = (request.epoch != 0).then_some(Epoch(request.epoch));
    let epoch = common_epoch(at.upper, &sinces, requested)?;
    Ok((records, epoch))
}

/// Returns the epoch at which tables with these oldest readable epochs are held: the requested one, or else the earliest one.
///
/// # Errors
/// The requested epoch can no longer be read, or has not begun.
pub(super) fn common_epoch(
    upper: Epoch,
    sinces: &[(Epoch, &Table)],
    requested: Option<Epoch>,
) -> Result<Epoch, CommandError> {
    let epochs: Vec<Epoch> = sinces.iter().map(|(since, _)| *since).collect();
    let epoch = earliest_common(&epochs, requested);
    let epoch = epoch.map_err(|error| below_since(upper, sinces, error))?;
    // A change that began later may have been applied before, with a later barrier.
    let earliest = epochs.iter().copied().max().unwrap_or_default();
    check_not_ahead(epoch, upper.max(earliest))?;
    Ok(epoch)
}

/// Names the table that can no longer be read at the requested epoch.
fn below_since(upper: Epoch, sinces: &[(Epoch, &Table)], error: CommonEpochError) -> CommandError {
    let CommonEpochError::BelowSince { requested, earliest } = error else {
        return CollectionCommandError::BadRequest("a hold has no tables".to_owned()).into();
    };
    let last = sinces.iter().find(|(since, _)| *since == earliest);
    let table = last.map(|(_, table)| table.name.clone()).unwrap_or_default();
    CollectionCommandError::BelowSince { table, requested, since: earliest, upper }.into()
}

/// Returns tables and epoch of the hold that the new one is like.
fn like(
    at: &CollectionsAt<'_>,
    request: &v1::AcquireReadHoldRequest,
) -> Result<(Vec<TableId>, Epoch), CommandError> {
    let of = at.state.holds().get(&request.like);
    let of = of.ok_or_else(|| CollectionCommandError::HoldNotFound(request.like.clone()))?;
    let epoch = if request.epoch == 0 { of.epoch } else { Epoch(request.epoch) };
    if epoch < of.epoch {
        let text = format!("hold {:?} is at epoch {}, after epoch {epoch}", of.name, of.epoch);
        return Err(CollectionCommandError::BadRequest(text).into());
    }
    check_not_ahead(epoch, at.upper)?;
    Ok((of.tables.clone(), epoch))
}

/// Extends leases. Names that are no holds have no effect: the caller looks at the state.
pub(super) fn renew(
    at: &CollectionsAt<'_>,
    request: &v1::RenewReadHoldsRequest,
) -> Result<CatalogChange, CommandError> {
    let time_ms = at.state.header().time_ms;
    let renewed = named(at, &request.names)?.into_iter().filter_map(|hold| {
        let lease_end_ms = time_ms.saturating_add(hold.lease_ms).max(hold.lease_end_ms);
        (lease_end_ms > hold.lease_end_ms).then(|| ReadHold { lease_end_ms, ..hold.clone() })
    });
    Ok(CatalogChange { holds: renewed.collect(), ..CatalogChange::default() })
}

/// Moves a hold to a later epoch.
pub(super) fn downgrade(
    at: &CollectionsAt<'_>,
    request: &v1::DowngradeReadHoldRequest,
) -> Result<CatalogChange, CommandError> {
    let hold = at.state.holds().get(&request.name);
    let hold = hold.ok_or_else(|| CollectionCommandError::HoldNotFound(request.name.clone()))?;
    check_not_of_export(at.state, hold)?;
    let epoch = Epoch(request.epoch);
    if epoch < hold.epoch {
        let text = format!("hold {:?} is at epoch {}: it cannot move back", hold.name, hold.epoch);
        return Err(CollectionCommandError::BadRequest(text).into());
    }
    check_not_ahead(epoch, at.upper)?;
    if epoch == hold.epoch {
        return Ok(CatalogChange::default());
    }
    let tables = complete_at(at.state, &hold.tables, epoch);
    let moved = ReadHold { epoch, ..hold.as_ref().clone() };
    Ok(CatalogChange { holds: vec![moved], tables, ..CatalogChange::default() })
}

/// Releases holds, all or none. Names that are no holds have no effect.
pub(super) fn release(
    at: &CollectionsAt<'_>,
    request: &v1::ReleaseReadHoldsRequest,
) -> Result<CatalogChange, CommandError> {
    let released = named(at, &request.names)?;
    released.iter().try_for_each(|hold| check_not_of_export(at.state, hold))?;
    let hold_deletes = released.iter().map(|hold| hold.name.clone()).collect();
    Ok(CatalogChange { hold_deletes, ..CatalogChange::default() })
}

/// Releases the holds whose leases have ended. A hold with a later renewal stays.
pub(super) fn expire(
    at: &CollectionsAt<'_>,
    request: &v1::ReleaseReadHoldsRequest,
) -> Result<CatalogChange, CommandError> {
    let time_ms = at.state.header().time_ms;
    let ended = named(at, &request.names)?.into_iter().filter(|hold| hold.lease_end_ms <= time_ms);
    let ended = ended.map(|hold| hold.name.clone());
    Ok(CatalogChange { hold_deletes: ended.collect(), ..CatalogChange::default() })
}

/// Returns the holds with these names, each once.
fn named<'a>(
    at: &'a CollectionsAt<'_>,
    names: &[String],
) -> Result<Vec<&'a ReadHold>, CommandError> {
    if names.len() > MAX_NAMES {
        let text = format!("a request names more than {MAX_NAMES} holds");
        return Err(CollectionCommandError::BadRequest(text).into());
    }
    let names: BTreeSet<&String> = names.iter().collect();
    Ok(names.into_iter().filter_map(|name| at.state.holds().get(name)).map(AsRef::as_ref).collect())
}

/// Checks the numbers of holds of a cluster, and of their tables, after an acquisition.
pub(super) fn check_counts(holds: usize, held_tables: usize) -> Result<(), CollectionCommandError> {
    if holds > MAX_HOLDS {
        return Err(CollectionCommandError::TooMany { limit: MAX_HOLDS, of: "holds" });
    }
    if held_tables > MAX_HELD_TABLES {
        let of = "tables of holds";
        return Err(CollectionCommandError::TooMany { limit: MAX_HELD_TABLES, of });
    }
    Ok(())
}

/// Checks an epoch against the last one that has begun: a hold beyond it would keep nothing.
fn check_not_ahead(epoch: Epoch, upper: Epoch) -> Result<(), CollectionCommandError> {
    if epoch <= upper {
        return Ok(());
    }
    let text = format!("epoch {epoch} has not begun: the last one is {upper}");
    Err(CollectionCommandError::BadRequest(text))
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::Reason;

    use super::*;

    #[test]
    fn holds_of_a_cluster_are_bounded() {
        assert_eq!(check_counts(MAX_HOLDS, MAX_HELD_TABLES), Ok(()));
        for (holds, held_tables, limit) in [
            (MAX_HOLDS + 1, 0, "100000 holds"),
            (1, MAX_HELD_TABLES + 1, "1000000 tables of holds"),
        ] {
            let error = CommandError::from(check_counts(holds, held_tables).unwrap_err());
            assert_eq!(error.reason(), Reason::InvalidArgument);
            let text =
                format!("the cluster has at most {limit}: release holds that are not needed");
            assert_eq!(error.to_string(), text);
        }
    }
}
