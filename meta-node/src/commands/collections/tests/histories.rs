//! K1 in random histories: since does not go back from one barrier to the next, and is never above the epoch of a barrier, a
//! live hold or a capability. Leaders change, and with them the history that is kept; changes are in progress while barriers are sent.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidewater_common::ids::{Epoch, TableId, Term};
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::read_policy::Policy;
use tidewater_proto::v1::{self, change_collections::Change};

use crate::catalog::MetaState;
use crate::commands::collections::testing::{
    acquire, capabilities, change, policy, release, with_tables,
};
use crate::commands::testing::{pass, run};
use crate::leader::barriers::{ChangeInProgress, SentEpochs};

/// Begin of the epochs of the histories.
const ORIGIN_MS: u64 = 1_800_000_000_000;
const TABLES: [&str; 2] = ["t", "u"];
const HOLDS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    /// Time passes, and a barrier is sent.
    Barrier { ms: u64 },
    /// A leader begins a change, which is applied later.
    Begin(Change),
    /// The oldest change in progress is applied, or was lost.
    End { is_applied: bool },
    /// Another node leads, with another history. Changes in progress are applied before its term, or lost.
    NewLeader { history_ms: u64, is_applied: bool },
}

fn any_step() -> impl Strategy<Value = Step> {
    let table = prop::sample::select(TABLES.to_vec());
    let name = prop::sample::select(HOLDS.to_vec());
    let back = || 0u64..8_000;
    let any_policy = prop_oneof![
        Just(None),
        Just(Some(Policy::NoPolicy(true))),
        (0u64..5_000, 0u64..2_000).prop_map(|(lag_ms, granularity_ms)| {
            Some(Policy::LagWriteFrontier(v1::LagWriteFrontier { lag_ms, granularity_ms }))
        }),
        back().prop_map(|ms| Some(Policy::ValidFrom(Epoch::at_ms(ORIGIN_MS + ms).get()))),
    ];
    let epoch = prop_oneof![Just(0), back().prop_map(|ms| Epoch::at_ms(ORIGIN_MS + ms).get())];
    let any_change = prop_oneof![
        4 => (1u64..9, name.clone(), prop::sample::subsequence(TABLES.to_vec(), 1..3), epoch)
            .prop_map(|(number, name, tables, epoch)| acquire(number, name, &tables, epoch)),
        2 => name.clone().prop_map(release),
        1 => (name, back()).prop_map(|(name, ms)| {
            let (name, epoch) = (name.to_owned(), Epoch::at_ms(ORIGIN_MS + ms).get());
            Change::Downgrade(v1::DowngradeReadHoldRequest { name, epoch })
        }),
        2 => (table.clone(), any_policy).prop_map(|(table, of)| policy(table, of)),
        2 => (table, back(), -2i64..3).prop_map(|(table, ms, difference)| {
            capabilities(table, &[(Epoch::at_ms(ORIGIN_MS + ms).get(), difference)])
        }),
        1 => Just(Change::Expire(v1::ReleaseReadHoldsRequest {
            names: HOLDS.iter().map(|name| (*name).to_owned()).collect(),
        })),
    ];
    prop_oneof![
        6 => (1u64..1_500).prop_map(|ms| Step::Barrier { ms }),
        5 => any_change.prop_map(Step::Begin),
        5 => any::<bool>().prop_map(|lost| Step::End { is_applied: !lost }),
        1 => (0u64..4_000, any::<bool>())
            .prop_map(|(history_ms, is_applied)| Step::NewLeader { history_ms, is_applied }),
    ]
}

/// A cluster: its state, its leader, and what barriers have named.
struct History {
    state: MetaState,
    term: u64,
    history_ms: u64,
    now_ms: u64,
    sent: SentEpochs,
    in_progress: Vec<(ChangeInProgress, Change)>,
    /// Greatest oldest readable epoch that any barrier has named for a table.
    named: BTreeMap<TableId, Epoch>,
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
            in_progress: Vec::new(),
            named: BTreeMap::new(),
            acquired: 0,
        };
        history.barrier(1);
        history
    }

    fn barrier(&mut self, ms: u64) {
        self.now_ms += ms;
        let epoch = Epoch::at_ms(self.now_ms);
        let at = self.sent.send(Term(self.term), epoch, Epoch(0));
        for collection in self.state.collections() {
            let Some(since) = self.state.since_at(collection.table, at) else { continue };
            assert!(since <= epoch, "since is above upper");
            let named = self.named.entry(collection.table).or_default();
            let now = self.state.since_at(collection.table, epoch).unwrap_or_default();
            assert!(now >= *named, "since goes back from {named} to {now}");
            // A barrier may name an earlier one than the last, while a change is in progress: regions keep the greater.
            *named = since.max(*named);
        }
        self.check();
    }

    fn end(&mut self, is_applied: bool) {
        if self.in_progress.is_empty() {
            return;
        }
        let (guard, of) = self.in_progress.remove(0);
        if is_applied {
            let Kind::ChangeCollections(command) = change(guard.epoch().get(), of) else { return };
            let command = v1::ChangeCollections { history_ms: self.history_ms, ..command };
            let holds = self.state.holds().count();
            // Many are refused.
            drop(run(&mut self.state, Kind::ChangeCollections(command)));
            self.acquired += self.state.holds().count().saturating_sub(holds);
        }
        drop(guard);
        self.check();
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Barrier { ms } => {
                pass(&mut self.state, 1);
                self.barrier(ms);
            }
            Step::Begin(of) => {
                let guard = self.sent.begin_change(Term(self.term)).unwrap();
                self.in_progress.push((guard, of));
            }
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
        }
    }

    /// No hold and no capability is below what barriers have named for its table.
    fn check(&self) {
        for hold in self.state.holds().iter() {
            for table in &hold.tables {
                let named = self.named.get(table).copied().unwrap_or_default();
                assert!(named <= hold.epoch, "hold {} is below {named}", hold.name);
            }
        }
        for collection in self.state.collections() {
            let named = self.named.get(&collection.table).copied().unwrap_or_default();
            if let Some(least) = collection.capabilities.least() {
                assert!(named <= least, "a capability at {least} is below {named}");
            }
        }
    }
}

/// Runs a history; returns the number of holds that it has acquired.
fn run_history(steps: Vec<Step>) -> usize {
    let mut history = History::new();
    steps.into_iter().for_each(|step| history.take(step));
    history.acquired
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
    assert_eq!(run_history(steps), 2);
}
