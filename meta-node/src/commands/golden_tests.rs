//! Frozen bytes and effects of commands. A newer release replays the log of an older one: neither the
//! bytes of a command nor its effect on the state may change.

mod dropped_tables;
mod exported_tables;
mod held_refreshes;
mod held_tables;

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use tidewater_common::agreed_limits::{
    MERGE_CLOSE_STEP, MERGE_FENCE_STEP, MERGE_HOLD_STEP, MERGE_STEP, MOVE_ACTIVATE_STEP,
    MOVE_FENCE_STEP, MOVE_HOLD_STEP, MOVE_PREPARE_STEP, MOVE_RECEIVE_STEP, MOVE_RELEASE_STEP,
    SPLIT_CLOSE_STEP, SPLIT_HOLD_STEP, SPLIT_STEP,
};
use tidewater_proto::v1::column_change::Change;
use tidewater_proto::v1::{NewColumn, NodeRole, NodeState, WriteMode};

use self::dropped_tables::dropped_tables;
use self::exported_tables::exported_tables;
use self::held_refreshes::held_refreshes;
use self::held_tables::held_tables;
use super::procedures::testing::{begin, truncate, wire_id};
use super::testing::{CLUSTER, directory, hex, kind_name, report, set_members, table, unhex};
use super::*;
use crate::catalog::digest;

