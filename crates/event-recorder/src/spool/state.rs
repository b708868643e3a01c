//! State of a spool in memory, read from its database when it is opened.

use std::collections::BTreeMap;

use super::keys::{EventSequence, TableNumber};
use crate::queue::PriorityCounts;

/// State of a spool.
#[derive(Debug, Default)]
pub(super) struct SpoolState {
    pub(super) next: EventSequence,
    pub(super) tables: BTreeMap<String, TableState>,
    /// Bytes of all events.
    pub(super) bytes: u64,
    /// Events that gave way, and no summary has reported them.
    pub(super) dropped: PriorityCounts,
    /// Time of the first of them, milliseconds since the Unix epoch.
    pub(super) dropped_since_ms: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct TableState {
    pub(super) number: TableNumber,
    /// No event of the queue precedes it.
    pub(super) first: EventSequence,
    /// Events of the queue that are in no batch.
    pub(super) waiting: u64,
    /// Events of the batch.
    pub(super) in_batch: u64,
}

/// Events of a table in the spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TableEvents {
    /// Events that are in no batch.
    pub(crate) waiting: u64,
    /// Events of the batch that is not complete.
    pub(crate) in_batch: u64,
}

/// Size of the spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SpoolSize {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

/// Outcome of an addition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Appended {
    /// For each event, whether the spool has it.
    pub(crate) accepted: Vec<bool>,
    /// Events that found no room, and earlier ones that gave way.
    pub(crate) dropped: u64,
}

/// Events that gave way, for a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DroppedSummary {
    pub(crate) counts: PriorityCounts,
    pub(crate) since_ms: u64,
}

impl Default for EventSequence {
    fn default() -> Self {
        Self(1)
    }
}

impl SpoolState {
    pub(super) fn clone_for_append(&self) -> Self {
        Self { tables: self.tables.clone(), ..*self }
    }
}
