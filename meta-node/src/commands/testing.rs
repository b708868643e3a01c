//! Builders of commands and states for tests.

use std::collections::BTreeMap;

use tidewater_common::feature_level::{FeatureLevel, Release};
use tidewater_common::ids::{NodeId, Term};
use tidewater_proto::v1::{self, meta_command::Kind};
use uuid::Uuid;

use super::{CommandError, CommandReply, apply, members_change};
use crate::catalog::{ChangeEffects, MetaState, digest};

pub(crate) const CLUSTER: &str = "018f0000-0000-7000-8000-000000000001";

/// A command that is valid in any term.
pub(crate) fn command(kind: Kind) -> v1::MetaCommand {
    v1::MetaCommand { feature_level: 1, kind: Some(kind), ..v1::MetaCommand::default() }
}

/// Name of a command kind. No wildcard: a new kind needs a line in the golden file.
pub(crate) fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bootstrap(_) => "bootstrap",
        Kind::RegisterNode(_) => "register_node",
        Kind::UpdateNode(_) => "update_node",
        Kind::SetNodeState(_) => "set_node_state",
        Kind::CreateGroup(_) => "create_group",
        Kind::ActivateGroup(_) => "activate_group",
        Kind::AbandonGroup(_) => "abandon_group",
        Kind::ReportGroup(_) => "report_group",
        Kind::CreateTable(_) => "create_table",
        Kind::ActivateTable(_) => "activate_table",
        Kind::BeginDropTable(_) => "begin_drop_table",
        Kind::FinishDropTable(_) => "finish_drop_table",
        Kind::BeginAlterTable(_) => "begin_alter_table",
        Kind::BeginTruncateTable(_) => "begin_truncate_table",
        Kind::FinishTableChange(_) => "finish_table_change",
        Kind::AdvanceTime(_) => "advance_time",
        Kind::Bench(_) => "bench",
        Kind::AddHook(_) => "add_hook",
        Kind::SetHookPaused(_) => "set_hook_paused",
        Kind::RemoveHook(_) => "remove_hook",
        Kind::AdvanceCursors(_) => "advance_cursors",
        Kind::CloneTable(_) => "clone_table",
        Kind::BeginLoad(_) => "begin_load",
        Kind::LoadOpened(_) => "load_opened",
        Kind::ExpireLoad(_) => "expire_load",
        Kind::EndLoad(_) => "end_load",
        Kind::RaiseFeatureLevel(_) => "raise_feature_level",
        Kind::RecordObservations(_) => "record_observations",
        Kind::StepHook(_) => "step_hook",
        Kind::BeginProcedure(_) => "begin_procedure",
        Kind::AdvanceProcedure(_) => "advance_procedure",
        Kind::AbandonProcedure(_) => "abandon_procedure",
        Kind::ReserveTable(_) => "reserve_table",
        Kind::SaveRoutes(_) => "save_routes",
        Kind::SetNodeDraining(_) => "set_node_draining",
        Kind::RemoveNode(_) => "remove_node",
        Kind::SetGroupRetiring(_) => "set_group_retiring",
        Kind::RetireGroup(_) => "retire_group",
        Kind::SetBalance(_) => "set_balance",
        Kind::ReplaceMetaMember(_) => "replace_meta_member",
        Kind::EndMemberReplacement(_) => "end_member_replacement",
        Kind::AlterRefresh(_) => "alter_refresh",
        Kind::ChangeCollections(_) => "change_collections",
        Kind::AllocateIds(_) => "allocate_ids",
        Kind::CreateCollections(_) => "create_collections",
        Kind::DropCollections(_) => "drop_collections",
    }
}

/// Stored rows, maintained only by the row writes of commands.
#[derive(Debug, PartialEq)]
pub(crate) struct StoredRows(BTreeMap<Vec<u8>, Vec<u8>>);

impl StoredRows {
    pub(crate) fn of(state: &MetaState) -> Self {
        Self(state.rows().unwrap().into_iter().collect())
    }

