//! Limits of the names and changes of one command.

use tidewater_collections::ChangeError;

use super::*;

#[test]
fn requests_name_a_thousand_holds_at_most() {
    let mut state = with_tables();
    let changes = |count: usize| {
        let names = vec!["h".to_owned(); count];
        [
            Change::Renew(v1::RenewReadHoldsRequest { names: names.clone() }),
            Change::Release(v1::ReleaseReadHoldsRequest { names: names.clone() }),
            Change::Expire(v1::ReleaseReadHoldsRequest { names }),
        ]
    };
    for of in changes(1_000) {
        run(&mut state, change(20, of)).unwrap();
    }
    let text = "a request names more than 1000 holds";
    for of in changes(1_001) {
        let refused = refusal(&mut state, change(20, of));
        assert_eq!(refused, (Reason::InvalidArgument, text.to_owned()));
    }
}

#[test]
fn capabilities_of_a_thousand_tables_are_changed_at_most() {
    let mut state = with_tables();
    // Changes of one table are joined, but each counts.
    let changes = |count: usize| {
        let Change::Capabilities(one) = capabilities("t", &[(20, 1)]) else { panic!() };
        let changes = vec![one.changes[0].clone(); count];
        change(20, Change::Capabilities(v1::UpdateReadCapabilitiesRequest { changes }))
    };
    let text = "capabilities of more than 1,000 tables are changed";
    let refused = refusal(&mut state, changes(1_001));
    assert_eq!(refused, (Reason::InvalidArgument, text.to_owned()));
    assert!(state.collection(TableId(1)).is_none());
    run(&mut state, changes(1_000)).unwrap();
    let counts = state.collection(TableId(1)).unwrap().capabilities.counts();
    let counts: Vec<_> = counts.map(|(epoch, count)| (epoch.get(), count.get())).collect();
    assert_eq!(counts, [(20, 1_000)]);
}

#[test]
fn capability_changes_that_cannot_be_joined_are_refused() {
    let mut state = with_tables();
    let many: Vec<(u64, i64)> = (20..2_021).map(|epoch| (epoch, 1)).collect();
    for (changes, expected) in [
        (vec![(20, i64::MAX), (20, 1)], ChangeError::Overflow { epoch: Epoch(20) }),
        (many, ChangeError::TooManyEpochs),
    ] {
        let error = run(&mut state, change(20, capabilities("t", &changes))).unwrap_err();
        assert_eq!(error.reason(), Reason::InvalidArgument);
        assert_eq!(error.to_string(), expected.to_string());
        assert_eq!(error, CommandError::Collection(CollectionCommandError::Changes(expected)));
    }
}
