//! Exports: tables that are written below a prefix, first their contents as of an epoch, then their changes.
//!
//! A read hold of its own keeps the epochs readable that an export has yet to read. It follows from the record of the export.

use std::ops::Bound;
use std::sync::Arc;

use rpds::{RedBlackTreeMapSync as PersistentMap, RedBlackTreeSetSync as PersistentSet};
use tidewater_common::ids::{Epoch, TableId};
use tidewater_proto::v1;
use uuid::Uuid;

use super::CatalogError;
use super::read_hold::{NO_LEASE_END_MS, ReadHold};
use super::records::invalid;

/// Prefix of the names of the holds of exports. Callers cannot acquire such holds.
pub const EXPORT_HOLD_PREFIX: &str = "export:";
/// Prefix of the names of holds that are tokens: each keeps an epoch for an export that is created later.
pub const EXPORT_TOKEN_PREFIX: &str = "export-token:";

/// Export of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Id of the request that has created it.
    pub id: Uuid,
    /// Unique among exports.
    pub name: String,
    /// The table.
    pub table: TableId,
    /// Place of the objects: a JSON object with the URL of the prefix.
    pub target: String,
    /// Time between the begins of two steps, in milliseconds.
    pub interval_ms: u64,
    /// Epoch of the contents, which are the first step.
    pub as_of: Epoch,
    /// Replicated time of the creation.
    pub created_ms: u64,
    /// Number of completed steps.
    pub steps: u64,
    /// Epoch of the last completed step; `None`: no step is completed.
    pub frontier: Option<Epoch>,
    /// Replicated time at which the last completed step was recorded; 0: none is completed.
    pub advanced_ms: u64,
    /// Epoch of the step in progress; `None`: no step is in progress.
    pub step_as_of: Option<Epoch>,
    /// Number of objects with rows of the completed steps.
    pub files: u64,
    /// Number of rows of the completed steps.
    pub rows: u64,
    /// Bytes of the objects of the completed steps.
    pub bytes: u64,
}

impl Export {
    /// Returns the epoch that the next step needs: that of the contents, or of the last completed step.
    #[must_use]
    pub fn held_epoch(&self) -> Epoch {
        self.frontier.unwrap_or(self.as_of)
    }

    /// Returns whether the next step can be as of an epoch: the first one is as of that of the contents, a later one is after
    /// the last completed step.
    #[must_use]
    pub fn is_next_epoch(&self, epoch: Epoch) -> bool {
        match self.frontier {
            None => epoch == self.as_of,
            Some(frontier) => epoch > frontier,
        }
    }

    /// Returns the name of the hold of the export.
    #[must_use]
    pub fn hold_name(&self) -> String {
        format!("{EXPORT_HOLD_PREFIX}{}", self.name)
    }

    /// Returns the hold of the export. It does not expire.
    #[must_use]
    pub fn hold(&self) -> ReadHold {
        ReadHold {
            name: self.hold_name(),
            holder: format!("export {}", self.name),
            tables: vec![self.table],
            epoch: self.held_epoch(),
            lease_ms: NO_LEASE_END_MS,
            lease_end_ms: NO_LEASE_END_MS,
            acquired_ms: self.created_ms,
            request: self.id,
        }
    }

    /// Checks that the epochs fit the number of completed steps.
    fn check(&self) -> Result<(), CatalogError> {
        if self.frontier.is_some() != (self.steps > 0) {
            return Err(invalid("export", "its frontier does not fit its steps"));
        }
        if self.held_epoch() < self.as_of {
            return Err(invalid("export", "its frontier is before its contents"));
        }
        if self.step_as_of.is_some_and(|epoch| !self.is_next_epoch(epoch)) {
            return Err(invalid("export", "the epoch of its step does not fit its frontier"));
        }
        Ok(())
    }
}

