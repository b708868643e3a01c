//! K3 in random histories of creations, drops, holds, exports and capabilities, with leaders that end while they drop tables:
//! regions with rows that are held are never removed, no region is removed twice, and in the end all regions are removed that
//! no name, hold, export or capability keeps. K5: commands of a leader whose term is over change nothing.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tidewater_common::ids::{RegionId, Term};
use tidewater_proto::v1::read_policy::Policy;
use tidewater_proto::v1::{ProcedureKind, TableState};

use super::*;
use crate::catalog::Procedure;
use crate::commands::apply;
use crate::commands::collections::testing::{create_export, drop_export, policy};
use crate::commands::procedures::kind::RegionCall;
use crate::commands::procedures::kind_of;
use crate::commands::procedures::testing::drop_by_id;
use crate::commands::testing::{command, table};
use crate::leader::empty_collections::due;

const TABLES: [&str; 2] = ["t", "u"];
const HOLDS: [&str; 3] = ["a", "b", "c"];
/// Number of the first request.
const FIRST_REQUEST: u64 = 1_000;

#[derive(Debug, Clone)]
enum Step {
    /// A table is created, and its oldest readable epoch is its own.
    Create(&'static str),
    /// A user drops a table.
    Drop(&'static str),
    /// A change of holds, exports, policies or capabilities.
    Change(Change),
    /// A hold is acquired that is like another one.
    Clone(&'static str, &'static str),
    /// The leader looks for tables to drop, and begins these drops, late: other steps may come in between.
    Look,
    /// The oldest drop that the leader has decided on begins, or is lost with its term.
    Begin { is_lost: bool },
    /// A call to a region of a running procedure is carried out, or carried out again.
    Call(prop::sample::Index),
    /// A running procedure of which all calls were carried out completes its step.
    Complete(prop::sample::Index),
    /// Time passes, and leases end.
    Expire(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let table = || prop::sample::select(TABLES.to_vec());
    let hold = || prop::sample::select(HOLDS.to_vec());
    let index = any::<prop::sample::Index>;
    let any_change = prop_oneof![
        4 => (1u64..900, hold(), prop::sample::subsequence(TABLES.to_vec(), 1..3))
            .prop_map(|(number, name, tables)| acquire(number, name, &tables, 0)),
        3 => hold().prop_map(release),
        1 => table().prop_map(|of| policy(of, Some(Policy::Empty(true)))),
        1 => table().prop_map(|of| policy(of, None)),
        2 => (table(), -1i64..2).prop_map(|(of, count)| capabilities(of, &[(50, count)])),
        1 => (900u64..950, table()).prop_map(|(number, of)| create_export(number, of, of, 0)),
        2 => table().prop_map(drop_export),
    ];
    prop_oneof![
        2 => table().prop_map(Step::Create),
        3 => table().prop_map(Step::Drop),
        8 => any_change.prop_map(Step::Change),
        1 => (hold(), hold()).prop_map(|(name, like)| Step::Clone(name, like)),
        4 => Just(Step::Look),
        4 => any::<bool>().prop_map(|is_lost| Step::Begin { is_lost }),
        6 => index().prop_map(Step::Call),
        4 => index().prop_map(Step::Complete),
        1 => (1u64..90).prop_map(Step::Expire),
    ]
}

/// A cluster: the meta state, what its leader has decided, and the regions of its data nodes.
struct History {
    state: MetaState,
    /// Number of the next request.
    next: u64,
    /// Tables that the leader has decided to drop.
    decided: Vec<TableId>,
    /// Numbers of the running procedures.
    running: Vec<u64>,
    /// Tables of the regions that exist.
    regions: BTreeMap<RegionId, TableId>,
    /// Regions that were removed, each by this procedure.
    removed: BTreeMap<RegionId, u64>,
    /// Calls of the step that were carried out, by procedure.
    called: BTreeMap<u64, BTreeSet<RegionId>>,
}

impl History {
    fn new() -> Self {
        let mut history = Self {
            state: with_tables(),
            next: FIRST_REQUEST,
            decided: Vec::new(),
            running: Vec::new(),
            regions: BTreeMap::new(),
            removed: BTreeMap::new(),
            called: BTreeMap::new(),
        };
        history.find_regions();
        history
    }

    /// Adds the regions of new tables.
    fn find_regions(&mut self) {
        for table in self.state.tables() {
            let regions = self.state.routes_of(table.id).map(|route| (route.route_id, table.id));
            self.regions.extend(regions);
        }
    }

    fn request(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn begin_drop(&mut self, kind: impl Fn(u64) -> Kind) {
        let number = self.request();
        // Many are refused.
        if run(&mut self.state, kind(number)).is_ok() {
            self.running.push(number);
        }
    }

    fn create(&mut self, name: &str) {
        let number = self.request();
        let request = v1::CreateTableRequest { regions: 2, ..table(number, name) };
        if run(&mut self.state, begin(ProcedureKind::Create, number, &request)).is_ok() {
            complete(&mut self.state, number);
            let number = self.request();
            super::super::testing::alter(&mut self.state, number, name);
            self.find_regions();
        }
    }

    /// Command of a change of collections. The regions of all tables have reported epoch 1 since their last change.
    fn command(&self, of: Change) -> Kind {
        let learned = |table: &std::sync::Arc<crate::catalog::Table>| v1::LearnedSince {
            table: Some(v1::TableSince { table_id: table.id.get(), since: 1 }),
            changes: table.changes,
        };
        let learned = self.state.tables().map(learned).collect();
        let command =
            v1::ChangeCollections { upper: 100, history_ms: 0, learned, change: Some(of) };
        Kind::ChangeCollections(command)
    }

    fn change(&mut self, of: Change) {
        let command = self.command(of);
        // Many are refused.
        drop(run(&mut self.state, command));
    }

    fn like(&mut self, name: &str, like: &str) {
        self.change(Change::Acquire(v1::AcquireReadHoldRequest {
            request_id: directory(self.next),
            name: name.to_owned(),
            like: like.to_owned(),
            ..v1::AcquireReadHoldRequest::default()
        }));
        self.next += 1;
    }

    /// Procedure at this position among the running ones.
    fn procedure(&mut self, index: &prop::sample::Index) -> Option<(u64, Procedure)> {
        let state = &self.state;
        self.running.retain(|number| of(state, *number).is_running());
        if self.running.is_empty() {
            return None;
        }
        let number = *index.get(&self.running);
        Some((number, of(&self.state, number).clone()))
    }

    /// Carries out the first call of a step that was not, or the last one again.
    fn call(&mut self, index: &prop::sample::Index) {
        let Some((number, procedure)) = self.procedure(index) else { return };
        let kind = kind_of(procedure.kind).unwrap();
        let regions = kind.regions(&self.state, &procedure);
        let called = self.called.entry(number).or_default();
        let next = regions.iter().find(|at| !called.contains(&at.region)).or(regions.last());
        let Some(at) = next else { return };
        called.insert(at.region);
        match kind.call(&self.state, &procedure, *at).unwrap() {
            RegionCall::Drop(_) => self.remove(at.region, number),
            RegionCall::Alter(_) => assert!(self.regions.contains_key(&at.region)),
            other => panic!("{other:?}"),
        }
    }

    fn remove(&mut self, region: RegionId, number: u64) {
        if let Some(before) = self.removed.insert(region, number) {
            assert_eq!(before, number, "region {region} is removed twice");
            return;
        }
        let table = self.regions.remove(&region).expect("the region exists");
        let hold = self.state.holds().least_of(table);
        assert!(hold.is_none(), "region {region} is removed and held by {hold:?}");
        assert!(self.state.exports().for_table(table).next().is_none());
        let record = self.state.collection(table);
        assert!(record.is_none_or(|of| of.capabilities.least().is_none()));
    }

    fn complete(&mut self, index: &prop::sample::Index) {
        let Some((number, procedure)) = self.procedure(index) else { return };
        let regions = kind_of(procedure.kind).unwrap().regions(&self.state, &procedure);
        let called = self.called.get(&number).cloned().unwrap_or_default();
        if regions.iter().all(|at| called.contains(&at.region)) {
            complete(&mut self.state, number);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Create(name) => self.create(name),
            Step::Drop(name) => self.begin_drop(|number| drop_named(number, name)),
            Step::Change(of) => self.change(of),
            Step::Clone(name, like) => self.like(name, like),
            Step::Look => self.decided.extend(due(&self.state)),
            Step::Begin { is_lost: true } => self.decided.clear(),
            Step::Begin { is_lost: false } => {
                if !self.decided.is_empty() {
                    let table = self.decided.remove(0).get();
                    self.begin_drop(|number| drop_by_id(number, table));
                }
            }
            Step::Call(index) => self.call(&index),
            Step::Complete(index) => self.complete(&index),
            Step::Expire(seconds) => {
                pass(&mut self.state, seconds);
                let names = HOLDS.iter().map(|name| (*name).to_owned()).collect();
                self.change(Change::Expire(v1::ReleaseReadHoldsRequest { names }));
            }
        }
        self.check();
    }

    /// All regions of tables that are named or held exist, and the state can be loaded.
    fn check(&self) {
        for table in self.state.tables().filter(|table| table.state == TableState::Active) {
            for route in self.state.routes_of(table.id) {
                assert!(self.regions.contains_key(&route.route_id), "{route:?} was removed");
            }
        }
        for hold in self.state.holds().iter() {
            for table in &hold.tables {
                assert!(self.state.routes_of(*table).next().is_some(), "{hold:?} has no regions");
            }
        }
        let stored = MetaState::from_rows(self.state.rows().unwrap()).unwrap();
        assert_eq!(stored, self.state);
    }

    /// Ends all holds and exports, and lets the leader work until nothing is left to do.
    fn settle(&mut self) {
        for name in TABLES {
            self.change(drop_export(name));
        }
        HOLDS.iter().for_each(|name| self.change(release(name)));
        self.take(Step::Expire(90));
        for _ in 0..100 {
            self.decided = due(&self.state);
            while !self.decided.is_empty() {
                self.take(Step::Begin { is_lost: false });
            }
            let running = self.running.clone();
            for number in running {
                while of(&self.state, number).is_running() {
                    let procedure = of(&self.state, number).clone();
                    let kind = kind_of(procedure.kind).unwrap();
                    let called = self.called.get(&number).cloned().unwrap_or_default();
                    for at in kind.regions(&self.state, &procedure) {
                        let is_drop = matches!(
                            kind.call(&self.state, &procedure, at),
                            Some(RegionCall::Drop(_))
                        );
                        if is_drop && !called.contains(&at.region) {
                            self.remove(at.region, number);
                        }
                    }
                    complete(&mut self.state, number);
                }
            }
            self.running.clear();
            if due(&self.state).is_empty() {
                break;
            }
        }
        self.check();
        let dropped = self.state.tables().filter(|table| table.dropped.is_some());
        assert_eq!(dropped.count(), 0, "dropped tables are left");
        let in_use: BTreeSet<RegionId> = self.state.routes().map(|route| route.route_id).collect();
        assert_eq!(self.regions.keys().copied().collect::<BTreeSet<_>>(), in_use);
    }
}

/// A command that a leader has decided in the first term.
fn decided(kind: Kind) -> v1::MetaCommand {
    v1::MetaCommand { decided_term: 1, ..command(kind) }
}

proptest! {
    // K5.
    #[test]
    fn deposed_leader_changes_no_collection(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut history = History::new();
        for step in steps {
            let kind = match &step {
                Step::Change(of) => history.command(of.clone()),
                _ => drop_by_id(1, 1),
            };
            let before = history.state.clone();
            let refused = apply(&mut history.state, Term(2), decided(kind));
            let is_stale = matches!(refused, Err(CommandError::StaleTerm { .. }));
            prop_assert!(is_stale && history.state == before);
            history.take(step);
        }
    }

    #[test]
    fn held_regions_stay_and_others_are_removed_once(
        steps in prop::collection::vec(any_step(), 1..100)
    ) {
        let mut history = History::new();
        steps.into_iter().for_each(|step| history.take(step));
        history.settle();
    }
}
