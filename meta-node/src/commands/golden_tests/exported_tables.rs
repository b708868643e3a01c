//! A table that is exported: the raise to the level of exports, an export with a token, and one that is dropped.

use tidewater_proto::v1::change_collections::Change;
use tidewater_proto::v1::{self, meta_command::Kind};

use super::SUPPORTING;
use crate::commands::collections::testing::{
    acquire, begin_step, complete_step, create_export, drop_export, export_request,
};
use crate::commands::procedures::testing::wire_id;

/// Table "split", and its number of changes after the truncation.
pub(super) const EXPORTED: u32 = 6;
const CHANGES: u64 = 7;
/// Token of the first export.
const TOKEN: &str = "export-token:daily";

/// Returns the commands.
pub(super) fn exported_tables() -> Vec<v1::MetaCommand> {
    let at_level = |feature_level, kind| v1::MetaCommand {
        feature_level,
        rules: 3,
        kind: Some(kind),
        ..v1::MetaCommand::default()
    };
    let nodes = SUPPORTING.map(|(node_id, boot)| v1::SupportingNode { node_id, boot });
    let raise = v1::RaiseFeatureLevel { level: 10, nodes: nodes.to_vec() };
    let truncated = v1::AdvanceProcedure {
        id: wire_id(93),
        number: CHANGES,
        step: 1,
        completed: true,
        ..v1::AdvanceProcedure::default()
    };
    let change = |upper, of: Change| {
        let table = Some(v1::TableSince { table_id: EXPORTED, since: 915 });
        Kind::ChangeCollections(v1::ChangeCollections {
            upper,
            history_ms: 3_600_000,
            learned: vec![v1::LearnedSince { table, changes: CHANGES }],
            change: Some(of),
        })
    };
    let without_epoch = |of: Change| {
        let command = v1::ChangeCollections { change: Some(of), ..Default::default() };
        Kind::ChangeCollections(command)
    };
    let daily = v1::CreateExportRequest {
        token: TOKEN.to_owned(),
        interval_ms: 60_000,
        ..export_request(95, "daily", "split", 918)
    };
    let kinds = [
        Kind::AdvanceProcedure(truncated),
        change(920, acquire(94, TOKEN, &["split"], 0)),
        change(930, Change::CreateExport(daily)),
        without_epoch(begin_step(95, 1, 918)),
        without_epoch(complete_step(95, 1, 918)),
        without_epoch(begin_step(95, 2, 935)),
        change(940, create_export(96, "gone", "split", 0)),
        without_epoch(drop_export("gone")),
    ];
    let at_level_10 = kinds.into_iter().map(|kind| at_level(10, kind));
    std::iter::once(at_level(9, Kind::RaiseFeatureLevel(raise))).chain(at_level_10).collect()
}