/// Commands of every kind with every field set, in an order in which all are accepted.
fn commands() -> Vec<v1::MetaCommand> {
    let registration = |number: u64, role: NodeRole| v1::RegisterNode {
        directory_id: directory(number),
        role: role.into(),
        address: format!("host:{}", 7_000 + number),
        cluster_id: CLUSTER.into(),
        node_id: 0,
        object_store_id: "store".into(),
        boot: 0,
        start_id: String::new(),
        release: None,
    };
    let column = |name: &str, kind: &str, nullable| NewColumn {
        name: name.into(),
        r#type: kind.into(),
        nullable,
        default: None,
    };
    let table = v1::CreateTableRequest {
        request_id: directory(11),
        name: "flights".into(),
        columns: vec![column("carrier", "utf8", false), column("at", "timestamp(ms)", true)],
        primary_key: vec!["carrier".into(), "at".into()],
        time_column: Some("at".into()),
        write_mode: WriteMode::AppendOnly.into(),
        hash_columns: vec!["carrier".into()],
        vnode_count: 16,
        regions: 3,
        ttl_ms: Some(86_400_000),
        refresh: None,
        compaction_window_ms: None,
        holds_events: false,
    };
    let report = v1::ReportGroup {
        group_id: 1,
        term: 3,
        leader: 101,
        voters: vec![101],
        learners: vec![102],
        membership_term: 3,
        membership_index: 300,
        replaces_term: None,
    };
    let hook = |name: &str, request: u64| v1::AddHookRequest {
        request_id: directory(request),
        name: name.into(),
        kind: "jsonl".into(),
        config: r#"{"path":"/x"}"#.into(),
        table: "flights".into(),
        ..v1::AddHookRequest::default()
    };
    let again = v1::RegisterNode { node_id: 101, ..registration(1, NodeRole::Data) };
    let any_term = [
        Kind::Bootstrap(v1::BootstrapCluster { cluster_id: CLUSTER.into(), now_ms: 1_000 }),
        Kind::RegisterNode(registration(1, NodeRole::Data)),
        Kind::RegisterNode(again),
        Kind::RegisterNode(registration(2, NodeRole::Data)),
        Kind::RegisterNode(registration(3, NodeRole::Compactor)),
    ];
    let leader = [
        Kind::CreateGroup(v1::CreateGroup { first_members: vec![101, 102], home_groups: 0 }),
        Kind::CreateGroup(v1::CreateGroup { first_members: vec![102], home_groups: 0 }),
        Kind::ActivateGroup(v1::ActivateGroup { group_id: 1 }),
        Kind::AbandonGroup(v1::AbandonGroup { group_id: 2 }),
        Kind::ReportGroup(report),
        Kind::UpdateNode(v1::UpdateNode { node_id: 102, address: "other:7002".into() }),
        Kind::SetNodeState(v1::SetNodeState { node_id: 102, state: NodeState::Down.into() }),
        Kind::AdvanceTime(v1::AdvanceTime { now_ms: 2_500, agreed_ms: 0 }),
    ];
    let requests = [
        Kind::CreateTable(v1::CreateTableRequest {
            request_id: directory(10),
            name: "gone".into(),
            ..table.clone()
        }),
        Kind::ActivateTable(v1::ActivateTable { table_id: 1 }),
        Kind::BeginDropTable(v1::DropTableRequest {
            request_id: directory(12),
            name: "gone".into(),
            table_id: 0,
        }),
        Kind::FinishDropTable(v1::FinishDropTable { table_id: 1 }),
        Kind::CreateTable(table),
        Kind::Bench(vec![0, 1, 255].into()),
        Kind::AddHook(hook("audit", 13)),
        Kind::AddHook(hook("gone", 14)),
        Kind::SetHookPaused(v1::SetHookPausedRequest { name: "audit".into(), paused: true }),
        Kind::RemoveHook(v1::RemoveHookRequest { request_id: directory(15), name: "gone".into() }),
        Kind::ActivateTable(v1::ActivateTable { table_id: 2 }),
        Kind::BeginAlterTable(v1::AlterTableRequest {
            request_id: directory(16),
            name: "flights".into(),
            columns: vec![
                v1::ColumnChange {
                    change: Some(Change::Add(NewColumn {
                        default: Some("7".into()),
                        ..column("seats", "int32", false)
                    })),
                },
                v1::ColumnChange { change: Some(Change::Drop("seats".into())) },
            ],
            ttl_ms: Some(0),
            compaction_window_ms: None,
            by_node: false,
            explicit_since: false,
        }),
        Kind::FinishTableChange(v1::FinishTableChange { table_id: 2, number: 1 }),
        Kind::BeginTruncateTable(v1::TruncateTableRequest {
            request_id: directory(17),
            name: "flights".into(),
        }),
        Kind::AddHook(v1::AddHookRequest {
            durable: true,
            start: v1::HookStart::Version.into(),
            version: 5,
            ..hook("export", 18)
        }),
        // The generation does not match the hook: a cursor that is not at the expected position is unchanged.
        Kind::AdvanceCursors(v1::AdvanceCursors {
            advances: vec![v1::CursorAdvance {
                hook: "export".into(),
                generation: 1,
                region_id: 4,
                expected_version: 4,
                expected_state: v1::CursorState::From.into(),
                version: 300,
                state: v1::CursorState::Tail.into(),
                done: true,
            }],
        }),
        Kind::FinishTableChange(v1::FinishTableChange { table_id: 2, number: 2 }),
        Kind::BeginLoad(v1::BeginLoadRequest {
            request_id: directory(19),
            name: "flights".into(),
            timeout_ms: 60_000,
        }),
        Kind::LoadOpened(v1::AdvanceLoad { table_id: 2, number: 3 }),
        Kind::ExpireLoad(v1::AdvanceLoad { table_id: 2, number: 3 }),
        Kind::EndLoad(v1::EndLoadRequest {
            request_id: directory(19),
            name: "flights".into(),
            publish: true,
        }),
        Kind::FinishTableChange(v1::FinishTableChange { table_id: 2, number: 3 }),
        Kind::CloneTable(v1::CloneTableRequest {
            request_id: directory(20),
            name: "flights".into(),
            new_name: "copy".into(),
        }),
    ];
    let decided = |decided_term, kind| v1::MetaCommand {
        decided_term,
        kind: Some(kind),
        feature_level: 1,
        ..v1::MetaCommand::default()
    };
    let any_term = any_term.into_iter().map(|kind| decided(0, kind));
    let leader = leader.into_iter().map(|kind| decided(TERM.get(), kind));
    let requests = requests.into_iter().map(|kind| decided(0, kind));
    any_term
        .chain(leader)
        .chain(requests)
        .chain(under_rules())
        .chain(leveled())
        .chain(procedures())
        .chain(changes_of_routes())
        .chain(counted_groups())
        .chain(replaced_members())
        .chain(refreshed_table())
        .chain(held_tables())
        .chain(exported_tables())
        .chain(dropped_tables())
        .chain(held_refreshes())
        .collect()
}

