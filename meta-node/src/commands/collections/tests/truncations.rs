//! Changes of tables that are truncated: their regions are asked again, and no epoch that barriers may have named is held.

use tidewater_proto::v1::read_policy::Policy;

use super::*;
use crate::commands::collections::testing::{learned, policy};

/// Error of a change during the truncation of table "t".
fn busy() -> CommandError {
    CommandError::TableBusy { table: "t".to_owned(), operation: "truncated" }
}

fn unknown() -> CommandError {
    CommandError::Collection(CollectionCommandError::SinceUnknown("t".to_owned()))
}

/// Change by which the leader records learned epochs.
fn record() -> Change {
    Change::Record(v1::RecordSinces {})
}

fn held_epoch(state: &MetaState) -> u64 {
    hold(state, "h").epoch.get()
}

#[test]
fn answers_from_before_a_truncation_are_void() {
    let mut state = with_tables();
    // The regions have answered after the second change, and the truncation is the third.
    let acquisition = |answer| learned(40, answer, acquire(1, "h", &["t"], 0));
    run(&mut state, truncate(10, "t")).unwrap();
    assert_eq!(run(&mut state, acquisition((20, 2))), Err(busy()));
    // Asked while the regions were truncated one by one.
    assert_eq!(run(&mut state, acquisition((20, 3))), Err(busy()));
    complete(&mut state, 10);
    assert_eq!(run(&mut state, acquisition((20, 2))), Err(unknown()));
    // The leader records only answers that are not void.
    run(&mut state, learned(40, (20, 2), record())).unwrap();
    assert!(state.collection(TableId(1)).is_none());
    // Regions report no epoch that has not begun.
    run(&mut state, learned(40, (41, 3), record())).unwrap();
    assert!(state.collection(TableId(1)).is_none());
    assert_eq!(run(&mut state, acquisition((41, 3))), Err(unknown()));
    run(&mut state, acquisition((35, 3))).unwrap();
    assert_eq!(held_epoch(&state), 35);
}

#[test]
fn known_since_is_not_used_during_a_truncation() {
    let mut state = with_tables();
    run(&mut state, change(20, policy("t", Some(Policy::NoPolicy(true))))).unwrap();
    // Begun without a procedure, as by an earlier release.
    let request = v1::TruncateTableRequest { request_id: directory(10), name: "t".to_owned() };
    run(&mut state, Kind::BeginTruncateTable(request)).unwrap();
    for of in [acquire(1, "h", &["u", "t"], 0), policy("t", None), capabilities("t", &[(20, 1)])] {
        assert_eq!(run(&mut state, change(30, of.clone())), Err(busy()), "{of:?}");
    }
}

#[test]
fn truncated_tables_are_held_above_all_barriers() {
    let kept = Some(Policy::NoPolicy(true));
    for (policy_before, reported, expected) in [
        // Barriers have named epoch 30, and one of them may reach a region after the truncation.
        (kept.clone(), 20, 30),
        // Rows were truncated in epoch 35.
        (kept, 35, 35),
        // Barriers name their own epochs, up to the last one.
        (None, 20, 40),
    ] {
        let mut state = with_tables();
        run(&mut state, change(20, policy("t", None))).unwrap();
        run(&mut state, change(30, policy("t", policy_before))).unwrap();
        assert_eq!(since_of(&state, 1, 30), 30);
        run(&mut state, truncate(10, "t")).unwrap();
        complete(&mut state, 10);
        assert_eq!(state.since_at(TableId(1), Epoch(40)), None);
        let mut held = state.clone();
        run(&mut state, learned(40, (reported, 3), record())).unwrap();
        assert_eq!(since_of(&state, 1, 40), expected);
        // By a change without the leader's record before.
        run(&mut held, learned(40, (reported, 3), acquire(1, "h", &["t"], 0))).unwrap();
        assert_eq!(held_epoch(&held), expected);
        let below = learned(40, (reported, 3), acquire(2, "early", &["t"], expected - 1));
        assert_eq!(refused(&mut state, below), Reason::EpochBelowSince);
    }
}
