//! Readable epochs of tables: read holds, read policies and capabilities; and exports, which hold what they have yet to read.
//!
//! The leader completes each command with the epoch of the last barrier that it has sent, which is at or above the oldest
//! readable epoch that any barrier has named. Before a change, the record of a table advances to that epoch by the rules
//! before the change: the record has all advances by earlier barriers, although no barrier is a command. A new hold is
//! at or above that, and every later barrier follows it.
//!
//! The first change of a table comes after an alteration: its oldest readable epoch becomes its own, and stays. The leader
//! then asks the regions for it, and names it in the command.

mod exports;
mod holds;
mod policies;

use tidewater_collections::{Capabilities, ReadPolicy};
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{Epoch, TableId};
use tidewater_common::schema::dropped_table_name;
use tidewater_proto::v1::{self, ProcedureKind, TableState, change_collections::Change};

use super::{CollectionCommandError, CommandError};
use crate::catalog::{
    CatalogChange, Collection, DroppedTable, MetaState, Since, Table, TableChange,
};

pub(crate) use self::exports::check_create;
pub(crate) use self::holds::{MAX_NAMES, check_acquire};

/// Decides a change of collections.
pub(super) fn change(
    state: &MetaState,
    command: &v1::ChangeCollections,
) -> Result<CatalogChange, CommandError> {
    let at = CollectionsAt { state, command, upper: Epoch(command.upper) };
    let change = command.change.as_ref();
    let change = change.ok_or_else(|| malformed("a change of collections is empty"))?;
    if at.upper == Epoch(0) && needs_epoch(change) {
        return Err(malformed("a change of collections has no epoch"));
    }
    match change {
        Change::Acquire(request) => holds::acquire(&at, request),
        Change::Renew(request) => holds::renew(&at, request),
        Change::Downgrade(request) => holds::downgrade(&at, request),
        Change::Release(request) => holds::release(&at, request),
        Change::Expire(request) => holds::expire(&at, request),
        Change::Policy(request) => policies::set(&at, request),
        Change::Capabilities(request) => policies::update_capabilities(&at, request),
        Change::Record(_) => Ok(record_sinces(&at)),
        Change::CreateExport(request) => exports::create(&at, request),
        Change::RecordExport(request) => exports::record(&at, request),
        Change::DropExport(request) => exports::drop(&at, request),
    }
}

/// Checks a change without carrying it out.
///
/// # Errors
/// Those of the command in this state.
pub(crate) fn check_change(
    state: &MetaState,
    command: &v1::ChangeCollections,
) -> Result<(), CommandError> {
    change(state, command).map(drop)
}

fn malformed(text: &str) -> CommandError {
    CommandError::Malformed(text.to_owned())
}

/// Returns whether a change is decided as of the last barrier. Others release or extend holds, or continue and end exports.
pub(crate) fn needs_epoch(change: &Change) -> bool {
    !matches!(
        change,
        Change::Renew(_)
            | Change::Release(_)
            | Change::Expire(_)
            | Change::RecordExport(_)
            | Change::DropExport(_)
    )
}

/// Creates the records of the tables whose regions have reported their oldest readable epochs. A table that was changed or
/// dropped since has none.
fn record_sinces(at: &CollectionsAt<'_>) -> CatalogChange {
    let named = at.command.learned.iter().filter_map(|learned| learned.table.as_ref());
    let tables = named.filter_map(|table| at.state.table(TableId(table.table_id)));
    let fitting = tables.filter_map(|table| at.table(&table.name).ok());
    let advanced = fitting.filter_map(|table| at.advanced(table).ok());
    at.changed(advanced.map(|(record, _)| record).collect())
}

/// Refuses changes of a refreshable table below their level: its regions would take publications for readable that are not.
///
/// # Errors
/// [`CommandError::FeatureLevel`].
pub(crate) fn check_level(state: &MetaState, table: &Table) -> Result<(), CommandError> {
    let (level, needed) = (state.header().feature_level, FeatureLevel::HELD_REFRESHES);
    if table.options.refreshable && level < needed {
        return Err(CommandError::FeatureLevel { needed, level });
    }
    Ok(())
}

/// Returns the refreshable tables of a hold whose next publication has to be after its epoch, so that they can be read as of it.
fn complete_at(state: &MetaState, tables: &[TableId], epoch: Epoch) -> Vec<Table> {
    let named = tables.iter().filter_map(|table| state.table(*table));
    let behind =
        named.filter(|table| table.options.refreshable && table.complete_through() < epoch);
    behind.map(|table| Table { complete: epoch, ..table.as_ref().clone() }).collect()
}

/// Returns whether the regions of a table are being truncated.
pub(crate) fn is_truncated(state: &MetaState, table: &Table) -> bool {
    let by_procedure = state.procedures().of_table(table.id).any(|procedure| {
        procedure.table == table.id && procedure.kind == ProcedureKind::Truncate as u32
    });
    by_procedure || table.change == Some(TableChange::Truncate)
}

/// Refuses an operation that takes away rows that holds or capabilities keep.
///
/// # Errors
/// [`CollectionCommandError::Exported`], [`CollectionCommandError::Held`] and [`CollectionCommandError::Capable`].
pub(super) fn check_not_held(
    state: &MetaState,
    table: &Table,
    operation: &'static str,
) -> Result<(), CommandError> {
    let name = || table.original_name().to_owned();
    if let Some(export) = state.exports().for_table(table.id).next() {
        let export = export.name.clone();
        return Err(CollectionCommandError::Exported { table: name(), export, operation }.into());
    }
    let capabilities = state.collection(table.id).and_then(|of| of.capabilities.least());
    if capabilities.is_some() {
        return Err(CollectionCommandError::Capable { table: name(), operation }.into());
    }
    if let Some(hold) = state.holds().least_of(table.id) {
        let hold = hold.name.clone();
        return Err(CollectionCommandError::Held { table: name(), hold, operation }.into());
    }
    Ok(())
}