/// Registration of a data node whose release supports levels up to 4.
fn registration_at_level_4(number: u64) -> v1::RegisterNode {
    let registered = crate::commands::testing::registration(number);
    let release =
        registered.release.clone().map(|release| v1::ReleaseInfo { highest_level: 4, ..release });
    v1::RegisterNode { release, ..registered }
}

/// The raise of the level, and commands with the kinds, fields and rules of the second level.
fn leveled() -> Vec<v1::MetaCommand> {
    let command = |feature_level, rules, kind| v1::MetaCommand {
        feature_level,
        rules,
        kind: Some(kind),
        ..v1::MetaCommand::default()
    };
    let supporting = |node_id, boot| v1::SupportingNode { node_id, boot };
    let nodes = vec![supporting(101, 3), supporting(102, 0), supporting(103, 0)];
    let registered = v1::RegisterNode {
        directory_id: directory(40),
        role: NodeRole::Data.into(),
        address: "host:7040".into(),
        object_store_id: "store".into(),
        boot: 1,
        start_id: directory(41),
        release: Some(v1::ReleaseInfo {
            release: "0.2.0".into(),
            lowest_level: 1,
            highest_level: 2,
        }),
        ..v1::RegisterNode::default()
    };
    let observed = v1::RecordObservations {
        nodes: vec![v1::SetNodeState { node_id: 102, state: NodeState::Up.into() }],
        groups: vec![v1::ReportGroup { replaces_term: Some(9), ..report(1, 5, 102) }],
        observed_nodes: Vec::new(),
    };
    let deadline =
        v1::BeginLoadRequest { request_id: directory(42), name: "copy".into(), timeout_ms: 60_000 };
    let stepped = v1::AddHookRequest {
        request_id: directory(43),
        name: "stepped".into(),
        kind: "jsonl".into(),
        durable: true,
        ..v1::AddHookRequest::default()
    };
    // The hook's generation is the revision of its addition.
    let step =
        v1::StepHook { hook: "stepped".into(), generation: 37, from_region_id: 0, regions: 4 };
    vec![
        command(1, 1, Kind::RaiseFeatureLevel(v1::RaiseFeatureLevel { level: 2, nodes })),
        command(1, 1, Kind::RegisterNode(registered)),
        command(2, 2, Kind::RecordObservations(observed)),
        command(1, 2, Kind::ActivateTable(v1::ActivateTable { table_id: 3 })),
        command(1, 2, Kind::BeginLoad(deadline.clone())),
        // The load gets a new deadline, and the revision stays.
        command(1, 2, Kind::BeginLoad(v1::BeginLoadRequest { timeout_ms: 120_000, ..deadline })),
        command(1, 2, Kind::AddHook(stepped)),
        command(2, 2, Kind::StepHook(step)),
    ]
}

/// The raise to the third level, and the commands of procedures.
fn procedures() -> Vec<v1::MetaCommand> {
    let command = |feature_level, kind| v1::MetaCommand {
        feature_level,
        rules: 2,
        kind: Some(kind),
        ..v1::MetaCommand::default()
    };
    let supporting = |node_id, boot| v1::SupportingNode { node_id, boot };
    let nodes = [(101, 3), (102, 0), (103, 0), (104, 1)].map(|(id, boot)| supporting(id, boot));
    let raise = v1::RaiseFeatureLevel { level: 3, nodes: nodes.to_vec() };
    let failure =
        v1::ProcedureFailure { reason: 20, message: "no leader ".repeat(51), since_ms: 0 };
    let progress = v1::AdvanceProcedure {
        id: wire_id(50),
        number: 4,
        step: 1,
        completed: false,
        done_regions: vec![4],
        failure: Some(failure),
        requested: false,
        result: Bytes::new(),
    };
    let completed = v1::AdvanceProcedure { completed: true, failure: None, ..progress.clone() };
    let drop =
        v1::DropTableRequest { request_id: directory(52), name: "flights".into(), table_id: 0 };
    let cause = v1::AbandonCause::Operator.into();
    vec![
        command(2, Kind::RaiseFeatureLevel(raise)),
        command(3, truncate(50, "flights")),
        command(3, Kind::AdvanceProcedure(progress)),
        command(3, Kind::AdvanceProcedure(completed)),
        command(3, truncate(51, "flights")),
        // It ends the procedure.
        command(1, Kind::BeginDropTable(drop)),
        command(
            3,
            Kind::AbandonProcedure(v1::AbandonProcedure {
                id: wire_id(51),
                number: 5,
                cause,
                step: 1,
            }),
        ),
    ]
    .into_iter()
    .chain(procedures_of_a_table().into_iter().map(|kind| command(3, kind)))
    .collect()
}