    pub(crate) fn write(&mut self, effects: ChangeEffects) {
        for (key, bytes) in effects.rows {
            match bytes {
                Some(bytes) => drop(self.0.insert(key, bytes)),
                None => drop(self.0.remove(&key)),
            }
        }
    }
}

/// Applies a command in term 1. Asserts that a rejected command changes nothing.
pub(crate) fn run(state: &mut MetaState, kind: Kind) -> Result<CommandReply, CommandError> {
    run_command(state, command(kind))
}

pub(crate) fn run_command(
    state: &mut MetaState,
    command: v1::MetaCommand,
) -> Result<CommandReply, CommandError> {
    let before = state.clone();
    let result = apply(state, Term(1), command).map(|(reply, _)| reply);
    if result.is_err() {
        assert_eq!(*state, before);
        assert_eq!(digest(state), digest(&before));
    }
    state.verify().unwrap();
    result
}

pub(crate) fn bootstrapped() -> MetaState {
    let mut state = MetaState::default();
    let bootstrap = v1::BootstrapCluster { cluster_id: CLUSTER.into(), now_ms: 1_000 };
    run(&mut state, Kind::Bootstrap(bootstrap)).unwrap();
    state
}

/// Records the members of the meta group, as a membership entry does.
pub(crate) fn set_members(state: &mut MetaState, ids: &[u64]) {
    let address = |id: &u64| format!("meta-{id}:1");
    let members = ids.iter().map(|id| (NodeId(*id), address(id))).collect();
    let prepared = state.prepare(members_change(state, &members)).unwrap();
    state.absorb(prepared);
}

/// Advances replicated time, one second at a time.
pub(crate) fn pass(state: &mut MetaState, seconds: u64) {
    for _ in 0..seconds {
        let now_ms = state.header().time_ms + 1_000;
        run(state, Kind::AdvanceTime(v1::AdvanceTime { now_ms, agreed_ms: 0 })).unwrap();
    }
}

pub(crate) fn directory(number: u64) -> String {
    Uuid::from_u128(u128::from(number)).to_string()
}

pub(crate) fn registration(number: u64) -> v1::RegisterNode {
    v1::RegisterNode {
        directory_id: directory(number),
        role: v1::NodeRole::Data.into(),
        address: format!("127.0.0.1:{}", 7_000 + number),
        cluster_id: String::new(),
        node_id: 0,
        object_store_id: "store".into(),
        boot: 0,
        start_id: String::new(),
        release: Some((&Release::own()).into()),
    }
}

/// Registration of a compactor with directory `number`, at an address with the number `at`.
pub(crate) fn compactor(number: u64, at: u64) -> v1::RegisterNode {
    v1::RegisterNode {
        role: v1::NodeRole::Compactor.into(),
        address: format!("127.0.0.1:{}", 8_000 + at),
        ..registration(number)
    }
}

/// A cluster with data nodes 101, 102, ... and no group.
pub(crate) fn with_nodes(count: u64) -> MetaState {
    let mut state = bootstrapped();
    for number in 1..=count {
        run(&mut state, Kind::RegisterNode(registration(number))).unwrap();
    }
    state
}

/// A cluster with data nodes 101, 102, ... and active groups on all of them.
pub(crate) fn with_groups(nodes: u64, groups: u64) -> MetaState {
    let mut state = with_nodes(nodes);
    for group in 1..=groups {
        let first_members = (101..101 + nodes).collect();
        run(&mut state, Kind::CreateGroup(v1::CreateGroup { first_members, home_groups: 0 }))
            .unwrap();
        run(&mut state, Kind::ActivateGroup(v1::ActivateGroup { group_id: group })).unwrap();
    }
    state
}

pub(crate) fn table(request: u64, name: &str) -> v1::CreateTableRequest {
    let column = |name: &str, kind: &str| v1::NewColumn {
        name: name.into(),
        r#type: kind.into(),
        nullable: true,
        default: None,
    };
    v1::CreateTableRequest {
        request_id: directory(request),
        name: name.into(),
        columns: vec![column("a", "utf8"), column("b", "int64"), column("t", "timestamp(ms)")],
        primary_key: vec!["a".into(), "b".into()],
        time_column: None,
        write_mode: v1::WriteMode::Upsert.into(),
        hash_columns: vec![],
        vnode_count: 0,
        regions: 0,
        ttl_ms: None,
        refresh: None,
        compaction_window_ms: None,
        holds_events: false,
    }
}

