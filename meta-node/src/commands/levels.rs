//! Feature levels: the level of each command kind, and the raise of the cluster's level.
//!
//! Until the raise is applied, nothing that needs the level is proposed or stored, so that all nodes can
//! return to the release before.

use std::collections::BTreeMap;

use prost::Message;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{BootNumber, NodeId};
use tidewater_proto::v1::change_collections::Change;
use tidewater_proto::v1::read_policy::Policy;
use tidewater_proto::v1::{self, NodeRole, NodeState, meta_command::Kind};

use super::CommandError;
use super::collection_ids::{ALLOCATED_IDS, DROPPED_IDS};
use crate::catalog::{CatalogChange, Header, MetaState, Node};

/// Returns the level that a cluster needs for a command: a release below it cannot apply the command, or would
/// apply it in another way.
pub(crate) fn command_level(kind: &Kind) -> FeatureLevel {
    kind_level(kind).max(fields_level(kind))
}

/// Returns the level of a kind of command. No wildcard: a new kind needs a decision, and a level above those that exist.
fn kind_level(kind: &Kind) -> FeatureLevel {
    match kind {
        // A raise leaves the level below, so that levels are raised one at a time. The nodes that
        // support the level apply it.
        Kind::RaiseFeatureLevel(raise) => FeatureLevel::new(raise.level).previous(),
        Kind::RecordObservations(_) | Kind::StepHook(_) => FeatureLevel::new(2),
        Kind::BeginProcedure(_) | Kind::AdvanceProcedure(_) | Kind::AbandonProcedure(_) => {
            FeatureLevel::new(3)
        }
        Kind::ReserveTable(_)
        | Kind::SaveRoutes(_)
        | Kind::SetNodeDraining(_)
        | Kind::RemoveNode(_)
        | Kind::SetGroupRetiring(_)
        | Kind::RetireGroup(_)
        | Kind::SetBalance(_)
        | Kind::ReplaceMetaMember(_)
        | Kind::EndMemberReplacement(_) => FeatureLevel::new(4),
        Kind::AlterRefresh(_) => FeatureLevel::new(6),
        Kind::ChangeCollections(_) => FeatureLevel::COLLECTIONS,
        Kind::AllocateIds(_) | Kind::CreateCollections(_) => ALLOCATED_IDS,
        Kind::DropCollections(_) => DROPPED_IDS,
        Kind::Bootstrap(_)
        | Kind::RegisterNode(_)
        | Kind::UpdateNode(_)
        | Kind::SetNodeState(_)
        | Kind::CreateGroup(_)
        | Kind::ActivateGroup(_)
        | Kind::AbandonGroup(_)
        | Kind::ReportGroup(_)
        | Kind::CreateTable(_)
        | Kind::ActivateTable(_)
        | Kind::BeginDropTable(_)
        | Kind::FinishDropTable(_)
        | Kind::AdvanceTime(_)
        | Kind::Bench(_)
        | Kind::BeginAlterTable(_)
        | Kind::BeginTruncateTable(_)
        | Kind::FinishTableChange(_)
        | Kind::CloneTable(_)
        | Kind::BeginLoad(_)
        | Kind::LoadOpened(_)
        | Kind::EndLoad(_)
        | Kind::ExpireLoad(_)
        | Kind::AddHook(_)
        | Kind::SetHookPaused(_)
        | Kind::RemoveHook(_)
        | Kind::AdvanceCursors(_) => FeatureLevel::FIRST,
    }
}

/// Returns the level of the fields of a command that change its effect: a release below it would ignore them, and its
/// replicas would differ.
fn fields_level(kind: &Kind) -> FeatureLevel {
    let has_options = match kind {
        Kind::CreateTable(request) => has_event_options(request),
        Kind::ReserveTable(request) => request.definition.as_ref().is_some_and(has_event_options),
        Kind::BeginAlterTable(request) => request.compaction_window_ms.is_some(),
        Kind::BeginProcedure(begin) if begin.kind == v1::ProcedureKind::Create as u32 => {
            v1::CreateTableRequest::decode(begin.arguments.clone())
                .is_ok_and(|request| has_event_options(&request))
        }
        Kind::BeginProcedure(begin) if begin.kind == v1::ProcedureKind::Alter as u32 => {
            v1::AlterTableRequest::decode(begin.arguments.clone())
                .is_ok_and(|request| request.compaction_window_ms.is_some())
        }
        _ => false,
    };
    if needs_held_drops(kind) {
        return FeatureLevel::HELD_DROPS;
    }
    if sets_explicit_since(kind) {
        return FeatureLevel::COLLECTIONS;
    }
    match kind {
        Kind::ChangeCollections(command) if changes_exports(command) => FeatureLevel::EXPORTS,
        Kind::RecordObservations(observed) if !observed.observed_nodes.is_empty() => {
            FeatureLevel::EXACT_EVENTS
        }
        _ if has_options => FeatureLevel::EVENT_TABLES,
        _ => FeatureLevel::FIRST,
    }
}

