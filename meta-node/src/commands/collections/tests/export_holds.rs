//! Holds of exports, which only exports change, and their level.

use tidewater_common::feature_level::FeatureLevel;

use super::*;
use crate::commands::collections::testing::{
    alter, begin_step, create_export, drop_export, with_export,
};
use crate::commands::testing::{bootstrapped, raise_to, raise_to_highest, table, with_groups};

fn downgrade(name: &str, epoch: u64) -> Change {
    Change::Downgrade(v1::DowngradeReadHoldRequest { name: name.to_owned(), epoch })
}

/// A state at a level, with the active table "t", whose oldest readable epoch is its own and not known yet.
fn with_table_at(level: FeatureLevel) -> MetaState {
    let mut state = with_groups(1, 1);
    raise_to(&mut state, level);
    run(&mut state, begin(v1::ProcedureKind::Create, 1, &table(1, "t"))).unwrap();
    complete(&mut state, 1);
    alter(&mut state, 3, "t");
    state
}

#[test]
fn callers_do_not_change_holds_of_exports() {
    let mut state = with_export();
    run(&mut state, change(30, acquire(1, "h", &["t"], 0))).unwrap();
    let before = state.clone();
    let of_export = "hold \"export:x\" is of export \"x\", which moves and releases it: `tidewater export drop \"x\"` ends \
                     both";
    let both = vec!["h".to_owned(), "export:x".to_owned()];
    let reserved = "names that begin with \"export:\" are of exports";
    for (of, text) in [
        (release("export:x"), of_export),
        (Change::Release(v1::ReleaseReadHoldsRequest { names: both }), of_export),
        (downgrade("export:x", 30), of_export),
        (acquire(2, "export:y", &["t"], 0), reserved),
        (acquire(20, "export:x", &["t"], 0), reserved),
    ] {
        let refused = refusal(&mut state, change(30, of));
        assert_eq!(refused, (Reason::InvalidArgument, text.to_owned()));
    }
    assert_eq!(state, before);
    // Unknown names are no error, as of other holds.
    run(&mut state, change(30, release("export:y"))).unwrap();
    assert_eq!(refused(&mut state, change(30, downgrade("export:y", 30))), Reason::HoldNotFound);
}

#[test]
fn holds_of_exports_do_not_expire() {
    let mut state = with_export();
    pass(&mut state, 120);
    let before = state.clone();
    let names = || vec!["export:x".to_owned()];
    for of in [
        Change::Renew(v1::RenewReadHoldsRequest { names: names() }),
        Change::Expire(v1::ReleaseReadHoldsRequest { names: names() }),
    ] {
        run(&mut state, change(0, of)).unwrap();
        assert_eq!(state, before);
    }
    assert_eq!(state.holds().ended_at(u64::MAX - 1).count(), 0);
}

#[test]
fn hold_like_that_of_an_export_expires() {
    let mut state = with_export();
    let like = v1::AcquireReadHoldRequest {
        request_id: directory(1),
        name: "h".to_owned(),
        like: "export:x".to_owned(),
        ..v1::AcquireReadHoldRequest::default()
    };
    run(&mut state, change(30, Change::Acquire(like))).unwrap();
    run(&mut state, change(0, drop_export("x"))).unwrap();
    assert_eq!(since_of(&state, 1, 40), 20);
    assert_eq!(hold(&state, "h").lease_ms, 60_000);
}

#[test]
fn commands_of_exports_need_their_level() {
    let needed = FeatureLevel::EXPORTS;
    let mut state = bootstrapped();
    raise_to(&mut state, needed.previous());
    for of in [create_export(20, "x", "t", 0), begin_step(20, 1, 20), drop_export("x")] {
        let expected = CommandError::FeatureLevel { needed, level: needed.previous() };
        assert_eq!(run(&mut state, change(20, of)), Err(expected));
    }
    // Other changes of collections do not.
    run(&mut state, change(20, release("h"))).unwrap();
}

#[test]
fn holds_of_callers_with_reserved_names_are_released() {
    let mut state = with_table_at(FeatureLevel::EXPORTS.previous());
    // Releases without exports accept the name.
    run(&mut state, change(20, acquire(1, "export:x", &["t"], 0))).unwrap();
    raise_to_highest(&mut state);
    let exists = refusal(&mut state, change(20, create_export(20, "x", "t", 0)));
    let text = "hold \"export:x\" already exists: release it, or use another name";
    assert_eq!(exists, (Reason::HoldExists, text.to_owned()));
    run(&mut state, change(30, downgrade("export:x", 25))).unwrap();
    run(&mut state, change(30, release("export:x"))).unwrap();
    run(&mut state, change(30, create_export(20, "x", "t", 0))).unwrap();
    assert_eq!(hold(&state, "export:x").request, id(20));
}
