//! A held table that is dropped: the raise to the level of such drops, an empty policy, both drops of the table, and a collection
//! with an id that was handed out.

use tidewater_proto::v1::change_collections::Change;
use tidewater_proto::v1::read_policy::Policy;
use tidewater_proto::v1::{self, meta_command::Kind};

use super::SUPPORTING;
use super::exported_tables::EXPORTED;
use crate::commands::collections::testing::{acquire, drop_export, policy, release};
use crate::commands::procedures::testing::{drop_by_id, wire_id};
use crate::commands::testing::{directory, table};

/// Number of the changes of the table before its drop.
const CHANGES: u64 = 7;
/// First id that is handed out.
const FIRST_ID: u32 = 9;

/// Returns the commands.
pub(super) fn dropped_tables() -> Vec<v1::MetaCommand> {
    let at_level = |feature_level, kind| v1::MetaCommand {
        feature_level,
        rules: 3,
        kind: Some(kind),
        ..v1::MetaCommand::default()
    };
    let nodes = SUPPORTING.map(|(node_id, boot)| v1::SupportingNode { node_id, boot });
    let raise = v1::RaiseFeatureLevel { level: 11, nodes: nodes.to_vec() };
    let change = |upper, of: Change| {
        let history_ms = 3_600_000;
        let command =
            v1::ChangeCollections { upper, history_ms, change: Some(of), ..Default::default() };
        Kind::ChangeCollections(command)
    };
    let completed = |request, number| {
        Kind::AdvanceProcedure(v1::AdvanceProcedure {
            id: wire_id(request),
            number,
            step: 1,
            completed: true,
            ..v1::AdvanceProcedure::default()
        })
    };
    let allocate = v1::AllocateIdsRequest { request_id: directory(99), count: 3 };
    let definition =
        v1::CreateTableRequest { request_id: String::new(), ..table(100, "described") };
    let described = v1::CollectionDescription { id: FIRST_ID + 1, definition: Some(definition) };
    let create = v1::CreateCollectionsRequest { collections: vec![described] };
    let kinds = [
        change(0, drop_export("daily")),
        change(950, acquire(97, "h", &["split"], 0)),
        change(955, policy("split", Some(Policy::Empty(true)))),
        drop_by_id(98, EXPORTED),
        completed(98, CHANGES + 1),
        change(0, release("h")),
        drop_by_id(101, EXPORTED),
        completed(101, CHANGES + 2),
        Kind::AllocateIds(allocate),
        Kind::CreateCollections(create),
    ];
    let at_level_11 = kinds.into_iter().map(|kind| at_level(11, kind));
    std::iter::once(at_level(10, Kind::RaiseFeatureLevel(raise))).chain(at_level_11).collect()
}
