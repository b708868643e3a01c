use proptest::prelude::*;
use tidewater_common::ids::Term;

use super::*;
use crate::commands::apply;
use crate::commands::model_tests::any_command;
use crate::commands::testing::{command, one_of_each, with_groups};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn digest_follows_from_the_row_writes(commands in proptest::collection::vec(any_command(), 0..60)) {
        let mut state = with_groups(2, 1);
        let mut digest = RowDigest::of(&state).unwrap();
        for kind in commands {
            if let Ok((_, effects)) = apply(&mut state, Term(1), command(kind)) {
                digest.follow(&effects.rows);
            }
            let whole = RowDigest::of(&state).unwrap();
            prop_assert_eq!((digest.value(), &digest.rows), (whole.value(), &whole.rows));
        }
    }
}

#[test]
fn digest_depends_on_every_row() {
    let state = one_of_each();
    let rows: Vec<StateRowWrite> =
        state.rows().unwrap().into_iter().map(|(key, bytes)| (key, Some(bytes))).collect();
    let whole = RowDigest::of(&state).unwrap().value();
    let of = |rows: &[StateRowWrite]| {
        let mut digest = RowDigest::default();
        digest.follow(rows);
        digest.value()
    };
    assert_eq!(of(&rows), whole);
    let mut reversed = rows.clone();
    reversed.reverse();
    assert_eq!(of(&reversed), whole, "the order of writes is no part of the state");
    for at in 0..rows.len() {
        let mut missing = rows.clone();
        missing.remove(at);
        assert_ne!(of(&missing), whole, "row {at}");
        let mut changed = rows.clone();
        changed[at].1.as_mut().unwrap()[0] ^= 1;
        assert_ne!(of(&changed), whole, "row {at}");
        let next = (at + 1) % rows.len();
        let mut swapped = rows.clone();
        swapped[at].1 = rows[next].1.clone();
        swapped[next].1 = rows[at].1.clone();
        assert_ne!(of(&swapped), whole, "values of rows {at} and {next}");
    }
}

#[test]
fn replicas_are_compared_at_the_same_index() {
    let comparison = StateComparison::default();
    let leader = |index, digest| comparison.compare(&StateDigest { index, digest }, 5_000 + index);
    let difference = || comparison.difference().map(|at| (at.first.get(), at.last.get()));
    assert_eq!(comparison.latest(), None);
    leader(7, 1);
    assert_eq!(difference(), None, "this replica has no digest of that index");
    for index in 1..=100 {
        comparison.record(index, index * 10);
    }
    assert_eq!(comparison.latest(), Some(StateDigest { index: 100, digest: 1_000 }));
    leader(100, 1_000);
    leader(1, 99);
    assert_eq!(difference(), None, "no longer kept");
    leader(98, 981);
    leader(99, 991);
    leader(200, 1);
    assert_eq!(difference(), Some((98, 99)));
    assert_eq!(comparison.difference().map(|at| at.since_ms), Some(5_098), "of the first one");
    leader(100, 1_000);
    assert_eq!(difference(), None);
    comparison.clear();
    leader(100, 1);
    assert_eq!(difference(), None, "the state was replaced");
}
