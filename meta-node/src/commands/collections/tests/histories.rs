//! K1 in random histories: since does not go back from one barrier to the next, and is never above the epoch of a barrier, a
//! live hold, also of an export, or a capability. Leaders change, and with them the history that is kept; changes are in
//! progress while barriers are sent and tables are truncated. A truncated table can be read from any epoch on that was sent by
//! the end of its truncation.

mod any_step;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tidewater_common::ids::{Epoch, TableId, Term};
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{self, change_collections::Change};

use self::any_step::{Step, any_step};
use crate::catalog::{MetaState, Table};
use crate::commands::collections::needs_epoch;
use crate::commands::collections::testing::{
    acquire, begin_step, complete_step, create_export, policy, release, with_tables,
};
use crate::commands::procedures::testing::{complete, truncate};
use crate::commands::testing::{pass, run};
use crate::leader::barriers::{ChangeInProgress, SentEpochs};
use crate::leader::learned_sinces::unknown_since;

/// Begin of the epochs of the histories.
const ORIGIN_MS: u64 = 1_800_000_000_000;
const TABLES: [&str; 2] = ["t", "u"];
const HOLDS: [&str; 4] = ["a", "b", "c", TOKEN];
const TOKEN: &str = "export-token:a";
const EXPORTS: [&str; 2] = ["x", "y"];
/// Number of the first truncation.
const FIRST_TRUNCATION: u64 = 100;

/// A cluster: its state, its leader, and what barriers have named.
struct History {
    state: MetaState,
    term: u64,
    history_ms: u64,
    now_ms: u64,
    sent: SentEpochs,
    /// Epoch of the last barrier.
    last: Epoch,
    /// Those that are decided as of the last barrier hold back later ones.
    in_progress: Vec<(Option<ChangeInProgress>, v1::ChangeCollections)>,
    /// Tables that are being truncated, with the numbers of their truncations.
    truncated: Vec<(u64, TableId)>,
    /// Number of the next truncation.
    next_truncation: u64,
    /// Greatest oldest readable epoch that any barrier has named for a table.
    named: BTreeMap<TableId, Epoch>,
    /// Oldest epoch that the regions of a table can be read at if no barrier has reached them.
    reported: BTreeMap<TableId, Epoch>,
    /// Holds that were acquired.
    acquired: usize,
}

impl History {
    fn new() -> Self {
        let mut history = Self {
            state: with_tables(),
            term: 1,
            history_ms: 0,
            now_ms: ORIGIN_MS,
            sent: SentEpochs::default(),
            last: Epoch(0),
            in_progress: Vec::new(),
            truncated: Vec::new(),
            next_truncation: FIRST_TRUNCATION,
            named: BTreeMap::new(),
            reported: BTreeMap::new(),
            acquired: 0,
        };
        history.barrier(1);
        history
    }

    fn barrier(&mut self, ms: u64) {
        self.now_ms += ms;
        let epoch = Epoch::at_ms(self.now_ms);
        self.last = epoch;
        let at = self.sent.send(Term(self.term), epoch, Epoch(0));
        for collection in self.state.collections() {
            let Some(since) = self.state.since_at(collection.table, at) else { continue };
            assert!(since <= epoch, "since is above upper");
            let reported = self.reported.get(&collection.table).copied().unwrap_or_default();
            let named = self.named.entry(collection.table).or_default();
            let now = self.state.since_at(collection.table, epoch).unwrap_or_default();
            assert!(now >= *named, "since goes back from {named} to {now}");
            assert!(now >= reported, "since {now} is below that of the regions, {reported}");
            // A barrier may name an earlier one than the last, while a change is in progress: regions keep the greater.
            *named = since.max(*named);
        }
        self.check();
    }

    /// Begins a change. The regions of tables without a known epoch are asked before.
    fn begin(&mut self, of: Change) {
        let tables = TABLES.iter().filter_map(|name| self.state.table_named(name));
        let asked = tables.filter(|table| unknown_since(&self.state, table.id).is_some());
        let answer = |table: &Arc<Table>| {
            let since = self.reported.get(&table.id).copied().unwrap_or_default().get();
            let named = v1::TableSince { table_id: table.id.get(), since };
            v1::LearnedSince { table: Some(named), changes: table.changes }
        };
        let learned = asked.map(answer).collect();
        let guard = needs_epoch(&of).then(|| self.sent.begin_change(Term(self.term)).unwrap());
        let command = v1::ChangeCollections {
            upper: guard.as_ref().map_or(0, |guard| guard.epoch().get()),
            history_ms: self.history_ms,
            learned,
            change: Some(of),
        };
        self.in_progress.push((guard, command));
    }

    fn end(&mut self, is_applied: bool) {
        if self.in_progress.is_empty() {
            return;
        }
        let (guard, command) = self.in_progress.remove(0);
        if is_applied {
            let holds = self.state.holds().count();
            // Many are refused.
            drop(run(&mut self.state, Kind::ChangeCollections(command)));
            self.acquired += self.state.holds().count().saturating_sub(holds);
        }
        drop(guard);
        self.check();
    }

    fn begin_truncation(&mut self, name: &str) {
        let number = self.next_truncation;
        self.next_truncation += 1;
        let table = self.state.table_named(name).unwrap().id;
        if run(&mut self.state, truncate(number, name)).is_ok() {
            self.truncated.push((number, table));
        }
    }

