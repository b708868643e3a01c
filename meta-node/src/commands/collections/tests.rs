//! Tests of holds, policies, capabilities and exports, and of their invariant (K1) in random histories.

mod drops;
mod export_holds;
mod export_steps;
mod exports;
mod histories;
mod limits;
mod policies;
mod refreshables;
mod removals;
mod truncations;

use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{Epoch, TableId};
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{self, Reason, change_collections::Change};

use super::testing::{
    acquire, capabilities, change, make_since_own, release, with_tables, with_tables_at,
};
use crate::catalog::{MetaState, ReadHold};
use crate::commands::procedures::testing::{begin, complete, drop_named, id, of, truncate};
use crate::commands::testing::{directory, drop_table, pass, run};
use crate::commands::{CollectionCommandError, CommandError};

fn hold<'a>(state: &'a MetaState, name: &str) -> &'a ReadHold {
    state.holds().get(name).unwrap()
}

fn since_of(state: &MetaState, table: u32, upper: u64) -> u64 {
    state.since_at(TableId(table), Epoch(upper)).unwrap().get()
}

/// Reason for which a change is refused.
fn refused(state: &mut MetaState, kind: Kind) -> Reason {
    refusal(state, kind).0
}

/// Reason for which a change is refused, and its text.
fn refusal(state: &mut MetaState, kind: Kind) -> (Reason, String) {
    let error = run(state, kind).unwrap_err();
    (error.reason(), error.to_string())
}

#[test]
fn hold_keeps_the_earliest_common_epoch() {
    let mut state = with_tables();
    // The policy of the cluster keeps no history, so that the epoch is that of the last barrier.
    run(&mut state, change(20, acquire(1, "one", &["t"], 0))).unwrap();
    assert_eq!(hold(&state, "one").epoch, Epoch(20));
    assert_eq!((since_of(&state, 1, 30), since_of(&state, 1, 90)), (20, 20));
    // Table u has been readable from the later epoch only.
    run(&mut state, change(30, acquire(2, "both", &["u", "t"], 0))).unwrap();
    let both = hold(&state, "both");
    assert_eq!((both.epoch, &both.tables[..]), (Epoch(30), &[TableId(1), TableId(2)][..]));
    let below = run(&mut state, change(40, acquire(3, "late", &["t", "u"], 29)));
    let below = below.unwrap_err();
    assert_eq!(below.reason(), Reason::EpochBelowSince);
    let text = "epoch 29 of table \"u\" can no longer be read: it is below since 30 (upper is 40)";
    assert_eq!(below.to_string(), text);
    run(&mut state, change(40, acquire(3, "late", &["t", "u"], 35))).unwrap();
    for name in ["one", "both"] {
        run(&mut state, change(50, release(name))).unwrap();
    }
    assert_eq!((since_of(&state, 1, 60), since_of(&state, 2, 60)), (35, 35));
    run(&mut state, change(50, release("late"))).unwrap();
    assert_eq!(since_of(&state, 1, 60), 60);
}

#[test]
fn repeated_acquisition_returns_the_same_hold() {
    let mut state = with_tables();
    run(&mut state, change(20, acquire(1, "h", &["t"], 0))).unwrap();
    let before = state.clone();
    // The hold may have moved since it was acquired at an epoch.
    for epoch in [0, 20, 19] {
        run(&mut state, change(30, acquire(1, "h", &["t"], epoch))).unwrap();
        assert_eq!(state, before);
    }
    assert_eq!(refused(&mut state, change(30, acquire(2, "h", &["t"], 0))), Reason::HoldExists);
    let Change::Acquire(first) = acquire(1, "h", &["t"], 0) else { panic!() };
    let of = |tables: &[&str]| v1::AcquireReadHoldRequest {
        tables: tables.iter().map(|name| (*name).to_owned()).collect(),
        ..first.clone()
    };
    for other in [
        of(&["u"]),
        of(&["t", "u"]),
        of(&["nowhere"]),
        v1::AcquireReadHoldRequest { holder: "other".to_owned(), ..first.clone() },
        v1::AcquireReadHoldRequest { lease_ms: 60_001, ..first.clone() },
        v1::AcquireReadHoldRequest { epoch: 21, ..first.clone() },
    ] {
        let error = run(&mut state, change(30, Change::Acquire(other.clone()))).unwrap_err();
        assert_eq!(error, CommandError::RequestIdReused(id(1)), "{other:?}");
    }
    let same = v1::AcquireReadHoldRequest { lease_ms: 60_000, ..first };
    run(&mut state, change(30, Change::Acquire(same))).unwrap();
    assert_eq!(state, before);
}

