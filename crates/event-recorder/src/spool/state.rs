//! State of a spool in memory, read from its database when it is opened.

use std::collections::BTreeMap;

use super::keys::{EventSequence, TableNumber};
use crate::queue::PriorityCounts;

/// State of a spool.
#[derive(Debug, Clone, Default)]
pub(super) struct SpoolState {
    pub(super) next: EventSequence,
    pub(super) tables: BTreeMap<String, TableState>,
    /// Bytes of all events.
    pub(super) bytes: u64,
    /// Events that were evicted or found no room, and no summary has reported them.
    pub(super) dropped: PriorityCounts,
    /// Time of the first of them, milliseconds since the Unix epoch.
    pub(super) dropped_since_ms: u64,
}

/// Queue of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableState {
    pub(super) number: TableNumber,
    /// No event of the queue precedes it.
    pub(super) first: EventSequence,
    /// Events that are in no batch.
    pub(super) waiting: EventTotal,
    /// Events of the batch that is not complete.
    pub(super) in_batch: EventTotal,
    /// The batch may have notes.
    pub(super) has_notes: bool,
}

impl TableState {
    pub(super) fn new(number: TableNumber, first: EventSequence) -> Self {
        Self {
            number,
            first,
            waiting: EventTotal::default(),
            in_batch: EventTotal::default(),
            has_notes: false,
        }
    }
}

/// Number and bytes of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EventTotal {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

impl EventTotal {
    pub(super) fn add(&mut self, bytes: u64) {
        self.events += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(super) fn remove(&mut self, bytes: u64) {
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { events: self.events + other.events, bytes: self.bytes.saturating_add(other.bytes) }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            events: self.events.saturating_sub(other.events),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// Events of a table in the spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TableEvents {
    /// Events that are in no batch.
    pub(crate) waiting: EventTotal,
    /// Events of the batch that is not complete.
    pub(crate) in_batch: EventTotal,
}

impl TableEvents {
    /// Returns whether the table has no events.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.events == 0 && self.in_batch.events == 0
    }
}

/// Sizes of a spool, to read without waiting for its disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpoolSizes {
    /// Tables that have had events.
    pub(crate) tables: BTreeMap<String, TableEvents>,
    /// All events.
    pub(crate) total: EventTotal,
}

/// Outcome of an addition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Appended {
    /// For each event, whether the spool has it.
    pub(crate) accepted: Vec<bool>,
    /// Events that found no room, and earlier ones that were evicted.
    pub(crate) dropped: u64,
}

/// Events that were evicted or found no room, for a summary.
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
    /// Sizes of the spool.
    pub(super) fn sizes(&self) -> SpoolSizes {
        let tables: BTreeMap<_, _> = self
            .tables
            .iter()
            .map(|(name, table)| {
                let events = TableEvents { waiting: table.waiting, in_batch: table.in_batch };
                (name.clone(), events)
            })
            .collect();
        let events =
            tables.values().map(|table| table.waiting.events + table.in_batch.events).sum();
        SpoolSizes { tables, total: EventTotal { events, bytes: self.bytes } }
    }

    /// Counts dropped events; `now_ms`: their time.
    pub(super) fn count_dropped(&mut self, counts: PriorityCounts, now_ms: u64) {
        if self.dropped.total() == 0 && counts.total() > 0 {
            self.dropped_since_ms = now_ms;
        }
        self.dropped.add_all(counts);
    }
}