    fn complete_truncation(&mut self, ms: u64) {
        if self.truncated.is_empty() {
            return;
        }
        let (number, table) = self.truncated.remove(0);
        complete(&mut self.state, number);
        let since = Epoch::at_ms(ORIGIN_MS + ms).min(self.last);
        let reported = self.reported.entry(table).or_default();
        *reported = since.max(*reported);
        self.check();
    }

    /// Begins to record a step of an export, as of the epoch with which it has begun, or of the last barrier.
    fn record_step(&mut self, name: &str, record: impl Fn(u64, u64, u64) -> Change) {
        let Some(export) = self.state.exports().get(name) else { return };
        let next = if export.frontier.is_none() { export.as_of } else { self.last };
        let epoch = export.step_as_of.unwrap_or(next);
        let number = u64::try_from(export.id.as_u128()).unwrap();
        let record = record(number, export.steps + 1, epoch.get());
        self.begin(record);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Barrier { ms } => {
                pass(&mut self.state, 1);
                self.barrier(ms);
            }
            Step::Begin(of) => self.begin(of),
            Step::End { is_applied } => self.end(is_applied),
            Step::NewLeader { history_ms, is_applied } => {
                while !self.in_progress.is_empty() {
                    self.end(is_applied);
                }
                self.term += 1;
                self.history_ms = history_ms;
                self.sent = SentEpochs::default();
                self.barrier(1);
            }
            Step::BeginTruncation(table) => self.begin_truncation(table),
            Step::CompleteTruncation { ms } => self.complete_truncation(ms),
            Step::BeginExport(name) => self.record_step(name, begin_step),
            Step::CompleteExport(name) => self.record_step(name, complete_step),
        }
    }

    /// Oldest epoch that the regions of a table can be read at when all barriers have reached them.
    fn oldest(&self, table: TableId) -> Epoch {
        let of = |epochs: &BTreeMap<TableId, Epoch>| epochs.get(&table).copied();
        of(&self.named).max(of(&self.reported)).unwrap_or_default()
    }

    /// No hold and no capability is below what the regions of its table can be read at.
    fn check(&self) {
        for hold in self.state.holds().iter() {
            for table in &hold.tables {
                let oldest = self.oldest(*table);
                assert!(oldest <= hold.epoch, "hold {} is below {oldest}", hold.name);
            }
        }
        for collection in self.state.collections() {
            let oldest = self.oldest(collection.table);
            if let Some(least) = collection.capabilities.least() {
                assert!(oldest <= least, "a capability at {least} is below {oldest}");
            }
        }
    }
}

/// Runs a history from its begin.
fn run_history(steps: Vec<Step>) -> History {
    let mut history = History::new();
    steps.into_iter().for_each(|step| history.take(step));
    history
}

proptest! {
    #[test]
    fn barriers_never_pass_a_live_hold(steps in prop::collection::vec(any_step(), 1..80)) {
        run_history(steps);
    }
}

#[test]
fn change_in_progress_holds_back_barriers() {
    let steps = vec![
        Step::Begin(acquire(1, "a", &["t"], 0)),
        Step::End { is_applied: true },
        Step::Begin(release("a")),
        Step::End { is_applied: true },
        Step::Barrier { ms: 1_000 },
        // The epoch of this hold is that of the barrier before. Without the guard, the next barrier would name its own.
        Step::Begin(acquire(2, "b", &["t"], 0)),
        Step::Barrier { ms: 1_000 },
        Step::End { is_applied: true },
        Step::Barrier { ms: 1_000 },
    ];
    assert_eq!(run_history(steps).acquired, 2);
}

#[test]
fn hold_after_a_truncation_is_not_below_earlier_barriers() {
    let steps = vec![
        Step::Begin(policy("t", None)),
        Step::End { is_applied: true },
        Step::Barrier { ms: 1_000 },
        // Begun before the truncation: the answers of the regions are void.
        Step::Begin(acquire(1, "a", &["t"], 0)),
        Step::BeginTruncation("t"),
        Step::Barrier { ms: 1_000 },
        Step::End { is_applied: true },
        Step::Begin(acquire(2, "b", &["t"], 0)),
        Step::CompleteTruncation { ms: 500 },
        Step::End { is_applied: true },
        // The regions report less than the first barrier has named.
        Step::Begin(acquire(3, "c", &["t"], 0)),
        Step::Barrier { ms: 1_000 },
        Step::End { is_applied: true },
        Step::Barrier { ms: 1_000 },
    ];
    assert_eq!(run_history(steps).acquired, 1);
}

#[test]
fn completed_steps_of_an_export_release_earlier_epochs() {
    let applied = || Step::End { is_applied: true };
    let steps = vec![
        Step::Begin(create_export(50, "x", "t", 0)),
        applied(),
        Step::Barrier { ms: 1_000 },
        Step::BeginExport("x"),
        applied(),
        Step::CompleteExport("x"),
        applied(),
        Step::Barrier { ms: 1_000 },
        Step::BeginExport("x"),
        applied(),
        // Not part of the step.
        Step::Barrier { ms: 1_000 },
        Step::CompleteExport("x"),
        Step::Barrier { ms: 1_000 },
        applied(),
        Step::Barrier { ms: 1_000 },
    ];
    let history = run_history(steps);
    let export = history.state.exports().get("x").unwrap();
    assert_eq!((export.steps, export.frontier), (2, Some(Epoch::at_ms(ORIGIN_MS + 2_001))));
    assert_eq!(history.named.get(&export.table).copied(), export.frontier);
}