#[test]
fn hold_like_another_one_has_its_tables_and_epoch() {
    let mut state = with_tables();
    run(&mut state, change(20, acquire(1, "first", &["t", "u"], 0))).unwrap();
    let like = |number, name: &str, epoch| {
        Change::Acquire(v1::AcquireReadHoldRequest {
            request_id: directory(number),
            name: name.to_owned(),
            like: "first".to_owned(),
            epoch,
            ..v1::AcquireReadHoldRequest::default()
        })
    };
    run(&mut state, change(30, like(2, "second", 0))).unwrap();
    run(&mut state, change(30, like(3, "third", 25))).unwrap();
    assert_eq!(refused(&mut state, change(30, like(4, "fourth", 19))), Reason::InvalidArgument);
    run(&mut state, change(30, release("first"))).unwrap();
    assert_eq!(hold(&state, "second").tables, hold(&state, "third").tables);
    assert_eq!((hold(&state, "second").epoch, hold(&state, "third").epoch), (Epoch(20), Epoch(25)));
    assert_eq!(since_of(&state, 2, 40), 20);
    assert_eq!(refused(&mut state, change(30, like(5, "fifth", 0))), Reason::HoldNotFound);
}

#[test]
fn holds_move_to_later_epochs_only() {
    let mut state = with_tables();
    run(&mut state, change(20, acquire(1, "h", &["t"], 0))).unwrap();
    let downgrade = |name: &str, epoch| {
        let name = name.to_owned();
        change(40, Change::Downgrade(v1::DowngradeReadHoldRequest { name, epoch }))
    };
    run(&mut state, downgrade("h", 30)).unwrap();
    assert_eq!(since_of(&state, 1, 40), 30);
    for (name, epoch, reason) in [
        ("h", 29, Reason::InvalidArgument),
        ("h", 41, Reason::InvalidArgument),
        ("other", 30, Reason::HoldNotFound),
    ] {
        assert_eq!(refused(&mut state, downgrade(name, epoch)), reason, "{name} {epoch}");
    }
}

#[test]
fn leases_are_extended_by_renewals() {
    let mut state = with_tables();
    run(&mut state, change(20, acquire(1, "h", &["t"], 0))).unwrap();
    let end_ms = hold(&state, "h").lease_end_ms;
    pass(&mut state, 30);
    let names = || vec!["h".to_owned(), "gone".to_owned(), "h".to_owned()];
    let renew = Change::Renew(v1::RenewReadHoldsRequest { names: names() });
    run(&mut state, change(20, renew)).unwrap();
    assert_eq!(hold(&state, "h").lease_end_ms, end_ms + 30_000);
    let expire = || change(20, Change::Expire(v1::ReleaseReadHoldsRequest { names: names() }));
    pass(&mut state, 59);
    run(&mut state, expire()).unwrap();
    assert!(state.holds().get("h").is_some(), "its lease has not ended");
    pass(&mut state, 1);
    run(&mut state, expire()).unwrap();
    assert!(state.holds().get("h").is_none());
}

