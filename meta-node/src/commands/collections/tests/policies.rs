//! Policies and capabilities of tables.

use tidewater_collections::{CapabilityError, PolicyError};
use tidewater_proto::v1::read_policy::Policy;

use super::*;
use crate::commands::collections::testing::policy;

#[test]
fn policies_decide_the_readable_epochs() {
    let mut state = with_tables();
    let lag =
        |lag_ms| Some(Policy::LagWriteFrontier(v1::LagWriteFrontier { lag_ms, granularity_ms: 0 }));
    let at = |ms: u64| Epoch::at_ms(1_800_000_000_000 + ms).get();
    run(&mut state, change(at(0), policy("t", lag(10_000)))).unwrap();
    // The stronger policy before it has left nothing behind.
    assert_eq!(since_of(&state, 1, at(5_000)), at(0));
    assert_eq!(since_of(&state, 1, at(15_000)), at(5_000));
    // A stronger policy, then a weaker one, which brings back no epoch.
    run(&mut state, change(at(20_000), policy("t", None))).unwrap();
    assert_eq!(since_of(&state, 1, at(20_000)), at(20_000));
    run(&mut state, change(at(30_000), policy("t", Some(Policy::NoPolicy(true))))).unwrap();
    assert_eq!(since_of(&state, 1, at(90_000)), at(30_000));
    let unknown = v1::ReadPolicy { policy: None };
    let unknown = v1::SetReadPolicyRequest { table: "t".into(), policy: Some(unknown) };
    let kind = change(at(90_000), Change::Policy(unknown));
    assert_eq!(refused(&mut state, kind), Reason::InvalidArgument);
    let later = Some(Policy::ValidFrom(at(90_001)));
    let error = run(&mut state, change(at(90_000), policy("t", later))).unwrap_err();
    let CommandError::Collection(CollectionCommandError::Policy(error)) = error else {
        panic!("{error:?}")
    };
    assert!(matches!(error, PolicyError::BeyondLimit { .. }), "{error:?}");
}

#[test]
fn capabilities_are_changed_all_or_none() {
    let mut state = with_tables();
    run(&mut state, change(20, capabilities("t", &[(20, 2), (25, 1), (25, -1)]))).unwrap();
    assert_eq!(since_of(&state, 1, 50), 20);
    let of = |table: &str, changes: &[(u64, i64)]| match capabilities(table, changes) {
        Change::Capabilities(request) => request.changes,
        other => panic!("{other:?}"),
    };
    // Two changes of one table are joined; the second table has no capabilities.
    let changes = [of("t", &[(30, 1)]), of("t", &[(20, -2)]), of("u", &[(30, -1)])].concat();
    let request = v1::UpdateReadCapabilitiesRequest { changes: changes.clone() };
    let error = run(&mut state, change(40, Change::Capabilities(request))).unwrap_err();
    assert_eq!(error.reason(), Reason::InvalidCapabilities);
    assert_eq!(since_of(&state, 1, 50), 20);
    let request = v1::UpdateReadCapabilitiesRequest { changes: changes[..2].to_vec() };
    run(&mut state, change(40, Change::Capabilities(request))).unwrap();
    assert_eq!(since_of(&state, 1, 50), 30);
    let error = run(&mut state, change(40, capabilities("t", &[(29, 1)]))).unwrap_err();
    let CommandError::Collection(CollectionCommandError::Capabilities { error, .. }) = error else {
        panic!("{error:?}")
    };
    assert!(matches!(error, CapabilityError::BelowSince { .. }), "{error:?}");
    // Without capabilities, the policy alone decides.
    run(&mut state, change(40, capabilities("t", &[(30, -1)]))).unwrap();
    assert_eq!(since_of(&state, 1, 50), 50);
}
