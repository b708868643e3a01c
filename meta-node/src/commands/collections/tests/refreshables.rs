//! Holds, policies, capabilities and exports of refreshable tables.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use tidewater_proto::v1::{LearnedSince, TableSince};

use super::super::testing::{alter, create_export, create_export_by, policy};
use super::*;
use crate::commands::procedures::refresh::testing::{
    T, finish, loaded, merged, refresh, start, with_refreshable, with_refreshable_at,
};
use crate::commands::procedures::testing::state_of;

/// A state with the refreshable table "r", which was published at epoch 500, besides the tables "t" and "u". The oldest readable
/// epochs of "r" and "t" are their own.
fn published() -> MetaState {
    let mut state = with_refreshable(0);
    refresh(&mut state, 10, 1_000, 500);
    for (number, name) in [(11, "t"), (12, "r")] {
        alter(&mut state, number, name);
    }
    state
}

/// A change whose regions have reported the epoch of the leader, or the last publication before it.
fn change(state: &MetaState, upper: u64, change: Change) -> Kind {
    let learned = |table: &std::sync::Arc<crate::catalog::Table>| LearnedSince {
        table: Some(TableSince { table_id: table.id.get(), since: upper }),
        changes: table.changes,
    };
    Kind::ChangeCollections(v1::ChangeCollections {
        upper,
        history_ms: 0,
        learned: state.tables().map(learned).collect(),
        change: Some(change),
    })
}

fn apply(state: &mut MetaState, upper: u64, of: Change) {
    let command = change(state, upper, of);
    run(state, command).unwrap();
}

fn complete_through(state: &MetaState) -> u64 {
    state.table(T).unwrap().complete_through().get()
}

#[test]
fn since_of_refreshable_table_follows_its_publications() {
    let mut state = published();
    apply(&mut state, 600, acquire(1, "h", &["r"], 0));
    assert_eq!((hold(&state, "h").epoch, since_of(&state, 3, 900)), (Epoch(500), 500));
    assert_eq!(complete_through(&state), 500, "it is read as of the publication");
    refresh(&mut state, 13, 1_000, 700);
    assert_eq!(since_of(&state, 3, 900), 500, "it is held");
    apply(&mut state, 900, release("h"));
    // The policy keeps no history, and the last publication stays readable.
    assert_eq!(since_of(&state, 3, 900), 700);
    let lag = v1::read_policy::Policy::ValidFrom(650);
    apply(&mut state, 900, policy("r", Some(lag)));
    assert_eq!(since_of(&state, 3, 900), 700, "a weaker policy brings nothing back");
}

#[test]
fn refreshable_table_held_after_its_publication_is_complete_there() {
    let mut state = published();
    // The common epoch is that of table t.
    apply(&mut state, 600, acquire(1, "h", &["r", "t"], 0));
    assert_eq!((hold(&state, "h").epoch, complete_through(&state)), (Epoch(600), 600));
    assert_eq!((since_of(&state, 3, 900), since_of(&state, 1, 900)), (500, 600));
    let state_before = MetaState::from_rows(state.rows().unwrap()).unwrap();
    assert_eq!(state_before, state, "the complete epoch is stored");
    // A leader has chosen an epoch before the hold was acquired.
    run(&mut state, start(13)).unwrap();
    complete(&mut state, 13);
    finish(&mut state, 13, &loaded(1_000)).unwrap();
    complete(&mut state, 13);
    for early in [550, 600] {
        let error = finish(&mut state, 13, &merged(early)).unwrap_err();
        assert_eq!(error.reason(), Reason::TableBusy, "{error}");
    }
    finish(&mut state, 13, &merged(601)).unwrap();
    complete(&mut state, 13);
    assert_eq!(complete_through(&state), 601);
    // It is read as of 500 at epoch 600.
    assert_eq!(since_of(&state, 3, 900), 600);
}

#[test]
fn unchanged_table_keeps_its_publication_below_a_complete_epoch() {
    let mut state = published();
    apply(&mut state, 600, acquire(1, "h", &["r", "t"], 0));
    refresh(&mut state, 13, 1_000, 500);
    assert_eq!((state.table(T).unwrap().published, complete_through(&state)), (Epoch(500), 600));
}

#[test]
fn moved_hold_completes_a_refreshable_table() {
    let mut state = published();
    apply(&mut state, 600, acquire(1, "h", &["r"], 0));
    let to = v1::DowngradeReadHoldRequest { name: "h".into(), epoch: 650 };
    apply(&mut state, 700, Change::Downgrade(to));
    assert_eq!((hold(&state, "h").epoch, complete_through(&state)), (Epoch(650), 650));
    let like = v1::AcquireReadHoldRequest {
        request_id: directory(2),
        name: "i".into(),
        like: "h".into(),
        epoch: 680,
        ..v1::AcquireReadHoldRequest::default()
    };
    apply(&mut state, 700, Change::Acquire(like));
    assert_eq!(complete_through(&state), 680);
}

#[test]
fn refreshable_table_is_held_from_its_level_on() {
    let mut state = with_refreshable_at(FeatureLevel::HELD_REFRESHES.previous(), 0);
    for of in [
        acquire(1, "h", &["r"], 0),
        policy("r", None),
        capabilities("r", &[(600, 1)]),
        create_export(20, "x", "r", 0),
    ] {
        let command = change(&state, 600, of);
        let error = run(&mut state, command).unwrap_err();
        assert!(matches!(error, CommandError::FeatureLevel { .. }), "{error}");
    }
}

