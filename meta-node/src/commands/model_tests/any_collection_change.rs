//! Random changes of collections: holds, policies, capabilities and exports of a few tables.

use proptest::prelude::*;
use tidewater_proto::v1::read_policy::Policy;
use tidewater_proto::v1::{self, change_collections::Change, meta_command::Kind};

use crate::commands::collections::testing::{
    acquire, begin_step, capabilities, change, complete_step, create_export, create_export_by,
    drop_export, make_since_own, policy, release,
};
use crate::commands::procedures::testing::drop_by_id;
use crate::commands::testing::{directory, table};

/// Changes as of the epochs 10 to 14. Tables are altered before.
pub(super) fn any_collection_change() -> impl Strategy<Value = Kind> {
    let tables = || prop::sample::select(vec!["t", "u", "v"]);
    let holds = || prop::sample::select(vec!["a", "export-token:b"]);
    let epoch = || prop_oneof![2 => Just(0), 1 => 8u64..14];
    let any_policy = prop_oneof![
        Just(None),
        Just(Some(Policy::NoPolicy(true))),
        Just(Some(Policy::Empty(true))),
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
    let any_change = prop_oneof![10 => any_change, 8 => any_export_change()];
    prop_oneof![
        6 => (40u64..70, tables()).prop_map(|(number, table)| make_since_own(number, table)),
        9 => (10u64..15, any_change).prop_map(|(upper, of)| change(upper, of)),
        1 => (70u64..80, 1u32..8).prop_map(|(number, table)| drop_by_id(number, table)),
        5 => any_use_of_ids(),
    ]
}

/// Allocations of ids, batches of collections with them, and drops of ids that are not used.
fn any_use_of_ids() -> impl Strategy<Value = Kind> {
    let description =
        (1u32..9, prop::sample::select(vec!["t", "v", "w"])).prop_map(|(id, name)| {
            let definition = v1::CreateTableRequest { request_id: String::new(), ..table(1, name) };
            v1::CollectionDescription { id, definition: Some(definition) }
        });
    prop_oneof![
        2 => (95u64..99, 1u32..4).prop_map(|(number, count)| {
            Kind::AllocateIds(v1::AllocateIdsRequest { request_id: directory(number), count })
        }),
        2 => prop::collection::vec(description, 1..3).prop_map(|collections| {
            Kind::CreateCollections(v1::CreateCollectionsRequest { collections })
        }),
        1 => prop::collection::vec(1u32..9, 1..3).prop_map(|ids| {
            Kind::DropCollections(v1::DropCollectionsRequest { ids })
        }),
    ]
}

/// Two exports with a few ids, and their first steps.
fn any_export_change() -> impl Strategy<Value = Change> {
    let tables = || prop::sample::select(vec!["t", "u", "v"]);
    let exports = || prop::sample::select(vec!["x", "y"]);
    let step = || (90u64..94, 1u64..4, 8u64..14);
    prop_oneof![
        3 => (90u64..94, exports(), tables(), prop_oneof![2 => Just(0), 1 => 8u64..14])
            .prop_map(|(number, name, table, epoch)| create_export(number, name, table, epoch)),
        1 => (90u64..94, exports(), tables()).prop_map(|(number, name, table)| {
            create_export_by("export-token:b", number, name, table)
        }),
        2 => step().prop_map(|(number, step, epoch)| begin_step(number, step, epoch)),
        3 => step().prop_map(|(number, step, epoch)| complete_step(number, step, epoch)),
        1 => exports().prop_map(drop_export),
    ]
}
