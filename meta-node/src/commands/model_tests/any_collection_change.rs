//! Random changes of collections: holds, policies and capabilities of a few tables.

use proptest::prelude::*;
use tidewater_proto::v1::read_policy::Policy;
use tidewater_proto::v1::{self, change_collections::Change, meta_command::Kind};

use crate::commands::collections::testing::{
    acquire, capabilities, change, make_since_own, policy, release,
};

/// Changes as of the epochs 10 to 14. Tables are altered before.
pub(super) fn any_collection_change() -> impl Strategy<Value = Kind> {
    let tables = || prop::sample::select(vec!["t", "u", "v"]);
    let holds = || prop::sample::select(vec!["a", "b"]);
    let epoch = || prop_oneof![2 => Just(0), 1 => 8u64..14];
    let any_policy = prop_oneof![
        Just(None),
        Just(Some(Policy::NoPolicy(true))),
        (8u64..14).prop_map(|epoch| Some(Policy::ValidFrom(epoch))),
    ];
    let any_change = prop_oneof![
        4 => (80u64..90, holds(), tables(), epoch())
            .prop_map(|(number, name, table, epoch)| acquire(number, name, &[table], epoch)),
        1 => holds().prop_map(release),
        1 => holds().prop_map(|name| {
            Change::Renew(v1::RenewReadHoldsRequest { names: vec![name.to_owned()] })
        }),
        1 => (holds(), 8u64..14).prop_map(|(name, epoch)| {
            Change::Downgrade(v1::DowngradeReadHoldRequest { name: name.to_owned(), epoch })
        }),
        1 => (tables(), any_policy).prop_map(|(table, of)| policy(table, of)),
        1 => (tables(), 8u64..14, -1i64..2)
            .prop_map(|(table, epoch, difference)| capabilities(table, &[(epoch, difference)])),
    ];
    prop_oneof![
        2 => (40u64..70, tables()).prop_map(|(number, table)| make_since_own(number, table)),
        3 => (10u64..15, any_change).prop_map(|(upper, of)| change(upper, of)),
    ]
}