/// The procedures of the table "made", from its creation to its drop.
fn procedures_of_a_table() -> Vec<Kind> {
    use v1::ProcedureKind as Number;
    let completed = |number, change, step| {
        Kind::AdvanceProcedure(v1::AdvanceProcedure {
            id: wire_id(number),
            number: change,
            step,
            completed: true,
            requested: true,
            ..v1::AdvanceProcedure::default()
        })
    };
    let name = || "made".to_owned();
    let column = v1::NewColumn {
        name: "added".into(),
        r#type: "int64".into(),
        nullable: true,
        default: None,
    };
    let change = Some(v1::column_change::Change::Add(column));
    let alter = v1::AlterTableRequest {
        request_id: directory(61),
        name: name(),
        columns: vec![v1::ColumnChange { change }],
        ttl_ms: None,
        compaction_window_ms: None,
        by_node: false,
        explicit_since: false,
    };
    let load =
        |timeout_ms| v1::BeginLoadRequest { request_id: directory(62), name: name(), timeout_ms };
    let new_name = "second".to_owned();
    let clone = v1::CloneTableRequest { request_id: directory(63), name: name(), new_name };
    let cause = v1::AbandonCause::Operator.into();
    let drop = v1::DropTableRequest { request_id: directory(64), name: name(), table_id: 0 };
    vec![
        begin(Number::Create, 60, &v1::CreateTableRequest { regions: 2, ..table(60, "made") }),
        completed(60, 1, 1),
        begin(Number::Alter, 61, &alter),
        completed(61, 2, 1),
        begin(Number::Load, 62, &load(1_000)),
        completed(62, 3, 1),
        begin(Number::Load, 62, &load(2_000)),
        completed(62, 3, 2),
        completed(62, 3, 3),
        begin(Number::Clone, 63, &clone),
        Kind::AbandonProcedure(v1::AbandonProcedure { id: wire_id(63), number: 1, cause, step: 1 }),
        completed(63, 1, 10),
        begin(Number::Drop, 64, &drop),
        completed(64, 4, 1),
    ]
}

/// The raise to the fourth level, and a table whose route is split, and merged again.
fn changes_of_routes() -> Vec<v1::MetaCommand> {
    use v1::ProcedureKind as Number;
    let command = |feature_level, kind| v1::MetaCommand {
        feature_level,
        rules: 2,
        kind: Some(kind),
        ..v1::MetaCommand::default()
    };
    let supporting = |node_id, boot| v1::SupportingNode { node_id, boot };
    let nodes = [(101, 3), (102, 0), (103, 0), (104, 1)].map(|(id, boot)| supporting(id, boot));
    let raise = v1::RaiseFeatureLevel { level: 4, nodes: nodes.to_vec() };
    let completed = |id, number, step| {
        let id = wire_id(id);
        let report =
            v1::AdvanceProcedure { id, number, step, completed: true, ..Default::default() };
        Kind::AdvanceProcedure(report)
    };
    let split = v1::SplitRouteRequest {
        request_id: directory(71),
        route_id: FIRST_SPLIT,
        split_key: Bytes::from_static(b"k"),
        expected_version: 0,
        for_load: false,
    };
    let merge = v1::MergeRoutesRequest {
        request_id: directory(72),
        route_id: FIRST_SPLIT + 1,
        neighbour_id: FIRST_SPLIT + 2,
        expected_version: 0,
    };
    let procedures = [
        begin(Number::Create, 70, &table(70, "split")),
        completed(70, 1, 1),
        begin(Number::Split, 71, &split),
        completed(71, 2, SPLIT_HOLD_STEP),
        completed(71, 2, SPLIT_STEP),
        completed(71, 2, SPLIT_CLOSE_STEP),
        begin(Number::Merge, 72, &merge),
        completed(72, 3, MERGE_HOLD_STEP),
        completed(72, 3, MERGE_FENCE_STEP),
        completed(72, 3, MERGE_STEP),
        completed(72, 3, MERGE_CLOSE_STEP),
    ];
    let raise = command(3, Kind::RaiseFeatureLevel(raise));
    let later = procedures.into_iter().chain(reserved_table()).chain(moved_route());
    std::iter::once(raise).chain(later.map(|kind| command(4, kind))).collect()
}