impl From<&Export> for v1::Export {
    fn from(export: &Export) -> Self {
        Self {
            id: export.id.as_bytes().to_vec().into(),
            name: export.name.clone(),
            table_id: export.table.get(),
            target: export.target.clone(),
            interval_ms: export.interval_ms,
            as_of: export.as_of.get(),
            created_ms: export.created_ms,
            steps: export.steps,
            frontier: export.frontier.unwrap_or_default().get(),
            advanced_ms: export.advanced_ms,
            step_as_of: export.step_as_of.unwrap_or_default().get(),
            files: export.files,
            rows: export.rows,
            bytes: export.bytes,
        }
    }
}

impl TryFrom<v1::Export> for Export {
    type Error = CatalogError;

    fn try_from(stored: v1::Export) -> Result<Self, CatalogError> {
        let known = |epoch: u64| (epoch != 0).then_some(Epoch(epoch));
        let id = Uuid::from_slice(&stored.id);
        let export = Self {
            id: id.map_err(|_| invalid("export", "its id is not a UUID"))?,
            name: stored.name,
            table: TableId(stored.table_id),
            target: stored.target,
            interval_ms: stored.interval_ms,
            as_of: Epoch(stored.as_of),
            created_ms: stored.created_ms,
            steps: stored.steps,
            frontier: known(stored.frontier),
            advanced_ms: stored.advanced_ms,
            step_as_of: known(stored.step_as_of),
            files: stored.files,
            rows: stored.rows,
            bytes: stored.bytes,
        };
        export.check()?;
        Ok(export)
    }
}

/// The exports of a state. Clones share their records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exports {
    by_name: PersistentMap<String, Arc<Export>>,
    // Indexes over the exports.
    by_id: PersistentMap<Uuid, String>,
    by_table: PersistentSet<(TableId, String)>,
}

impl Exports {
    /// Returns the export with this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Export>> {
        self.by_name.get(name)
    }

    /// Returns the export with this id.
    pub fn by_id(&self, id: Uuid) -> Option<&Arc<Export>> {
        self.by_id.get(&id).and_then(|name| self.by_name.get(name))
    }

    /// Returns the export that a read hold belongs to; `None`: a caller has acquired the hold.
    pub fn for_hold(&self, hold: &ReadHold) -> Option<&Arc<Export>> {
        hold.name.strip_prefix(EXPORT_HOLD_PREFIX).and_then(|name| self.by_name.get(name))
    }

    /// Returns the number of exports.
    pub fn count(&self) -> usize {
        self.by_name.size()
    }

    /// Returns all exports, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Export>> {
        self.by_name.values()
    }

    /// Returns the exports with a later name, by name.
    pub fn after(&self, name: &str) -> impl Iterator<Item = &Arc<Export>> {
        let later = (Bound::Excluded(name), Bound::Unbounded);
        self.by_name.range::<str, _>(later).map(|(_, export)| export)
    }

    /// Returns the exports of a table, by name.
    pub fn for_table(&self, table: TableId) -> impl Iterator<Item = &Arc<Export>> {
        let from = (table, String::new());
        let named = self.by_table.range(from..).take_while(move |(of, _)| *of == table);
        named.filter_map(|(_, name)| self.by_name.get(name))
    }

    /// Adds an export, or replaces the one with its name.
    pub(super) fn put(&mut self, export: Export) {
        self.remove(&export.name);
        self.by_id.insert_mut(export.id, export.name.clone());
        self.by_table.insert_mut((export.table, export.name.clone()));
        self.by_name.insert_mut(export.name.clone(), Arc::new(export));
    }

    /// Removes the export with this name.
    pub(super) fn remove(&mut self, name: &str) {
        let Some(export) = self.by_name.get(name).cloned() else { return };
        self.by_id.remove_mut(&export.id);
        self.by_table.remove_mut(&(export.table, export.name.clone()));
        self.by_name.remove_mut(name);
    }
}

#[cfg(test)]
mod tests;
