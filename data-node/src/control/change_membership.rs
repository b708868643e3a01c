//! One membership change, based on the membership that the caller names: if the group's membership
//! differs, another caller has changed it and the call is refused. A repeated call completes a
//! change that is between its two steps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use tidewater_common::agreed_limits::REPLICAS_PER_GROUP;
use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::change_membership_request::Change;
use tidewater_proto::v1::{ChangeMembershipRequest, ChangeMembershipResponse, Reason};
use tidewater_raft_store::types::{LogId, StoredMembership, log_id};
use tidewater_raft_store::{Member, membership};

use crate::group::refusals;
use crate::group::replica::GroupReplica;
use crate::groups::Groups;

const DEADLINE: Duration = Duration::from_secs(20);
/// Maximum lag, in log entries, of a learner that is promoted. More than that of a heartbeat that
/// reports it as caught up: the log grows until the call arrives.
const PROMOTION_LAG: u64 = 10_000;

/// Next step of a membership change.
#[derive(Debug, PartialEq)]
pub(super) enum MembershipStep {
    /// The membership already has the requested change.
    Nothing,
    /// Change to request from openraft next.
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
    let seen = replica.membership();
    if *seen.log_id() != Some(named) {
        return Err(stale(group, &seen));
    }
    if let Change::AddLearner(member) = &change {
        groups.context().network.addresses().set_if_absent(NodeId(member.node_id), &member.address);
    }
    if let Change::Promote(node) = &change {
        check_caught_up(&replica, &seen, *node)?;
    }
    if let Change::Remove(node) = &change {
        check_removal(&seen, *node, groups.context().catalog.is_up(*node))?;
    }
    let next = plan(&seen, change)?;
    let id = match next {
        MembershipStep::Nothing => named,
        MembershipStep::Change(change) => apply_change(&replica, change, named).await?,
    };
    Ok(ChangeMembershipResponse { membership_term: id.leader_id.term, membership_index: id.index })
}

/// Refuses to promote a learner that has not received the group's log: a voter that never answers can
/// cost the group its quorum.
fn check_caught_up(
    replica: &GroupReplica,
    seen: &StoredMembership,
    node: u64,
) -> Result<(), Refusal> {
    let is_learner = seen.membership().learner_ids().any(|id| id == node);
    if is_learner && !replica.caught_up(PROMOTION_LAG).contains(&NodeId(node)) {
        let group = replica.group();
        let text = format!("node {node} has yet to receive the log of group {group}");
        return Err(
            Refusal::new(Reason::MembershipBusy, text).retry_after(Duration::from_millis(500))
        );
    }
    Ok(())
}

/// Refuses to remove a voter that is up and that the group needs: the meta leader removes voters whose
/// nodes are lost, and those above the number of replicas.
pub(super) fn check_removal(
    seen: &StoredMembership,
    node: u64,
    is_up: bool,
) -> Result<(), Refusal> {
    let voters = membership::future_voters(seen.membership());
    if is_up && voters.contains(&node) && voters.len() <= REPLICAS_PER_GROUP {
        let text = format!("node {node} is up, and the group has only {} voters", voters.len());
        return Err(Refusal::new(Reason::InvalidArgument, text));
    }
    Ok(())
}

async fn apply_change(
    replica: &GroupReplica,
    change: ChangeMembers<u64, Member>,
    named: LogId,
) -> Result<LogId, Refusal> {
    let group = replica.group();
    tokio::time::timeout(DEADLINE, membership::change(&replica.raft, change, Some(named)))
        .await
        .map_err(|_| refusals::deadline_exceeded("a membership change", group))?
        .map_err(|error| refusals::raft_error(group, &error))
}

/// Determines the step that makes the requested change to this membership.
pub(super) fn plan(seen: &StoredMembership, change: Change) -> Result<MembershipStep, Refusal> {
    let members = seen.membership();
    let is_voter = |id: u64| members.voter_ids().any(|voter| voter == id);
    let stays_voter = |id: u64| membership::future_voters(members).contains(&id);
    let is_member = |id: u64| members.get_node(&id).is_some();
    // A change that is already made is final only once the membership is no longer joint.
    let done = || {
        if membership::is_joint(members) {
            MembershipStep::Change(membership::leave_joint())
        } else {
            MembershipStep::Nothing
        }
    };
    Ok(match change {
        Change::AddLearner(member) if is_member(member.node_id) => done(),
        Change::AddLearner(member) => MembershipStep::Change(ChangeMembers::AddNodes(
            BTreeMap::from([(member.node_id, Member { address: member.address })]),
        )),
        Change::Promote(id) if stays_voter(id) => done(),
        Change::Promote(id) if !is_member(id) => {
            return Err(Refusal::new(
                Reason::MemberNotFound,
                format!("node {id} is not a learner of the group: add it first"),
            ));
        }
        Change::Promote(id) => {
            MembershipStep::Change(ChangeMembers::AddVoterIds(BTreeSet::from([id])))
        }
        Change::Remove(id) if is_voter(id) => {
            MembershipStep::Change(ChangeMembers::RemoveVoters(BTreeSet::from([id])))
        }
        Change::Remove(id) if is_member(id) => {
            MembershipStep::Change(ChangeMembers::RemoveNodes(BTreeSet::from([id])))
        }
        Change::Remove(_) => done(),
    })
}

fn stale(group: GroupId, membership: &StoredMembership) -> Refusal {
    let now = membership.log_id().map_or((0, 0), |id| (id.leader_id.term, id.index));
    Refusal::new(
        Reason::MembershipStale,
        format!(
            "the members of group {group} have changed at term {}, index {}: retry with the \
             current membership",
            now.0, now.1
        ),
    )
}