/// A table that is reserved, and opened with the routes that are saved; a node that is drained and removed.
fn reserved_table() -> [Kind; 7] {
    let definition = Some(v1::CreateTableRequest { regions: 0, ..table(0, "reserved") });
    let [start, end] = [RESERVED, RESERVED + 1].map(|id| Bytes::from(id.to_be_bytes().to_vec()));
    let middle = Bytes::from([&start, b"m".as_slice()].concat());
    let route = |route_id, start: &Bytes, end: &Bytes| v1::Route {
        route_id,
        start: start.clone(),
        end: Some(end.clone()),
        group_id: 1,
        ..v1::Route::default()
    };
    let save = v1::SaveRoutesRequest {
        request_id: directory(73),
        table_id: RESERVED,
        expected_version: VERSION_OF_RESERVED,
        routes: vec![route(0, &start, &middle), route(FIRST_SPLIT + 20, &middle, &end)],
    };
    let open = v1::OpenTableRequest { request_id: directory(74), name: "reserved".into() };
    let completed = v1::AdvanceProcedure {
        id: wire_id(74),
        number: 1,
        step: 1,
        completed: true,
        ..Default::default()
    };
    [
        Kind::ReserveTable(v1::ReserveTableRequest { definition }),
        Kind::SaveRoutes(save),
        begin(v1::ProcedureKind::Open, 74, &open),
        Kind::AdvanceProcedure(completed),
        Kind::RegisterNode(registration_at_level_4(75)),
        Kind::SetNodeDraining(v1::SetNodeDraining {
            node_id: DRAINED,
            draining: true,
            replacement_id: 0,
        }),
        Kind::RemoveNode(v1::RemoveNode { node_id: DRAINED }),
    ]
}

/// A second active group, and a route that moves to it.
fn moved_route() -> Vec<Kind> {
    let relocate = v1::MoveRouteRequest {
        request_id: directory(76),
        route_id: FIRST_SPLIT + 3,
        target_group_id: TARGET,
        expected_version: 0,
    };
    let steps = [
        MOVE_HOLD_STEP,
        MOVE_PREPARE_STEP,
        MOVE_FENCE_STEP,
        MOVE_RECEIVE_STEP,
        MOVE_RELEASE_STEP,
        MOVE_ACTIVATE_STEP,
    ];
    let completed = |step| {
        let id = wire_id(76);
        Kind::AdvanceProcedure(v1::AdvanceProcedure {
            id,
            number: 4,
            step,
            completed: true,
            ..Default::default()
        })
    };
    let begun = [
        Kind::CreateGroup(v1::CreateGroup { first_members: vec![102], home_groups: 0 }),
        Kind::ActivateGroup(v1::ActivateGroup { group_id: TARGET }),
        begin(v1::ProcedureKind::Move, 76, &relocate),
    ];
    begun.into_iter().chain(steps.map(completed)).collect()
}

