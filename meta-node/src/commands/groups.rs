//! Data groups: creation with a fixed first membership, activation or abandonment, reports.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_common::ids::{GroupId, LogIndex, NodeId, Term};
use tidewater_proto::v1::{self, GroupState, NodeRole, NodeState};

use super::{CommandError, CommandReply, Rules};
use crate::catalog::{CatalogChange, Group, Header, MetaState};

const MAX_FIRST_MEMBERS: usize = 7;

pub(super) fn create(
    state: &MetaState,
    command: &v1::CreateGroup,
    rules: Rules,
) -> Result<(CommandReply, CatalogChange), CommandError> {
    let first_members: Vec<NodeId> = command.first_members.iter().copied().map(NodeId).collect();
    check_first_members(state, &first_members)?;
    if rules.has_unique_homes() {
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
    };
    let change =
        CatalogChange { header: Some(header), groups: vec![group], ..CatalogChange::default() };
    Ok((CommandReply::Group(id), change))
}

/// Rejects a second group of the same home. The leader plans a group again when the first command was
/// committed after its deadline.
fn check_home(state: &MetaState, first_members: &[NodeId]) -> Result<(), CommandError> {
    let is_live = |group: &&Arc<Group>| group.state != GroupState::Abandoned;
    let same_home = |group: &&Arc<Group>| group.first_members.first() == first_members.first();
    match (first_members.first(), state.groups().filter(is_live).find(same_home)) {
        (Some(home), Some(group)) => Err(CommandError::HomeTaken { home: *home, group: group.id }),
        _ => Ok(()),
    }
}

fn check_first_members(state: &MetaState, members: &[NodeId]) -> Result<(), CommandError> {
    let refuse = |problem: String| Err(CommandError::FirstMembers(problem));
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
        return Err(CommandError::GroupState { group: id, state: group.state });
    }
    let group = Group { state: to, ..group.as_ref().clone() };
    Ok(CatalogChange { groups: vec![group], ..CatalogChange::default() })
}

fn find_group(state: &MetaState, id: GroupId) -> Result<&Arc<Group>, CommandError> {
    state.group(id).ok_or(CommandError::GroupNotFound(id))
}

pub(super) fn report(
    state: &MetaState,
    command: &v1::ReportGroup,
) -> Result<CatalogChange, CommandError> {
    let id = GroupId(command.group_id);
    let known = find_group(state, id)?;
    if known.state == GroupState::Abandoned {
        return Err(CommandError::GroupState { group: id, state: known.state });
    }
    let voters: BTreeSet<NodeId> = command.voters.iter().copied().map(NodeId).collect();
    let learners: BTreeSet<NodeId> = command.learners.iter().copied().map(NodeId).collect();
    if voters.is_empty() || command.leader == 0 || !voters.is_disjoint(&learners) {
        return Err(CommandError::BadReport(id));
    }
    let corrects = command.replaces_term == Some(known.leader_term.get());
    if Term(command.term) < known.leader_term && !corrects {
        return Err(CommandError::StaleReport(id));
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
