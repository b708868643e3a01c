//! A table that is held: the raise to the level of holds, and each change of collections.

use tidewater_proto::v1::change_collections::Change;
use tidewater_proto::v1::read_policy::Policy;
use tidewater_proto::v1::{self, ProcedureKind, meta_command::Kind};

use super::SUPPORTING;
use crate::commands::collections::testing::{acquire, make_since_own, policy, release};
use crate::commands::procedures::testing::{begin, wire_id};
use crate::commands::testing::directory;

/// Table "split", and its number of changes after the alteration.
const HELD: u32 = 6;
const CHANGES: u64 = 6;

/// Returns the commands.
pub(super) fn held_tables() -> Vec<v1::MetaCommand> {
    let at_level = |feature_level, kind| v1::MetaCommand {
        feature_level,
        rules: 3,
        kind: Some(kind),
        ..v1::MetaCommand::default()
    };
    let raise = |level| {
        let nodes = SUPPORTING.map(|(node_id, boot)| v1::SupportingNode { node_id, boot });
        let raise = v1::RaiseFeatureLevel { level, nodes: nodes.to_vec() };
        at_level(level - 1, Kind::RaiseFeatureLevel(raise))
    };
    let change = |upper, of: Change| {
        let table = Some(v1::TableSince { table_id: HELD, since: 500 });
        Kind::ChangeCollections(v1::ChangeCollections {
            upper,
            history_ms: 3_600_000,
            learned: vec![v1::LearnedSince { table, changes: CHANGES }],
            change: Some(of),
        })
    };
    let Change::Acquire(acquired) = acquire(91, "backup", &["split"], 700) else {
        return Vec::new();
    };
    let acquired = v1::AcquireReadHoldRequest {
        holder: "root@host".to_owned(),
        lease_ms: 3_600_000,
        ..acquired
    };
    let like = v1::AcquireReadHoldRequest {
        request_id: directory(92),
        name: "copy".to_owned(),
        like: "backup".to_owned(),
        ..v1::AcquireReadHoldRequest::default()
    };
    let names = || vec!["backup".to_owned(), "copy".to_owned()];
    let lag = v1::LagWriteFrontier { lag_ms: 60_000, granularity_ms: 1_000 };
    let parts = [Policy::LagWriteFrontier(lag), Policy::ValidFrom(650)];
    let parts = parts.map(|part| v1::ReadPolicy { policy: Some(part) }).to_vec();
    let multiple = Policy::Multiple(v1::ReadPolicies { policies: parts });
    let capabilities = |differences: [(u64, i64); 2]| {
        let changes = differences
            .map(|(epoch, difference)| v1::CapabilityChange { epoch, difference })
            .to_vec();
        let of_table = v1::CapabilityChanges { table: "split".to_owned(), changes };
        Change::Capabilities(v1::UpdateReadCapabilitiesRequest { changes: vec![of_table] })
    };
    let altered = |step| {
        Kind::AdvanceProcedure(v1::AdvanceProcedure {
            id: wire_id(90),
            number: CHANGES,
            step,
            completed: true,
            ..v1::AdvanceProcedure::default()
        })
    };
    let truncate = v1::TruncateTableRequest { request_id: directory(93), name: "split".to_owned() };
    let kinds = [
        make_since_own(90, "split"),
        altered(1),
        altered(2),
        change(800, Change::Acquire(acquired)),
        change(810, Change::Acquire(like)),
        change(820, Change::Renew(v1::RenewReadHoldsRequest { names: names() })),
        change(
            830,
            Change::Downgrade(v1::DowngradeReadHoldRequest { name: "copy".into(), epoch: 825 }),
        ),
        change(840, policy("split", Some(multiple))),
        change(850, policy("split", Some(Policy::NoPolicy(true)))),
        change(860, policy("split", None)),
        change(870, capabilities([(870, 2), (865, 1)])),
        change(880, capabilities([(870, -2), (865, -1)])),
        change(890, release("backup")),
        change(900, Change::Expire(v1::ReleaseReadHoldsRequest { names: names() })),
        change(910, release("copy")),
        begin(ProcedureKind::Truncate, 93, &truncate),
    ];
    let at_level_9 = kinds.into_iter().map(|kind| at_level(9, kind));
    [raise(7), raise(8), raise(9)].into_iter().chain(at_level_9).collect()
}