/// A second group of the same home, which is retired, a drain with a replacement, settings of the balance, and a
/// split of a hot route.
fn counted_groups() -> Vec<v1::MetaCommand> {
    let second = v1::CreateGroup { first_members: vec![102], home_groups: 1 };
    let retiring = v1::SetGroupRetiring { group_id: RETIRED, retiring: true };
    let hot = v1::SplitRouteRequest {
        request_id: directory(78),
        route_id: FIRST_SPLIT + 3,
        split_key: Bytes::from_static(b"m"),
        expected_version: 0,
        for_load: true,
    };
    let completed = |step| {
        let id = wire_id(78);
        Kind::AdvanceProcedure(v1::AdvanceProcedure {
            id,
            number: 5,
            step,
            completed: true,
            ..Default::default()
        })
    };
    let drain = v1::SetNodeDraining { node_id: REPLACED, draining: true, replacement_id: 101 };
    let settings = v1::SetBalanceRequest {
        spread: Some(false),
        rest_ms: Some(2_000),
        hotspots: Some(v1::HotspotMode::On.into()),
        split_score: Some(700),
        max_routes: Some(9),
    };
    let kinds = [
        Kind::CreateGroup(second),
        Kind::ActivateGroup(v1::ActivateGroup { group_id: RETIRED }),
        Kind::SetGroupRetiring(retiring),
        Kind::RetireGroup(v1::RetireGroup { group_id: RETIRED }),
        Kind::RegisterNode(registration_at_level_4(77)),
        Kind::SetNodeDraining(drain),
        Kind::SetBalance(settings),
        begin(v1::ProcedureKind::Split, 78, &hot),
        completed(SPLIT_HOLD_STEP),
        completed(SPLIT_STEP),
        completed(SPLIT_CLOSE_STEP),
    ];
    let at_level_4 = |kind| v1::MetaCommand {
        feature_level: 4,
        rules: 3,
        kind: Some(kind),
        ..v1::MetaCommand::default()
    };
    kinds.into_iter().map(at_level_4).collect()
}

/// A replacement of a member of the meta group, which is cancelled, and its end.
fn replaced_members() -> Vec<v1::MetaCommand> {
    let replace = |cancel| v1::ReplaceMetaMemberRequest {
        old_node_id: 2,
        new_node_id: 4,
        address: "m:4".into(),
        cancel,
    };
    let kinds = [
        Kind::ReplaceMetaMember(replace(false)),
        Kind::ReplaceMetaMember(replace(true)),
        Kind::EndMemberReplacement(v1::EndMemberReplacement { old_node_id: 2, new_node_id: 4 }),
    ];
    let at_level_4 = |kind| v1::MetaCommand {
        feature_level: 4,
        rules: 3,
        kind: Some(kind),
        ..v1::MetaCommand::default()
    };
    kinds.into_iter().map(at_level_4).collect()
}

/// A refreshable table, a refresh that is published, one that fails, and settings.
fn refreshed_table() -> Vec<v1::MetaCommand> {
    let definition = v1::RefreshDefinition {
        source_kind: "csv".into(),
        source_config: "{}".into(),
        settings: Some(v1::RefreshSettings {
            interval_ms: 60_000,
            deadline_ms: 5_000,
            min_rows_percent: Some(10),
        }),
    };
    let mirror =
        v1::CreateTableRequest { regions: 1, refresh: Some(definition), ..table(80, "mirror") };
    let refresh = |request| {
        let of_table = v1::RefreshRequest {
            request_id: directory(request),
            table_id: REFRESHED,
            associated_source_id: 0,
            trigger: v1::RefreshTrigger::Manual.into(),
            force: true,
        };
        begin(v1::ProcedureKind::Refresh, request, &of_table)
    };
    let report = |request, number, step| v1::AdvanceProcedure {
        id: wire_id(request),
        number,
        step,
        ..Default::default()
    };
    let completed = |request, number, step| {
        let report = report(request, number, step);
        Kind::AdvanceProcedure(v1::AdvanceProcedure { completed: true, ..report })
    };
    let finished = |step, result: v1::RefreshStepResult| {
        Kind::AdvanceProcedure(v1::AdvanceProcedure {
            completed: true,
            requested: true,
            result: result.encode_to_vec().into(),
            ..report(81, 2, step)
        })
    };
    let loaded =
        v1::RefreshStepResult { snapshot: "1 object".into(), source_rows: 7, ..Default::default() };
    let counts = v1::MergeCounts { inserted: 7, ..Default::default() };
    let merged = v1::RefreshStepResult {
        epoch: 500,
        previous_until: 600,
        counts: Some(counts),
        ..Default::default()
    };
    let failure = v1::ProcedureFailure { reason: 91, message: "no source".into(), since_ms: 0 };
    let failed = v1::AdvanceProcedure { failure: Some(failure), ..report(82, 3, 2) };
    let cause = v1::AbandonCause::Failed.into();
    let abandoned = v1::AbandonProcedure { id: wire_id(82), number: 3, cause, step: 2 };
    let altered = v1::AlterRefreshRequest {
        table: "mirror".into(),
        paused: Some(true),
        settings: Some(v1::RefreshSettings::default()),
    };
    let kinds = [
        begin(v1::ProcedureKind::Create, 80, &mirror),
        completed(80, 1, 1),
        refresh(81),
        completed(81, 2, 1),
        finished(2, loaded),
        completed(81, 2, 3),
        finished(4, merged),
        completed(81, 2, 5),
        refresh(82),
        completed(82, 3, 1),
        Kind::AdvanceProcedure(failed),
        Kind::AbandonProcedure(abandoned),
        completed(82, 3, 10),
        Kind::AlterRefresh(altered),
    ];
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
    let at_level_6 = kinds.into_iter().map(|kind| at_level(6, kind));
    [raise(5), raise(6)].into_iter().chain(at_level_6).collect()
}