/// Returns whether a command sets the table option `explicit_since`.
fn sets_explicit_since(kind: &Kind) -> bool {
    match kind {
        Kind::BeginAlterTable(request) => request.explicit_since,
        Kind::BeginProcedure(begin) if begin.kind == v1::ProcedureKind::Alter as u32 => {
            v1::AlterTableRequest::decode(begin.arguments.clone())
                .is_ok_and(|request| request.explicit_since)
        }
        _ => false,
    }
}

/// Returns whether a command drops a table by its id, or sets the empty read policy.
fn needs_held_drops(kind: &Kind) -> bool {
    match kind {
        Kind::BeginDropTable(request) => request.table_id != 0,
        Kind::BeginProcedure(begin) if begin.kind == v1::ProcedureKind::Drop as u32 => {
            v1::DropTableRequest::decode(begin.arguments.clone())
                .is_ok_and(|request| request.table_id != 0)
        }
        Kind::ChangeCollections(command) => {
            let Some(Change::Policy(request)) = &command.change else { return false };
            let policy = request.policy.as_ref().and_then(|wire| wire.policy.as_ref());
            matches!(policy, Some(Policy::Empty(_)))
        }
        _ => false,
    }
}

/// Returns whether a command creates, records or drops an export.
fn changes_exports(command: &v1::ChangeCollections) -> bool {
    matches!(
        command.change,
        Some(Change::CreateExport(_) | Change::RecordExport(_) | Change::DropExport(_))
    )
}

/// Returns whether a definition has the table options `compaction_window` or `holds_events`.
fn has_event_options(definition: &v1::CreateTableRequest) -> bool {
    definition.compaction_window_ms.is_some() || definition.holds_events
}

/// Raises the level by one. Repeated raises, also of two leaders, change nothing, and the level never falls.
///
/// The command names the nodes that its leader has asked. A node that has registered or started since, or a
/// member that was added, is not among them, and the raise is rejected: the next one names it.
pub(super) fn raise(
    state: &MetaState,
    command: &v1::RaiseFeatureLevel,
) -> Result<CatalogChange, CommandError> {
    let level = FeatureLevel::new(command.level);
    if level <= state.header().feature_level {
        return Ok(CatalogChange::default());
    }
    let supporting: BTreeMap<NodeId, BootNumber> =
        command.nodes.iter().map(|node| (NodeId(node.node_id), BootNumber(node.boot))).collect();
    let missing = state
        .nodes()
        .find(|node| must_support(state, node) && supporting.get(&node.id) != Some(&node.boot));
    if let Some(node) = missing {
        return Err(CommandError::LevelNotSupported { level, node: node.id });
    }
    // The last check: other replicas may apply the raise, so this release must stop. A raise that all replicas
    // reject stops none of them.
    if level > FeatureLevel::HIGHEST {
        return Err(CommandError::LevelAboveRelease(level));
    }
    let header = Header { feature_level: level, ..state.header().clone() };
    Ok(CatalogChange { header: Some(header), ..CatalogChange::default() })
}

/// Returns whether the level must not be raised above the levels that a node supports.
///
/// All members of the meta group, and all data nodes and compactors that are up. A data node that is down
/// counts while it has replicas, since its group may need them. Any other node that is down is
/// refused when it registers again, if it does not support the level.
///
/// All releases must decide alike, also on raises to levels that they do not support: this is frozen.
pub(crate) fn must_support(state: &MetaState, node: &Node) -> bool {
    match (node.state, node.role) {
        (NodeState::Removed, _) => false,
        (_, NodeRole::Meta) | (NodeState::Up, _) => true,
        (_, NodeRole::Data) => state.live_groups().any(|group| group.replicas().contains(&node.id)),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