#[test]
fn export_of_refreshable_table_begins_at_its_publication() {
    let mut state = published();
    let early = change(&state, 600, create_export(20, "x", "r", 499));
    let (reason, text) = refusal(&mut state, early);
    assert_eq!(reason, Reason::InvalidArgument);
    let expected =
        "an export of a refreshable table begins at its published epoch, 500: leave the epoch out";
    assert_eq!(text, expected);
    apply(&mut state, 600, create_export(20, "x", "r", 0));
    let export = state.exports().get("x").unwrap();
    assert_eq!(export.as_of, Epoch(500));
    assert_eq!(complete_through(&state), 500);
    // A token of an earlier publication keeps nothing that the export needs.
    apply(&mut state, 600, acquire(1, "export-token:a", &["r"], 0));
    refresh(&mut state, 13, 1_000, 700);
    apply(&mut state, 800, create_export_by("export-token:a", 21, "y", "r"));
    assert_eq!(state.exports().get("y").unwrap().as_of, Epoch(700));
    assert_eq!(since_of(&state, 3, 900), 500, "export x reads the changes after it");
}

#[test]
fn dropped_refreshable_table_is_held_and_not_refreshed() {
    let mut state = published();
    apply(&mut state, 600, acquire(1, "h", &["r"], 0));
    run(&mut state, drop_named(13, "r")).unwrap();
    while of(&state, 13).is_running() {
        complete(&mut state, 13);
    }
    assert_eq!(state_of(&state, 13).0, v1::ProcedureState::Completed);
    assert!(state.table(T).unwrap().dropped.is_some());
    assert_eq!(since_of(&state, 3, 900), 500);
    assert_eq!(state.refreshes().count(), 0);
    let error = run(&mut state, start(14)).unwrap_err();
    assert!(matches!(error, CommandError::TableIdNotFound(_)), "{error}");
}

/// Step of a history of publications and holds.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The leader sends a barrier, this number of epochs later.
    Barrier(u64),
    /// The leader chooses an epoch for the publication of the refresh that has merged.
    Choose,
    /// The command of the publication is applied.
    Publish,
    /// A hold is acquired, or moved, this number of epochs before the last barrier.
    Hold(u64),
    Move(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..40_u64).prop_map(Step::Barrier),
        Just(Step::Choose),
        Just(Step::Publish),
        (0..60_u64).prop_map(Step::Hold),
        (0..60_u64).prop_map(Step::Move),
    ]
}

/// Publications of a table, and what readers have seen of it.
struct Publications {
    state: MetaState,
    last: u64,
    published: Vec<u64>,
    chosen: Option<u64>,
    refreshes: u64,
    holds: u64,
    /// Publications that reads as of each epoch have had.
    seen: BTreeMap<u64, u64>,
}

impl Publications {
    fn new() -> Self {
        let mut of = Self {
            state: published(),
            last: 500,
            published: vec![500],
            chosen: None,
            refreshes: 100,
            holds: 0,
            seen: BTreeMap::new(),
        };
        of.merge();
        of
    }

    /// Brings the next refresh before its publication.
    fn merge(&mut self) {
        self.refreshes += 1;
        run(&mut self.state, start(self.refreshes)).unwrap();
        complete(&mut self.state, self.refreshes);
        finish(&mut self.state, self.refreshes, &loaded(1_000)).unwrap();
        complete(&mut self.state, self.refreshes);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Barrier(later) => self.last += later,
            // Later than the epoch of each barrier so far.
            Step::Choose => {
                self.last += 1;
                self.chosen = Some(self.last);
            }
            Step::Publish => {
                let Some(epoch) = self.chosen.take() else { return };
                if finish(&mut self.state, self.refreshes, &merged(epoch)).is_ok() {
                    complete(&mut self.state, self.refreshes);
                    self.published.push(epoch);
                    self.merge();
                }
            }
            Step::Hold(before) => {
                self.holds += 1;
                let name = format!("h{}", self.holds);
                let epoch = self.last.saturating_sub(before);
                let of = acquire(1_000 + self.holds, &name, &["r", "t"], epoch);
                let command = change(&self.state, self.last, of);
                // Below since, perhaps.
                drop(run(&mut self.state, command));
            }
            Step::Move(before) => {
                let Some(name) = self.state.holds().iter().next().map(|hold| hold.name.clone())
                else {
                    return;
                };
                let epoch = self.last.saturating_sub(before);
                let to = v1::DowngradeReadHoldRequest { name, epoch };
                let command = change(&self.state, self.last, Change::Downgrade(to));
                drop(run(&mut self.state, command));
            }
        }
    }

    /// Reads as of all epochs that the table is complete at.
    fn check(&mut self) {
        for epoch in 500..=complete_through(&self.state) {
            let found = self.published.iter().copied().filter(|of| *of <= epoch).max().unwrap();
            let before = *self.seen.entry(epoch).or_insert(found);
            assert_eq!(found, before, "a read as of {epoch} has had another publication");
        }
        for hold in self.state.holds().iter() {
            assert!(hold.epoch <= self.state.table(T).unwrap().complete_through());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn reads_as_of_an_epoch_have_one_publication(steps in vec(any_step(), 1..60)) {
        let mut publications = Publications::new();
        for step in steps {
            publications.take(step);
            publications.check();
        }
    }
}