/// Commands with the fields of later releases.
fn under_rules() -> Vec<v1::MetaCommand> {
    let under_rules = |kind| v1::MetaCommand {
        feature_level: 1,
        rules: 1,
        kind: Some(kind),
        ..v1::MetaCommand::default()
    };
    let started = v1::RegisterNode {
        directory_id: directory(1),
        role: NodeRole::Data.into(),
        address: "host:7009".into(),
        cluster_id: CLUSTER.into(),
        node_id: 101,
        object_store_id: "store".into(),
        boot: 3,
        start_id: directory(30),
        release: None,
    };
    let tick = Kind::AdvanceTime(v1::AdvanceTime { now_ms: 3_000, agreed_ms: 5_000 });
    let leader_digest = Some(v1::StateDigest { index: 300, digest: 0x0102_0304_0506_0708 });
    let hook = v1::AddHookRequest {
        request_id: directory(21),
        name: "later".into(),
        kind: "jsonl".into(),
        ..v1::AddHookRequest::default()
    };
    vec![
        under_rules(Kind::RegisterNode(started)),
        v1::MetaCommand { leader_digest, ..under_rules(tick) },
        under_rules(Kind::AddHook(hook)),
    ]
}

const TERM: Term = Term(3);

const GOLDEN: &str = include_str!("golden_commands.txt");

fn golden() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    GOLDEN.lines().map(|line| {
        let (name, bytes) = line.split_once(' ').unwrap();
        (name, unhex(bytes))
    })
}

/// Names of all kinds of commands.
pub(super) fn kinds() -> BTreeSet<&'static str> {
    golden().map(|(name, _)| name).collect()
}

#[test]
fn command_bytes_are_frozen() {
    let line = |command: &v1::MetaCommand| {
        format!("{} {}\n", kind_name(command.kind.as_ref().unwrap()), hex(&command.encode_to_vec()))
    };
    let text: String = commands().iter().map(line).collect();
    assert_eq!(text, GOLDEN, "the bytes of commands have changed: logs must stay readable");
    let decoded: Vec<_> =
        golden().map(|(_, bytes)| v1::MetaCommand::decode(bytes.as_slice()).unwrap()).collect();
    assert_eq!(decoded, commands());
}

#[test]
fn every_command_kind_is_in_the_golden_file() {
    let names = kinds();
    assert_eq!(names.len(), 46, "{names:?}");
}

