//! Data groups: creation with a fixed first membership, activation or abandonment, reports, retirement.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_common::ids::{GroupId, LogIndex, NodeId, Term};
use tidewater_proto::v1::{self, GroupState, NodeRole, NodeState};

use super::{CommandError, CommandReply, GroupCommandError, Rules};
use crate::catalog::{CatalogChange, Group, Header, MetaState, Table};

const MAX_FIRST_MEMBERS: usize = 7;

pub(super) fn create(
    state: &MetaState,
    command: &v1::CreateGroup,
    rules: Rules,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let first_members: Vec<NodeId> = command.first_members.iter().copied().map(NodeId).collect();
    check_first_members(state, &first_members)?;
    if rules.has_counted_homes() {
        check_home_groups(state, &first_members, command.home_groups)?;
        check_staying(state, &first_members)?;
    } else if rules.has_unique_homes() {
        check_home(state, &first_members)?;
    }
    let id = state.header().next_group_id;
    let next = id.get().checked_add(1).ok_or(CommandError::IdsUsedUp("group"))?;
    let header = Header { next_group_id: GroupId(next), ..state.header().clone() };
    let group = Group {
        id,
        state: GroupState::Creating,
        first_members,
        voters: BTreeSet::new(),
        learners: BTreeSet::new(),
        membership: (Term(0), LogIndex(0)),
        leader: None,
        leader_term: Term(0),
        retiring: false,
    };
    let change =
        CatalogChange { header: Some(header), groups: vec![group], ..CatalogChange::default() };
    Ok((CommandReply::Group(id), change))
}

/// Rejects a second group of the same home. The leader plans a group again when the first command was
/// committed after its deadline.
fn check_home(state: &MetaState, first_members: &[NodeId]) -> Result<(), CommandError> {
    let Some(home) = first_members.first() else { return Ok(()) };
    match state.live_groups().find(|group| group.home() == Some(*home)) {
        Some(group) => {
            Err(CommandError::Group(GroupCommandError::HomeTaken { home: *home, group: group.id }))
        }
        None => Ok(()),
    }
}

/// Rejects a group whose home has got another one, or lost one, since the leader has decided.
fn check_home_groups(
    state: &MetaState,
    first_members: &[NodeId],
    expected: u32,
) -> Result<(), CommandError> {
    let Some(home) = first_members.first() else { return Ok(()) };
    let known = state.live_groups().filter(|group| group.home() == Some(*home)).count();
    match usize::try_from(expected) {
        Ok(expected) if expected == known => Ok(()),
        _ => {
            Err(CommandError::Group(GroupCommandError::HomeGroups { home: *home, expected, known }))
        }
    }
}

/// Rejects a group with a replica on a node that drains: its drain would end too early.
fn check_staying(state: &MetaState, first_members: &[NodeId]) -> Result<(), CommandError> {
    let drains = |id: &&NodeId| state.node(**id).is_some_and(|node| node.draining);
    match first_members.iter().find(drains) {
        Some(node) => Err(CommandError::Group(GroupCommandError::FirstMembers(format!(
            "node {node} is draining"
        )))),
        None => Ok(()),
    }
}

fn check_first_members(state: &MetaState, members: &[NodeId]) -> Result<(), CommandError> {
    let refuse =
        |problem: String| Err(CommandError::Group(GroupCommandError::FirstMembers(problem)));
    if !(1..=MAX_FIRST_MEMBERS).contains(&members.len()) {
        return refuse(format!("{} members (1 to {MAX_FIRST_MEMBERS})", members.len()));
    }
    let mut seen = BTreeSet::new();
    for id in members {
        let up = state
            .node(*id)
            .is_some_and(|node| node.role == NodeRole::Data && node.state == NodeState::Up);
        if !up {
            return refuse(format!("node {id} is not a data node that is up"));
        }
        if !seen.insert(id) {
            return refuse(format!("node {id} is listed twice"));
        }
    }
    Ok(())
}

pub(super) fn activate(
    state: &MetaState,
    command: &v1::ActivateGroup,
) -> Result<CatalogChange, CommandError> {
    finish_creation(state, GroupId(command.group_id), GroupState::Active)
}

pub(super) fn abandon(
    state: &MetaState,
    command: &v1::AbandonGroup,
) -> Result<CatalogChange, CommandError> {
    finish_creation(state, GroupId(command.group_id), GroupState::Abandoned)
}