pub(crate) fn drop_table(request: u64, name: &str) -> Kind {
    Kind::BeginDropTable(v1::DropTableRequest {
        request_id: directory(request),
        name: name.into(),
        table_id: 0,
    })
}

/// A state with one record of every kind.
pub(crate) fn one_of_each() -> MetaState {
    let mut state = with_groups(2, 1);
    let hashed = v1::CreateTableRequest {
        hash_columns: vec!["a".into()],
        time_column: Some("t".into()),
        ttl_ms: Some(9),
        regions: 2,
        ..table(1, "t")
    };
    run(&mut state, Kind::CreateTable(hashed)).unwrap();
    run(&mut state, Kind::CreateTable(table(2, "u"))).unwrap();
    run(&mut state, drop_table(3, "u")).unwrap();
    let learners = vec![102];
    let report = v1::ReportGroup { learners, membership_index: 7, ..report(1, 2, 101) };
    run(&mut state, Kind::ReportGroup(report)).unwrap();
    state
}

/// Raises the feature level by a leader that has asked these nodes, with the numbers of their starts.
pub(crate) fn raise(state: &mut MetaState, level: u32, nodes: &[(NodeId, u64)]) {
    let nodes = nodes.iter();
    let nodes = nodes.map(|(node, boot)| v1::SupportingNode { node_id: node.get(), boot: *boot });
    let nodes = nodes.collect();
    run(state, Kind::RaiseFeatureLevel(v1::RaiseFeatureLevel { level, nodes })).unwrap();
}

/// Raises the feature level to that of this release. All nodes support it.
pub(crate) fn raise_to_highest(state: &mut MetaState) {
    raise_to(state, FeatureLevel::HIGHEST);
}

/// Raises the feature level to this one. All nodes support it.
pub(crate) fn raise_to(state: &mut MetaState, highest: FeatureLevel) {
    let nodes: Vec<_> = state.nodes().map(|node| (node.id, node.boot.get())).collect();
    for level in state.header().feature_level.get() + 1..=highest.get() {
        raise(state, level, &nodes);
    }
}

/// Addition of a durable hook on all tables, which starts with the next version.
pub(crate) fn durable_hook(request: u64, name: &str) -> v1::AddHookRequest {
    v1::AddHookRequest {
        request_id: directory(request),
        name: name.into(),
        kind: "jsonl".into(),
        config: "{}".into(),
        durable: true,
        ..v1::AddHookRequest::default()
    }
}

/// Report of a leader that is the only voter.
pub(crate) fn report(group_id: u64, term: u64, leader: u64) -> v1::ReportGroup {
    v1::ReportGroup {
        group_id,
        term,
        leader,
        voters: vec![leader],
        learners: Vec::new(),
        membership_term: term,
        membership_index: term,
        replaces_term: None,
    }
}

/// The catalog of a state, without the facts that stored deltas lack.
pub(crate) fn catalog_of(state: &MetaState) -> v1::CatalogSnapshot {
    let header = state.header();
    v1::CatalogSnapshot {
        cluster_id: header.cluster_id.map_or_else(String::new, |id| id.to_string()),
        incarnation: header.incarnation.get(),
        revision: header.revision.get(),
        catalog_version: state.catalog_version().get(),
        tables: state.tables().map(|table| table.as_ref().into()).collect(),
        routes: state.routes_by_start().map(|route| route.as_ref().into()).collect(),
        groups: state.groups().map(|group| group.as_ref().into()).collect(),
        nodes: state.nodes().map(|node| node.as_ref().into()).collect(),
        hooks: state.hooks().map(|hook| hook.as_ref().into()).collect(),
        has_table_changes: false,
        next_route_id: 0,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}