#[test]
fn older_log_replays_to_the_same_state() {
    let mut state = MetaState::default();
    let reached = |state: &MetaState| (state.header().revision.get(), digest(state).unwrap());
    for (at, (name, bytes)) in golden().enumerate() {
        if at == FIRST_RELEASE {
            assert_eq!(reached(&state), REACHED_FIRST, "{state:#?}");
        }
        if at == WITHOUT_LEVELS {
            assert_eq!(reached(&state), REACHED_WITHOUT_LEVELS, "{state:#?}");
        }
        if at == FIRST_WITH_LEVELS {
            assert_eq!(reached(&state), REACHED_FIRST_WITH_LEVELS, "{state:#?}");
        }
        if at == SECOND_LEVEL {
            assert_eq!(reached(&state), REACHED_SECOND_LEVEL, "{state:#?}");
            assert_eq!(state.cursors().count("stepped"), 4);
        }
        if at == THIRD_LEVEL {
            assert_eq!(reached(&state), REACHED_THIRD_LEVEL, "{state:#?}");
        }
        if at == MEMBERS_REPLACED {
            set_members(&mut state, &[1, 2, 3]);
        }
        if at == FOURTH_LEVEL {
            assert_eq!(reached(&state), REACHED_FOURTH_LEVEL, "{state:#?}");
        }
        if at == SIXTH_LEVEL {
            assert_eq!(reached(&state), REACHED_SIXTH_LEVEL, "{state:#?}");
        }
        if at == NINTH_LEVEL {
            assert_eq!(reached(&state), REACHED_NINTH_LEVEL, "{state:#?}");
        }
        if at == TENTH_LEVEL {
            assert_eq!(reached(&state), REACHED_TENTH_LEVEL, "{state:#?}");
        }
        if at == ELEVENTH_LEVEL {
            assert_eq!(reached(&state), REACHED_ELEVENTH_LEVEL, "{state:#?}");
        }
        let command = v1::MetaCommand::decode(bytes.as_slice()).unwrap();
        let applied = apply(&mut state, TERM, command);
        assert!(applied.is_ok(), "{name}: {applied:?}");
    }
    assert_eq!(reached(&state), REACHED, "{state:#?}");
}

/// Number of golden commands of the first release.
const FIRST_RELEASE: usize = 36;
/// Number of golden commands of the releases without levels.
const WITHOUT_LEVELS: usize = 39;
/// Number of golden commands of the first state with levels.
const FIRST_WITH_LEVELS: usize = 41;
/// Number of golden commands of the second level.
const SECOND_LEVEL: usize = 47;
/// Number of golden commands of the third level.
const THIRD_LEVEL: usize = 68;
/// Number of golden commands before the replacement of a member of the meta group.
const MEMBERS_REPLACED: usize = 107;
/// First command of the fifth level.
const FOURTH_LEVEL: usize = 110;
/// Number of golden commands of the sixth level.
const SIXTH_LEVEL: usize = 126;
/// Number of golden commands of the ninth level.
const NINTH_LEVEL: usize = 145;
/// Number of golden commands of the tenth level.
const TENTH_LEVEL: usize = 154;
/// Number of golden commands of the eleventh level.
const ELEVENTH_LEVEL: usize = 165;
/// Id of the route that is split.
const FIRST_SPLIT: u64 = 14;
/// Nodes that must support the levels of refreshable tables.
const SUPPORTING: [(u64, u64); 8] =
    [(1, 0), (2, 0), (3, 0), (101, 3), (102, 0), (103, 0), (104, 1), (106, 0)];
/// The refreshable table.
const REFRESHED: u32 = 8;
/// Group to which a route is moved.
const TARGET: u64 = 3;
/// A data node without replicas, which is replaced.
const REPLACED: u64 = 106;
/// Group that is retired.
const RETIRED: u64 = 4;
/// A data node without replicas.
const DRAINED: u64 = 105;
/// Id of the reserved table, and the version of the catalog when its routes are saved.
const RESERVED: u32 = 7;
const VERSION_OF_RESERVED: u64 = 12;
/// Revision and digest after these, and after all golden commands.
const REACHED_FIRST: (u64, u32) = (30, 2_004_309_949);
const REACHED_WITHOUT_LEVELS: (u64, u32) = (32, 3_387_268_013);
const REACHED_FIRST_WITH_LEVELS: (u64, u32) = (33, 1_535_834_383);
const REACHED_SECOND_LEVEL: (u64, u32) = (37, 1_508_243_390);
const REACHED_THIRD_LEVEL: (u64, u32) = (54, 4_031_649_270);
const REACHED_FOURTH_LEVEL: (u64, u32) = (92, 4_214_535_182);
const REACHED_SIXTH_LEVEL: (u64, u32) = (104, 1_170_033_253);
const REACHED_NINTH_LEVEL: (u64, u32) = (108, 3_509_169_574);
const REACHED_TENTH_LEVEL: (u64, u32) = (109, 2_600_896_831);
const REACHED_ELEVENTH_LEVEL: (u64, u32) = (114, 246_645_465);
const REACHED: (u64, u32) = (118, 988_773_805);
