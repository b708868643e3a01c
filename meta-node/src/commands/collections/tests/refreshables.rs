//! Holds, policies, capabilities and exports of refreshable tables.

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
    let error = run(&mut state, start(14)).unwrap_err();
    assert!(matches!(error, CommandError::TableIdNotFound(_)), "{error}");
}