/// Ends the creation of a group: active or abandoned. A repeated command changes nothing.
fn finish_creation(
    state: &MetaState,
    id: GroupId,
    to: GroupState,
) -> Result<CatalogChange, CommandError> {
    let group = find_group(state, id)?;
    if group.state == to {
        return Ok(CatalogChange::default());
    }
    if group.state != GroupState::Creating {
        return Err(GroupCommandError::GroupState { group: id, state: group.state }.into());
    }
    let group = Group { state: to, ..group.as_ref().clone() };
    Ok(CatalogChange { groups: vec![group], ..CatalogChange::default() })
}

/// Marks a group as retiring, or takes that back.
pub(super) fn set_retiring(
    state: &MetaState,
    command: &v1::SetGroupRetiring,
) -> Result<CatalogChange, CommandError> {
    let group = find_group(state, GroupId(command.group_id))?;
    if group.state != GroupState::Active {
        return Err(GroupCommandError::GroupState { group: group.id, state: group.state }.into());
    }
    if group.retiring == command.retiring {
        return Ok(CatalogChange::default());
    }
    if command.retiring && !state.open_groups().any(|(open, _)| open != group.id) {
        return Err(GroupCommandError::LastGroup(group.id).into());
    }
    let group = Group { retiring: command.retiring, ..group.as_ref().clone() };
    Ok(CatalogChange { groups: vec![group], ..CatalogChange::default() })
}

/// Retires a retiring group without regions. A repeated command changes nothing.
pub(super) fn retire(
    state: &MetaState,
    command: &v1::RetireGroup,
) -> Result<CatalogChange, CommandError> {
    let group = find_group(state, GroupId(command.group_id))?;
    if group.state == GroupState::Retired {
        return Ok(CatalogChange::default());
    }
    if group.state != GroupState::Active || !group.retiring {
        return Err(GroupCommandError::GroupState { group: group.id, state: group.state }.into());
    }
    if has_regions(state, group.id) {
        return Err(GroupCommandError::GroupInUse(group.id).into());
    }
    let group = Group { state: GroupState::Retired, ..group.as_ref().clone() };
    Ok(CatalogChange { groups: vec![group], ..CatalogChange::default() })
}

/// Returns whether a group has regions, is about to receive one, or has dropped ones that are not closed yet.
pub(crate) fn has_regions(state: &MetaState, group: GroupId) -> bool {
    let drops = |table: &Arc<Table>| table.dropping.iter().any(|region| region.group_id == group);
    state.routes_in(group) > 0
        || state.tables_in_progress().any(drops)
        || state.procedures().running().any(|procedure| procedure.receiver() == Some(group))
}

fn find_group(state: &MetaState, id: GroupId) -> Result<&Arc<Group>, CommandError> {
    state.group(id).ok_or(CommandError::Group(GroupCommandError::GroupNotFound(id)))
}

pub(super) fn report(
    state: &MetaState,
    command: &v1::ReportGroup,
) -> Result<CatalogChange, CommandError> {
    let id = GroupId(command.group_id);
    let known = find_group(state, id)?;
    if !known.is_live() {
        return Err(GroupCommandError::GroupState { group: id, state: known.state }.into());
    }
    let voters: BTreeSet<NodeId> = command.voters.iter().copied().map(NodeId).collect();
    let learners: BTreeSet<NodeId> = command.learners.iter().copied().map(NodeId).collect();
    if voters.is_empty() || command.leader == 0 || !voters.is_disjoint(&learners) {
        return Err(GroupCommandError::BadReport(id).into());
    }
    let corrects = command.replaces_term == Some(known.leader_term.get());
    if Term(command.term) < known.leader_term && !corrects {
        return Err(GroupCommandError::StaleReport(id).into());
    }
    let membership = (Term(command.membership_term), LogIndex(command.membership_index));
    let mut group = Group {
        leader: Some(NodeId(command.leader)),
        leader_term: Term(command.term),
        ..known.as_ref().clone()
    };
    // A new leader may not know yet that the last membership is committed.
    if membership >= known.membership || corrects {
        group = Group { voters, learners, membership, ..group };
    }
    if group == **known {
        return Ok(CatalogChange::default());
    }
    Ok(CatalogChange { groups: vec![group], ..CatalogChange::default() })
}
