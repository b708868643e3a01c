//! Attempts to complete the procedures of tables: when the next one is due, and the regions that have
//! completed their part (pure).
//!
//! In memory only: a new leader repeats all regions, which changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tidewater_common::ids::{RegionId, TableId};
use tidewater_proto::v1::{LoadPhase, Reason, TableState};
use tokio::time::Instant;

use crate::catalog::{Table, TableChange};

/// Backoff between the attempts on a table, without progress.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(10) };
/// Maximum number of attempts that begin in one round: each reads all routes of its table.
const MAX_BEGUN: usize = 64;

/// One phase of one procedure of a table: work that the regions do once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TablePhase {
    state: TableState,
    /// Number of the change.
    number: u64,
    load: Option<LoadPhase>,
}

impl From<&Table> for TablePhase {
    fn from(table: &Table) -> Self {
        let load = match &table.change {
            Some(TableChange::Load(load)) => Some(load.phase),
            _ => None,
        };
        Self { state: table.state, number: table.changes, load }
    }
}

/// Change of a table's condition that is logged. Attempts that fail like the previous one are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableNotice {
    /// The first failure, or another one than before.
    Failing,
    /// The first success after failures.
    Recovered,
}

/// Attempts of one phase.
#[derive(Debug)]
struct PhaseAttempts {
    phase: TablePhase,
    in_progress: bool,
    /// Failures in a row without progress.
    failures: u32,
    /// Reason of the last failure.
    reason: Option<Reason>,
    due: Instant,
    completed: BTreeSet<RegionId>,
    /// Number of completed regions before the attempt.
    before: usize,
}

/// Attempts of all tables with a procedure in progress.
#[derive(Debug, Default)]
pub(super) struct TableAttempts {
    tables: BTreeMap<TableId, PhaseAttempts>,
}

impl TableAttempts {
    /// Begins the attempts that are due at `now`, and returns their tables: those with the fewest failures
    /// first, so that tables that fail again and again delay no new ones. `unfinished`: all tables with
    /// a procedure in progress.
    pub(super) fn begin_due(
        &mut self,
        unfinished: Vec<(TableId, TablePhase)>,
        now: Instant,
    ) -> Vec<TableId> {
        let known: BTreeSet<TableId> = unfinished.iter().map(|(table, _)| *table).collect();
        self.tables.retain(|table, attempts| attempts.in_progress || known.contains(table));
        let mut due: Vec<(u32, TableId)> = Vec::new();
        for (table, phase) in unfinished {
            let attempts =
                self.tables.entry(table).or_insert_with(|| PhaseAttempts::new(phase, now));
            if attempts.in_progress {
                continue;
            }
            if attempts.phase != phase {
                *attempts = PhaseAttempts::new(phase, now);
            }
            if attempts.due <= now {
                due.push((attempts.failures, table));
            }
        }
        due.sort_unstable();
        let tables: Vec<TableId> =
            due.into_iter().take(MAX_BEGUN).map(|(_, table)| table).collect();
        for table in &tables {
            if let Some(attempts) = self.tables.get_mut(table) {
                attempts.in_progress = true;
                attempts.before = attempts.completed.len();
            }
        }
        tables
    }

    /// Returns whether a region has completed its part of a phase.
    pub(super) fn is_completed(&self, table: TableId, phase: TablePhase, region: RegionId) -> bool {
        self.tables
            .get(&table)
            .is_some_and(|attempts| attempts.phase == phase && attempts.completed.contains(&region))
    }

    /// Records that a region has completed its part of a phase.
    pub(super) fn record_completed(&mut self, table: TableId, phase: TablePhase, region: RegionId) {
        if let Some(attempts) = self.tables.get_mut(&table)
            && attempts.phase == phase
        {
            attempts.completed.insert(region);
        }
    }

    /// Ends an attempt. `failed`: the reason of its failure; `bits`: random bits for the backoff.
    pub(super) fn end(
        &mut self,
        table: TableId,
        failed: Option<Reason>,
        now: Instant,
        bits: u64,
    ) -> Option<TableNotice> {
        let attempts = self.tables.get_mut(&table)?;
        attempts.in_progress = false;
        let before = std::mem::replace(&mut attempts.reason, failed);
        if failed.is_none() {
            // Another phase is due at once. The same one had nothing to do yet.
            attempts.failures = 0;
            attempts.due = now + BACKOFF.first;
            return before.map(|_| TableNotice::Recovered);
        }
        let has_progress = attempts.completed.len() > attempts.before;
        attempts.failures = if has_progress { 1 } else { attempts.failures.saturating_add(1) };
        attempts.due = now + BACKOFF.wait(attempts.failures, None, bits);
        (before != failed).then_some(TableNotice::Failing)
    }
}

impl PhaseAttempts {
    fn new(phase: TablePhase, now: Instant) -> Self {
        Self {
            phase,
            in_progress: false,
            failures: 0,
            reason: None,
            due: now,
            completed: BTreeSet::new(),
            before: 0,
        }
    }
}

#[cfg(test)]
mod tests;
