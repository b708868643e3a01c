//! A refreshable table that is held after its publication, and the drop of ids that are not used.

use tidewater_proto::v1::change_collections::Change;
use tidewater_proto::v1::{self, meta_command::Kind};

use super::{REFRESHED, SUPPORTING};
use crate::commands::collections::testing::{acquire, make_since_own};
use crate::commands::procedures::testing::wire_id;

/// Number of the changes of the table after the alteration.
const CHANGES: u64 = 4;
/// First id that was handed out. The second one is that of a collection.
const FIRST_ID: u32 = 9;

/// Returns the commands.
pub(super) fn held_refreshes() -> Vec<v1::MetaCommand> {
    let at_level = |feature_level, kind| v1::MetaCommand {
        feature_level,
        rules: 3,
        kind: Some(kind),
        ..v1::MetaCommand::default()
    };
    let nodes = SUPPORTING.map(|(node_id, boot)| v1::SupportingNode { node_id, boot });
    let raise = v1::RaiseFeatureLevel { level: 12, nodes: nodes.to_vec() };
    let altered = |step| {
        Kind::AdvanceProcedure(v1::AdvanceProcedure {
            id: wire_id(110),
            number: CHANGES,
            step,
            completed: true,
            ..v1::AdvanceProcedure::default()
        })
    };
    let change = |of: Change| {
        let table = Some(v1::TableSince { table_id: REFRESHED, since: 500 });
        Kind::ChangeCollections(v1::ChangeCollections {
            upper: 960,
            history_ms: 3_600_000,
            learned: vec![v1::LearnedSince { table, changes: CHANGES }],
            change: Some(of),
        })
    };
    let unused = v1::DropCollectionsRequest { ids: vec![FIRST_ID, FIRST_ID + 1] };
    let kinds = [
        make_since_own(110, "mirror"),
        altered(1),
        altered(2),
        // Its publication is of epoch 500: the table is complete at the epoch of the hold.
        change(acquire(111, "reader", &["mirror"], 955)),
        Kind::DropCollections(unused),
    ];
    let at_level_12 = kinds.into_iter().map(|kind| at_level(12, kind));
    std::iter::once(at_level(11, Kind::RaiseFeatureLevel(raise))).chain(at_level_12).collect()
}
