//! Data groups: made with a fixed first membership, activated or given up, reported on.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_common::ids::{GroupId, LogIndex, NodeId, Term};
use tidewater_proto::v1::{self, GroupState, NodeRole, NodeState};

use super::{CommandError, Reply};
use crate::catalog::{Change, Group, Header, MetaState};

const MOST_FIRST_MEMBERS: usize = 7;

pub(super) fn create(
    state: &MetaState,
    command: &v1::CreateGroup,
) -> Result<(Reply, Change), CommandError> {
    let first_members: Vec<NodeId> = command.first_members.iter().copied().map(NodeId).collect();
    check_first_members(state, &first_members)?;
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
    let change = Change { header: Some(header), groups: vec![group], ..Change::default() };
    Ok((Reply::Group(id), change))
}

fn check_first_members(state: &MetaState, members: &[NodeId]) -> Result<(), CommandError> {
    let refuse = |problem: String| Err(CommandError::FirstMembers(problem));
    if !(1..=MOST_FIRST_MEMBERS).contains(&members.len()) {
        return refuse(format!("1 to {MOST_FIRST_MEMBERS} are needed, not {}", members.len()));
    }
    let mut seen = BTreeSet::new();
    for id in members {
        let up = state
            .node(*id)
            .is_some_and(|node| node.role == NodeRole::Data && node.state == NodeState::Up);
        if !up {
            return refuse(format!("node {id} is no data node that is up"));
        }
        if !seen.insert(id) {
            return refuse(format!("node {id} is named twice"));
        }
    }
    Ok(())
}

pub(super) fn activate(
    state: &MetaState,
    command: &v1::ActivateGroup,
) -> Result<Change, CommandError> {
    step(state, GroupId(command.group_id), GroupState::Active)
}

pub(super) fn abandon(
    state: &MetaState,
    command: &v1::AbandonGroup,
) -> Result<Change, CommandError> {
    step(state, GroupId(command.group_id), GroupState::Abandoned)
}

/// From creating to active or abandoned, once; the same step again changes nothing.
fn step(state: &MetaState, id: GroupId, to: GroupState) -> Result<Change, CommandError> {
    let group = found(state, id)?;
    if group.state == to {
        return Ok(Change::default());
    }
    if group.state != GroupState::Creating {
        return Err(CommandError::GroupState { group: id, state: group.state });
    }
    let group = Group { state: to, ..group.as_ref().clone() };
    Ok(Change { groups: vec![group], ..Change::default() })
}

fn found(state: &MetaState, id: GroupId) -> Result<&Arc<Group>, CommandError> {
    state.group(id).ok_or(CommandError::GroupNotFound(id))
}

pub(super) fn report(state: &MetaState, command: &v1::ReportGroup) -> Result<Change, CommandError> {
    let id = GroupId(command.group_id);
    let known = found(state, id)?;
    if known.state == GroupState::Abandoned {
        return Err(CommandError::GroupState { group: id, state: known.state });
    }
    let voters: BTreeSet<NodeId> = command.voters.iter().copied().map(NodeId).collect();
    let learners: BTreeSet<NodeId> = command.learners.iter().copied().map(NodeId).collect();
    if voters.is_empty() || command.leader == 0 || !voters.is_disjoint(&learners) {
        return Err(CommandError::BadReport(id));
    }
    let membership = (Term(command.membership_term), LogIndex(command.membership_index));
    if Term(command.term) < known.leader_term || membership < known.membership {
        return Err(CommandError::StaleReport(id));
    }
    let group = Group {
        voters,
        learners,
        membership,
        leader: Some(NodeId(command.leader)),
        leader_term: Term(command.term),
        ..known.as_ref().clone()
    };
    if group == **known {
        return Ok(Change::default());
    }
    Ok(Change { groups: vec![group], ..Change::default() })
}
