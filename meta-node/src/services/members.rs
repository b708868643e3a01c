//! Members of group 0: list, health, and one change at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, Instant as _};
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::change_meta_member_request::Change;
use tidewater_proto::v1::{self, Reason};
use tidewater_raft_store::types::{Membership, StoredMembership, wire};
use tidewater_raft_store::{Member, membership};

use crate::catalog::FIRST_NODE_ID;
use crate::commands::CommandError;
use crate::group::MetaGroup;
use crate::join;
use crate::leader::problems::MemberHealth;

/// Deadline of a membership change.
const CHANGE_DEADLINE: Duration = Duration::from_secs(15);
/// Deadline of a leadership transfer.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(5);
/// Maximum number of log entries that a learner may lack when it is promoted.
const MAX_LAG_TO_PROMOTE: u64 = 1_000;

type MemberChange = ChangeMembers<u64, Member>;

impl MetaGroup {
    /// Members of group 0, as this node knows them.
    pub(crate) fn members(&self) -> v1::ListMetaMembersResponse {
        self.current_members().1
    }

    /// The current membership, in Raft's form and in the form for operators.
    fn current_members(&self) -> (Arc<StoredMembership>, v1::ListMetaMembersResponse) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let stored = Arc::clone(&metrics.membership_config);
        let voters: BTreeSet<u64> = stored.voter_ids().collect();
        let matched = |id: &u64| {
            let replication = metrics.replication.as_ref()?;
            replication.get(id)?.as_ref().map(|matched| matched.index)
        };
        let members = stored.nodes().map(|(id, member)| v1::MetaMember {
            node_id: *id,
            address: self.addresses.get(NodeId(*id)).unwrap_or_else(|| member.address.clone()),
            voter: voters.contains(id),
            leader: metrics.current_leader == Some(*id),
            matched_index: matched(id),
        });
        let log_id = stored.log_id().as_ref().map(wire::log_id_to_wire);
        let list = v1::ListMetaMembersResponse {
            members: members.collect(),
            membership_term: log_id.as_ref().map_or(0, |id| id.term),
            membership_index: log_id.as_ref().map_or(0, |id| id.index),
            replacement: None,
        };
        (stored, list)
    }

    /// Returns whether a change of the members is between its two entries.
    pub(crate) fn has_joint_membership(&self) -> bool {
        membership::is_joint(self.current_members().0.membership())
    }

    /// Time since the last answer of each other member, and its lag; meaningful only on the leader.
    pub(crate) fn member_health(&self) -> Vec<MemberHealth> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let Some(heartbeat) = &metrics.heartbeat else { return Vec::new() };
        let last_index = metrics.last_log_index.unwrap_or(0);
        let lag = |id: &u64| {
            let replication = metrics.replication.as_ref()?;
            let matched = replication.get(id)?.as_ref().map_or(0, |matched| matched.index);
            Some(last_index.saturating_sub(matched))
        };
        let others = heartbeat.iter().filter(|(id, _)| **id != self.node_id.get());
        others
            .map(|(id, at)| MemberHealth {
                node: NodeId(*id),
                silent_for: at.as_ref().map(|at| at.elapsed()),
                lag: lag(id).unwrap_or(0),
            })
            .collect()
    }

    /// Performs one change, based on the membership that the caller has seen.
    pub(crate) async fn change_member(
        &self,
        request: v1::ChangeMetaMemberRequest,
    ) -> Result<v1::ListMetaMembersResponse, Refusal> {
        self.check_leading()?;
        // Until a new leader has committed an entry of its own, the last change counts as one in progress.
        self.linearize().await?;
        let (stored, now) = self.current_members();
        let seen = (request.membership_term, request.membership_index);
        if seen != (0, 0) && seen != (now.membership_term, now.membership_index) {
            return Err(Refusal::new(
                Reason::MembershipStale,
                "the members of the meta group have changed: list them again",
            ));
        }
        let last_index = self.last_index();
        let membership = stored.membership();
        let change = check_change(membership, &now, self.node_id, last_index, request.change)?;
        let _joining = self.joining.lock().await;
        if let Some(joiner) = &change.must_join {
            self.join_cluster(joiner, &now).await?;
        }
        // Another change may have been made during the join call. The log id makes the change fail then,
        // since it was decided on an outdated membership.
        let on = *stored.log_id();
        tokio::time::timeout(CHANGE_DEADLINE, membership::change(&self.raft, change.members, on))
            .await
            .map_err(|_| {
                Refusal::new(
                    Reason::DeadlineExceeded,
                    "the membership change timed out: list the members to see its outcome",
                )
            })?
            .map_err(|error| change_refusal(self.write_refusal(error)))?;
        Ok(self.members())
    }

    /// Transfers leadership of group 0 to another voter, and waits until it leads.
    pub(crate) async fn transfer_to(&self, to: NodeId) -> Result<(), Refusal> {
        self.check_leading()?;
        if !self.members().members.iter().any(|member| member.node_id == to.get() && member.voter) {
            return Err(Refusal::new(
                Reason::MemberNotFound,
                format!("node {to} is not a voter of the meta group"),
            ));
        }
        if to == self.node_id {
            return Ok(());
        }
        let triggered = self.raft.trigger().transfer_leader(to.get()).await;
        triggered.map_err(|fatal| self.fatal(&fatal))?;
        let elected = self.raft.wait(Some(TRANSFER_DEADLINE));
        elected.current_leader(to.get(), "leadership transferred").await.map(|_| ()).map_err(|_| {
            Refusal::new(
                Reason::Unavailable,
                format!("node {to} did not become leader of the meta group: it may lag, retry"),
            )
            .retry_after(Duration::from_secs(1))
        })
    }

    fn last_index(&self) -> u64 {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.last_log_index.unwrap_or(0)
    }

    /// Makes a node with an empty directory join this cluster, before it becomes a member.
    async fn join_cluster(
        &self,
        joiner: &v1::MetaMember,
        now: &v1::ListMetaMembersResponse,
    ) -> Result<(), Refusal> {
        let mut peers: BTreeMap<NodeId, String> = now
            .members
            .iter()
            .map(|member| (NodeId(member.node_id), member.address.clone()))
            .collect();
        peers.insert(NodeId(joiner.node_id), joiner.address.clone());
        let level = self.view.read().header().feature_level;
        let request = v1::JoinClusterRequest {
            cluster_id: self.cluster_id.to_string(),
            source_node: self.node_id.get(),
            target_node: joiner.node_id,
            peers: join::peers_to_wire(&peers),
            bootstrap: false,
            check_only: false,
            feature_level: level.get(),
        };
        let joined = join::request_join(&joiner.address, request).await;
        let release = joined.map_err(|refusal| join_error(joiner, refusal))?;
        // A release without levels has not checked the level of the request.
        Ok(release.check(level).map_err(CommandError::from)?)
    }
}

