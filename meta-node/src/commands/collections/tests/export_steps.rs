//! Steps of exports: each begins once and is completed once, in order.

use tidewater_proto::v1::record_export::Progress;

use super::*;
use crate::catalog::Export;
use crate::commands::collections::testing::{
    begin_step, complete_step, create_export, drop_export, with_export,
};

fn export(state: &MetaState) -> &Export {
    state.exports().get("x").unwrap()
}

/// A state with the export "x" of table "t" as of epoch 20.
fn with_new_export() -> MetaState {
    let mut state = with_tables();
    run(&mut state, change(20, create_export(20, "x", "t", 0))).unwrap();
    state
}

#[test]
fn completed_steps_move_the_hold() {
    let mut state = with_new_export();
    for (step, epoch) in [(1, 20), (2, 35), (3, 36)] {
        pass(&mut state, 1);
        let before = export(&state).clone();
        run(&mut state, change(0, begin_step(20, step, epoch))).unwrap();
        let begun = Export { step_as_of: Some(Epoch(epoch)), ..before.clone() };
        assert_eq!(*export(&state), begun);
        assert_eq!(hold(&state, "export:x").epoch, before.held_epoch());
        run(&mut state, change(0, complete_step(20, step, epoch))).unwrap();
        let completed = Export {
            steps: step,
            frontier: Some(Epoch(epoch)),
            advanced_ms: state.header().time_ms,
            files: step,
            rows: 10 * step,
            bytes: 100 * step,
            ..before
        };
        assert_eq!(*export(&state), completed);
        assert_eq!(
            (hold(&state, "export:x").epoch, since_of(&state, 1, 90)),
            (Epoch(epoch), epoch)
        );
    }
    assert_eq!(MetaState::from_rows(state.rows().unwrap()).as_ref(), Ok(&state));
}

#[test]
fn completed_step_has_no_effect_without_its_begin() {
    let mut state = with_new_export();
    let before = state.clone();
    for epoch in [20, 21] {
        run(&mut state, change(0, complete_step(20, 1, epoch))).unwrap();
        assert_eq!(state, before);
    }
}

#[test]
fn superseded_records_have_no_effect() {
    let mut state = with_export();
    let before = state.clone();
    for superseded in [
        // The step that is in progress keeps its epoch.
        begin_step(20, 2, 25),
        begin_step(20, 2, 26),
        begin_step(20, 1, 20),
        begin_step(20, 3, 30),
        complete_step(20, 1, 20),
        complete_step(20, 3, 30),
        begin_step(20, 0, 30),
        begin_step(20, u64::MAX, 30),
        // No export has this id.
        begin_step(21, 1, 30),
        complete_step(21, 2, 30),
    ] {
        run(&mut state, change(0, superseded.clone())).unwrap();
        assert_eq!(state, before, "{superseded:?}");
    }
    // A record of an export that was dropped has no effect on the next one with its name.
    run(&mut state, change(0, drop_export("x"))).unwrap();
    run(&mut state, change(30, create_export(21, "x", "t", 0))).unwrap();
    let before = state.clone();
    run(&mut state, change(0, complete_step(20, 2, 25))).unwrap();
    assert_eq!(state, before);
}

#[test]
fn invalid_records_are_refused() {
    let order = "the epoch of a step of an export does not follow that of the last one";
    let other = "a step of an export is completed as of another epoch than it began";
    for (mut state, of, text) in [
        (with_new_export(), begin_step(20, 1, 21), order),
        (with_new_export(), begin_step(20, 1, 19), order),
        (with_export(), complete_step(20, 2, 20), other),
        (with_export(), complete_step(20, 2, 24), other),
        (with_export(), complete_step(20, 2, 26), other),
        (
            with_export(),
            Change::RecordExport(v1::RecordExport {
                export_id: vec![1].into(),
                step: 2,
                progress: Some(Progress::Begun(30)),
            }),
            "the id of an export is not a UUID",
        ),
        (
            with_export(),
            Change::RecordExport(v1::RecordExport {
                export_id: id(20).as_bytes().to_vec().into(),
                step: 2,
                progress: None,
            }),
            "the progress of an export is empty",
        ),
    ] {
        let expected = (Reason::InvalidArgument, format!("the command is malformed: {text}"));
        assert_eq!(refusal(&mut state, change(0, of)), expected);
    }
    // After the first step, a step begins after the last one.
    let mut state = with_new_export();
    for of in [begin_step(20, 1, 20), complete_step(20, 1, 20)] {
        run(&mut state, change(0, of)).unwrap();
    }
    let expected = (Reason::InvalidArgument, format!("the command is malformed: {order}"));
    assert_eq!(refusal(&mut state, change(0, begin_step(20, 2, 20))), expected);
}

#[test]
fn counts_of_an_export_are_saturated() {
    let mut state = with_new_export();
    let step =
        v1::CompletedExportStep { as_of: 20, files: u64::MAX, rows: u64::MAX, bytes: u64::MAX };
    let first = Change::RecordExport(v1::RecordExport {
        export_id: id(20).as_bytes().to_vec().into(),
        step: 1,
        progress: Some(Progress::Completed(step)),
    });
    for of in [begin_step(20, 1, 20), first, begin_step(20, 2, 30), complete_step(20, 2, 30)] {
        run(&mut state, change(0, of)).unwrap();
    }
    let of = export(&state);
    assert_eq!((of.files, of.rows, of.bytes), (u64::MAX, u64::MAX, u64::MAX));
}
