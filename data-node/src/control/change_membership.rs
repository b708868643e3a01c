//! One membership step, decided on a membership that is named: another one in the meantime means
//! that somebody else decided too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::raft::Precondition;
use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::change_membership_request::Change;
use tidewater_proto::v1::{ChangeMembershipRequest, ChangeMembershipResponse, Reason};
use tidewater_raft_store::Member;
use tidewater_raft_store::types::{StoredMembership, log_id};

use crate::group::refusals;
use crate::group::replica::GroupReplica;
use crate::groups::Groups;

const DEADLINE: Duration = Duration::from_secs(20);

/// What is to be asked of openraft.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// The membership is already so.
    Nothing,
    /// This change, keeping removed voters as learners or not.
    Change(ChangeMembers<u64, Member>),
}

pub(super) async fn call(
    groups: &Groups,
    request: ChangeMembershipRequest,
) -> Result<ChangeMembershipResponse, Refusal> {
    let group = GroupId(request.group_id);
    let replica = groups.get(group)?;
    replica.require_leader()?;
    let Some(change) = request.change else {
        return Err(Refusal::new(Reason::InvalidArgument, "a membership call names a change"));
    };
    let named = log_id(request.membership_term, request.membership_index);
    let membership = replica.membership();
    if *membership.log_id() != Some(named) {
        return Err(stale(group, &membership));
    }
    if let Change::AddLearner(member) = &change {
        groups.parts().network.addresses().set_if_absent(NodeId(member.node_id), &member.address);
    }
    let step = plan(&membership, change)?;
    let id = match step {
        Step::Nothing => named,
        Step::Change(change) => carry_out(&replica, change, named).await?,
    };
    Ok(ChangeMembershipResponse { membership_term: id.leader_id.term, membership_index: id.index })
}

async fn carry_out(
    replica: &GroupReplica,
    change: ChangeMembers<u64, Member>,
    named: tidewater_raft_store::types::LogId,
) -> Result<tidewater_raft_store::types::LogId, Refusal> {
    let group = replica.group();
    let condition = Precondition::LastMembershipLogId { last_membership_log_id: Some(named) };
    let changed = replica.raft.change_membership_if(change, false, [condition]);
    let response = tokio::time::timeout(DEADLINE, changed)
        .await
        .map_err(|_| refusals::deadline("a membership change", group))?
        .map_err(|error| refusals::raft_refused(group, &error))?;
    Ok(response.log_id)
}

/// What the change comes to on this membership.
pub(super) fn plan(membership: &StoredMembership, change: Change) -> Result<Step, Refusal> {
    let members = membership.membership();
    let is_voter = |id: u64| members.voter_ids().any(|voter| voter == id);
    let is_member = |id: u64| members.get_node(&id).is_some();
    Ok(match change {
        Change::AddLearner(member) if is_member(member.node_id) => Step::Nothing,
        Change::AddLearner(member) => Step::Change(ChangeMembers::AddNodes(BTreeMap::from([(
            member.node_id,
            Member { address: member.address },
        )]))),
        Change::Promote(id) if is_voter(id) => Step::Nothing,
        Change::Promote(id) if !is_member(id) => {
            return Err(Refusal::new(
                Reason::MemberNotFound,
                format!("node {id} is no learner of the group: add it first"),
            ));
        }
        Change::Promote(id) => Step::Change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))),
        Change::Remove(id) if is_voter(id) => {
            Step::Change(ChangeMembers::RemoveVoters(BTreeSet::from([id])))
        }
        Change::Remove(id) if is_member(id) => {
            Step::Change(ChangeMembers::RemoveNodes(BTreeSet::from([id])))
        }
        Change::Remove(_) => Step::Nothing,
    })
}

fn stale(group: GroupId, membership: &StoredMembership) -> Refusal {
    let now = membership.log_id().map_or((0, 0), |id| (id.leader_id.term, id.index));
    Refusal::new(
        Reason::MembershipStale,
        format!(
            "the members of group {group} were changed at term {}, index {}: decide again",
            now.0, now.1
        ),
    )
}