/// Maps the error of a membership change. Raft answers "not the leader" also when the leader changes
/// after the first of the two entries: the change may take effect.
fn change_refusal(refusal: Refusal) -> Refusal {
    if refusal.reason != Reason::NotLeader {
        return refusal;
    }
    Refusal::new(
        Reason::LeadershipLost,
        "the leader of the meta group changed during the membership change: list the members to see its outcome",
    )
    .leader(refusal.leader)
}

/// Maps the error of a join call. After a transient error, the members are unchanged: the caller may
/// retry, and must not treat the outcome as unknown.
fn join_error(joiner: &v1::MetaMember, refusal: Refusal) -> Refusal {
    if !join::is_transient(refusal.reason) {
        return refusal;
    }
    let node = joiner.node_id;
    let address = &joiner.address;
    let text = format!("node {node} at {address} cannot join yet: {refusal}");
    Refusal::new(Reason::MembershipBusy, text).retry_after(Duration::from_millis(500))
}

/// A valid membership change, and the node that must join the cluster first.
#[derive(Debug)]
struct CheckedChange {
    members: MemberChange,
    must_join: Option<v1::MetaMember>,
}

/// Validates a requested change against the current membership.
fn check_change(
    membership: &Membership,
    now: &v1::ListMetaMembersResponse,
    leader: NodeId,
    last_index: u64,
    change: Option<Change>,
) -> Result<CheckedChange, Refusal> {
    let refuse = |reason, text: String| Err(Refusal::new(reason, text));
    let found = |id: u64| now.members.iter().find(|member| member.node_id == id);
    let missing = |id: u64| {
        Refusal::new(Reason::MemberNotFound, format!("node {id} is not a member of the meta group"))
    };
    let plain = |members| Ok(CheckedChange { members, must_join: None });
    match change {
        None => refuse(Reason::InvalidArgument, "the request has no change".to_owned()),
        Some(Change::AddLearner(new)) => {
            if found(new.node_id).is_some() {
                return refuse(
                    Reason::MemberExists,
                    format!("node {} is already a member of the meta group", new.node_id),
                );
            }
            if !(1..FIRST_NODE_ID.get()).contains(&new.node_id) {
                return refuse(
                    Reason::InvalidArgument,
                    format!(
                        "{} is not the id of a meta node: use 1 to {}",
                        new.node_id,
                        FIRST_NODE_ID.get() - 1
                    ),
                );
            }
            let member = Member::new(new.address.clone());
            let members = ChangeMembers::AddNodes(BTreeMap::from([(new.node_id, member)]));
            Ok(CheckedChange { members, must_join: Some(new) })
        }
        Some(Change::Promote(id)) => {
            let member = found(id).ok_or_else(|| missing(id))?;
            if membership::future_voters(membership).contains(&id) {
                // During a joint membership, the node is permanently a voter only when the change is finished.
                if membership::is_joint(membership) {
                    return plain(membership::leave_joint());
                }
                return refuse(Reason::MemberExists, format!("node {id} is already a voter"));
            }
            if member.matched_index.is_none_or(|matched| matched + MAX_LAG_TO_PROMOTE < last_index)
            {
                return Err(Refusal::new(
                    Reason::MembershipBusy,
                    format!("node {id} has not caught up yet: retry"),
                )
                .retry_after(Duration::from_secs(1)));
            }
            plain(ChangeMembers::AddVoterIds(BTreeSet::from([id])))
        }
        Some(Change::Remove(id)) => {
            let member = found(id).ok_or_else(|| missing(id))?;
            if id == leader.get() {
                return refuse(
                    Reason::InvalidArgument,
                    format!("node {id} leads the meta group: transfer leadership first"),
                );
            }
            let ids = BTreeSet::from([id]);
            plain(if member.voter {
                ChangeMembers::RemoveVoters(ids)
            } else {
                ChangeMembers::RemoveNodes(ids)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::refusal::Effect;

    use super::*;

    fn member(node_id: u64, voter: bool, matched: u64) -> v1::MetaMember {
        v1::MetaMember {
            node_id,
            address: format!("m:{node_id}"),
            voter,
            leader: node_id == 1,
            matched_index: Some(matched),
        }
    }

    fn reason(change: Option<Change>) -> Result<MemberChange, Reason> {
        reason_on(&[&[1, 2]], change)
    }

    /// Checks a change on a membership with these voters among nodes 1 to 4.
    fn reason_on(voters: &[&[u64]], change: Option<Change>) -> Result<MemberChange, Reason> {
        let nodes: BTreeMap<u64, Member> =
            (1..=4).map(|id| (id, Member::new(format!("m:{id}")))).collect();
        let configs = voters.iter().map(|ids| ids.iter().copied().collect()).collect();
        let membership = Membership::new(configs, nodes).unwrap();
        let votes = |id: u64| voters.iter().any(|ids| ids.contains(&id));
        let now = v1::ListMetaMembersResponse {
            members: vec![
                member(1, votes(1), 5_000),
                member(2, votes(2), 5_000),
                member(3, votes(3), 4_500),
                member(4, votes(4), 3_999),
            ],
            membership_term: 1,
            membership_index: 2,
            replacement: None,
        };
        check_change(&membership, &now, NodeId(1), 5_000, change)
            .map(|checked| checked.members)
            .map_err(|refusal| refusal.reason)
    }

    #[test]
    fn membership_changes_are_validated() {
        let one = |id| BTreeSet::from([id]);
        assert_eq!(reason(None), Err(Reason::InvalidArgument));
        assert_eq!(
            reason(Some(Change::AddLearner(member(2, false, 0)))),
            Err(Reason::MemberExists)
        );
        for id in [0, 101] {
            assert_eq!(
                reason(Some(Change::AddLearner(member(id, false, 0)))),
                Err(Reason::InvalidArgument)
            );
        }
        assert!(matches!(
            reason(Some(Change::AddLearner(member(5, false, 0)))),
            Ok(ChangeMembers::AddNodes(_))
        ));
        assert_eq!(reason(Some(Change::Promote(9))), Err(Reason::MemberNotFound));
        assert_eq!(reason(Some(Change::Promote(2))), Err(Reason::MemberExists));
        assert_eq!(reason(Some(Change::Promote(4))), Err(Reason::MembershipBusy));
        assert_eq!(reason(Some(Change::Promote(3))), Ok(ChangeMembers::AddVoterIds(one(3))));
        assert_eq!(reason(Some(Change::Remove(9))), Err(Reason::MemberNotFound));
        assert_eq!(reason(Some(Change::Remove(1))), Err(Reason::InvalidArgument));
        assert_eq!(reason(Some(Change::Remove(2))), Ok(ChangeMembers::RemoveVoters(one(2))));
        assert_eq!(reason(Some(Change::Remove(3))), Ok(ChangeMembers::RemoveNodes(one(3))));
    }

    #[test]
    fn change_without_a_leader_has_unknown_effect() {
        let refusal = change_refusal(Refusal::new(Reason::NotLeader, "no leader"));
        assert_eq!((refusal.reason, refusal.effect()), (Reason::LeadershipLost, Effect::Unknown));
        let refusal = change_refusal(Refusal::new(Reason::MembershipBusy, "in progress"));
        assert_eq!((refusal.reason, refusal.effect()), (Reason::MembershipBusy, Effect::None));
    }

    #[test]
    fn joint_membership_change_can_be_finished() {
        let one = |id| BTreeSet::from([id]);
        let promoting: &[&[u64]] = &[&[1, 2], &[1, 2, 3]];
        let removing: &[&[u64]] = &[&[1, 2, 3], &[1, 2]];
        let promote = Some(Change::Promote(3));
        let remove = Some(Change::Remove(3));
        let finish = ChangeMembers::AddVoterIds(BTreeSet::new());
        assert_eq!(reason_on(promoting, promote.clone()), Ok(finish));
        assert_eq!(reason_on(promoting, remove.clone()), Ok(ChangeMembers::RemoveVoters(one(3))));
        assert_eq!(reason_on(removing, remove), Ok(ChangeMembers::RemoveVoters(one(3))));
        // The node is still a voter, but not after the end of the change.
        assert_eq!(reason_on(removing, promote), Ok(ChangeMembers::AddVoterIds(one(3))));
    }

    #[test]
    fn transient_join_error_is_retryable() {
        let joiner =
            v1::MetaMember { node_id: 4, address: "h:1".into(), ..v1::MetaMember::default() };
        for reason in [Reason::Unavailable, Reason::DeadlineExceeded, Reason::ShuttingDown] {
            let refusal = join_error(&joiner, Refusal::new(reason, "starting"));
            assert_eq!(refusal.reason, Reason::MembershipBusy);
            assert!(refusal.retry_after.is_some() && refusal.message.contains("node 4 at h:1"));
        }
        let refusal = join_error(&joiner, Refusal::new(Reason::PeersMismatch, "other peers"));
        assert_eq!(refusal.reason, Reason::PeersMismatch);
    }
}