/// Returns whether the drop of a table keeps its rows: a hold keeps them, and neither an export, which reads on, nor
/// capabilities, which have no end, do. A dropped table whose regions refuse writes is not dropped again while it is held.
pub(super) fn keeps_rows_when_dropped(state: &MetaState, table: &Table) -> bool {
    let record = state.collection(table.id);
    state.header().feature_level >= FeatureLevel::HELD_DROPS
        && (table.dropped.is_none() || !table.options.dropped)
        && state.holds().least_of(table.id).is_some()
        && state.exports().for_table(table.id).next().is_none()
        && record.is_some_and(|of| of.capabilities.least().is_none())
}

/// Returns a held table after its drop, with a reserved name, and its record: from now on, only holds keep its epochs. The
/// record needs no advance before: no barrier has named an epoch above the least hold.
///
/// # Errors
/// The table has no record.
pub(super) fn dropped_and_kept(
    state: &MetaState,
    table: &Table,
) -> Result<(Table, Collection), CommandError> {
    let record = state.collection(table.id);
    let record = record.ok_or_else(|| CollectionCommandError::SinceUnknown(table.name.clone()))?;
    let dropped_ms = state.header().time_ms;
    let first = || DroppedTable { name: table.name.clone(), dropped_ms };
    let kept = Table {
        name: dropped_table_name(table.id),
        // The first drop may have been superseded.
        dropped: Some(table.dropped.clone().unwrap_or_else(first)),
        ..table.clone()
    };
    Ok((kept, Collection { policy: ReadPolicy::Empty, ..record.as_ref().clone() }))
}

/// Returns the record of a table that is to be truncated, if it has one: its regions know the oldest readable epoch after
/// the truncation.
pub(super) fn with_unknown_since(state: &MetaState, table: TableId) -> Option<Collection> {
    let record = state.collection(table)?;
    match record.since {
        Since::Known(since) => {
            let since = Since::AtLeast(since);
            Some(Collection { since, ..record.as_ref().clone() })
        }
        Since::AtLeast(_) => None,
    }
}

/// Collections of a state as of the epoch of the leader's last barrier.
struct CollectionsAt<'a> {
    state: &'a MetaState,
    command: &'a v1::ChangeCollections,
    upper: Epoch,
}

impl CollectionsAt<'_> {
    /// Returns a table whose readable epochs can be changed.
    ///
    /// # Errors
    /// The table is missing, being created or truncated, or its oldest readable epoch is not its own; those of
    /// [`check_level`].
    fn table(&self, name: &str) -> Result<&Table, CommandError> {
        let state = self.state;
        let table = state.table_named(name);
        let table = table.ok_or_else(|| CommandError::TableNotFound(name.to_owned()))?;
        check_level(state, table)?;
        if table.state != TableState::Active {
            return Err(CommandError::busy(table, "created"));
        }
        if is_truncated(state, table) {
            return Err(CommandError::busy(table, "truncated"));
        }
        if !table.options.explicit_since {
            return Err(CollectionCommandError::SinceNotOwn(table.name.clone()).into());
        }
        Ok(table)
    }

    /// Returns the record of a table, advanced to the leader's epoch by the rules before the change, and its oldest readable
    /// epoch.
    ///
    /// # Errors
    /// [`CollectionCommandError::SinceUnknown`].
    fn advanced(&self, table: &Table) -> Result<(Collection, Epoch), CommandError> {
        let known = self.state.collection(table.id);
        let is_recorded = known.is_some();
        let mut record = match known {
            Some(record) => record.as_ref().clone(),
            // The history at the first change: a later leader may have another one.
            None => Collection {
                table: table.id,
                since: Since::AtLeast(Epoch(0)),
                policy: self.cluster_policy(),
                capabilities: Capabilities::default(),
            },
        };
        let since = match record.since_at(self.state.kept_from(table.id), self.upper) {
            Since::Known(since) => since,
            // A barrier from before the truncation may reach a region late.
            Since::AtLeast(floor) if is_recorded => floor.max(self.learned(table)?),
            Since::AtLeast(_) => self.learned(table)?,
        };
        record.since = Since::Known(since);
        Ok((record, since))
    }

    /// Returns the policy of tables without their own: the history of the cluster.
    fn cluster_policy(&self) -> ReadPolicy {
        ReadPolicy::LagWriteFrontier { lag_ms: self.command.history_ms, granularity_ms: 0 }
    }

    /// Returns the oldest readable epoch that the regions of a table have reported since its last change.
    fn learned(&self, table: &Table) -> Result<Epoch, CommandError> {
        let of_table = self.command.learned.iter().find_map(|learned| {
            let named = learned.table.as_ref()?;
            let is_of = named.table_id == table.id.get() && learned.changes == table.changes;
            is_of.then_some(Epoch(named.since))
        });
        of_table
            .filter(|since| *since <= self.upper)
            // A refreshable table is readable as of its last publication.
            .map(|since| self.state.published_of(table.id).map_or(since, |last| last.min(since)))
            .ok_or_else(|| CollectionCommandError::SinceUnknown(table.name.clone()).into())
    }

    /// Returns a change with the records that differ from those of the state.
    fn changed(&self, records: Vec<Collection>) -> CatalogChange {
        let is_new = |record: &Collection| {
            self.state.collection(record.table).is_none_or(|known| **known != *record)
        };
        let collections = records.into_iter().filter(is_new).collect();
        CatalogChange { collections, ..CatalogChange::default() }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