#[test]
fn invalid_holds_are_refused() {
    let mut state = with_tables();
    let valid = v1::AcquireReadHoldRequest {
        request_id: directory(1),
        name: "h".to_owned(),
        tables: vec!["t".to_owned()],
        ..v1::AcquireReadHoldRequest::default()
    };
    let of = |tables: Vec<&str>| v1::AcquireReadHoldRequest {
        tables: tables.into_iter().map(str::to_owned).collect(),
        ..valid.clone()
    };
    let named = |name: &str| v1::AcquireReadHoldRequest { name: name.to_owned(), ..valid.clone() };
    let leased = |lease_ms| v1::AcquireReadHoldRequest { lease_ms, ..valid.clone() };
    let length = "the name of a hold must have 1 to 128 characters";
    let lease = "the lease of a hold must be 10s to 30d";
    for (request, text) in [
        (of(vec!["t", "t"]), "table \"t\" is named twice"),
        (of(vec![]), "a hold is of tables, or like another hold"),
        (of(vec!["t"; 1_001]), "a hold has more than 1,000 tables"),
        (named(""), length),
        (named(&"n".repeat(129)), length),
        (named("a\nb"), "the name of a hold must not have control characters"),
        (leased(9_999), lease),
        (leased(30 * 24 * 3_600_000 + 1), lease),
        (
            v1::AcquireReadHoldRequest { request_id: "x".into(), ..valid.clone() },
            "the request id of a hold is not a UUID",
        ),
        (
            v1::AcquireReadHoldRequest { holder: "h".repeat(257), ..valid.clone() },
            "the holder of a hold has more than 256 bytes",
        ),
        (
            v1::AcquireReadHoldRequest { like: "other".into(), ..valid.clone() },
            "a hold is of tables, or like another hold",
        ),
        (
            v1::AcquireReadHoldRequest { epoch: 21, ..valid.clone() },
            "epoch 21 has not begun: the last one is 20",
        ),
    ] {
        let expected = (Reason::InvalidArgument, text.to_owned());
        assert_eq!(refusal(&mut state, change(20, Change::Acquire(request))), expected);
    }
    let missing = refusal(&mut state, change(20, Change::Acquire(of(vec!["nowhere"]))));
    assert_eq!(missing, (Reason::TableNotFound, "table \"nowhere\" does not exist".to_owned()));
    let empty = Kind::ChangeCollections(v1::ChangeCollections { upper: 20, ..Default::default() });
    let without_epoch = change(0, Change::Acquire(valid));
    for (kind, text) in [(empty, "is empty"), (without_epoch, "has no epoch")] {
        let text = format!("the command is malformed: a change of collections {text}");
        assert_eq!(refusal(&mut state, kind), (Reason::InvalidArgument, text));
    }
    assert_eq!(state, with_tables());
}

#[test]
fn tables_without_their_own_since_are_refused() {
    let mut state = crate::commands::procedures::testing::with_tables();
    let hold = || change(20, acquire(1, "h", &["t"], 0));
    let error = run(&mut state, hold()).unwrap_err();
    let expected = CollectionCommandError::SinceNotOwn("t".to_owned());
    assert_eq!(error, CommandError::Collection(expected));
    run(&mut state, make_since_own(3, "t")).unwrap();
    assert_eq!(refused(&mut state, hold()), Reason::TableBusy);
    while of(&state, 3).is_running() {
        complete(&mut state, 3);
    }
    // The regions were asked before another change.
    run(&mut state, truncate(4, "t")).unwrap();
    assert_eq!(refused(&mut state, hold()), Reason::TableBusy);
    complete(&mut state, 4);
    let error = run(&mut state, hold()).unwrap_err();
    let expected = CollectionCommandError::SinceUnknown("t".to_owned());
    assert_eq!(error, CommandError::Collection(expected));
}

#[test]
fn held_table_is_neither_truncated_nor_dropped() {
    let mut state = with_tables_at(FeatureLevel::EXPORTS);
    run(&mut state, change(20, acquire(1, "h", &["t"], 0))).unwrap();
    run(&mut state, change(20, capabilities("u", &[(20, 1)]))).unwrap();
    for kind in [
        truncate(10, "t"),
        truncate(10, "u"),
        drop_named(10, "t"),
        drop_named(10, "u"),
        drop_table(10, "t"),
        Kind::BeginTruncateTable(v1::TruncateTableRequest {
            request_id: directory(10),
            name: "t".to_owned(),
        }),
    ] {
        assert_eq!(refused(&mut state, kind), Reason::Held);
    }
    run(&mut state, change(20, release("h"))).unwrap();
    // The oldest readable epoch is unknown until the regions are truncated.
    run(&mut state, truncate(11, "t")).unwrap();
    assert_eq!(state.since_at(TableId(1), Epoch(30)), None);
    complete(&mut state, 11);
    run(&mut state, drop_named(12, "t")).unwrap();
    complete(&mut state, 12);
    assert!(state.collection(TableId(1)).is_none());
    let stored = MetaState::from_rows(state.rows().unwrap()).unwrap();
    assert_eq!(stored, state);
}
