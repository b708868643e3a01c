//! Members of the meta group: the list, and changes of one member.

use std::time::Duration;

use tidewater_common::ids::{GroupId, NodeId};
use tidewater_proto::v1::{self, Reason, change_meta_member_request::Change};
use tidewater_rpc::timed;

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

/// Timeout of an attempt to change the membership, which waits for a learner to catch up.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Most requests for one change whose outcome stays unknown.
const MAX_CHANGE_REQUESTS: u32 = 5;
/// Wait before a request that follows one with an unknown outcome: about the time of an election.
const AFTER_UNKNOWN: Duration = Duration::from_secs(1);

/// A single step of a membership change of the meta group.
#[derive(Debug, Clone)]
pub enum MetaChange {
    /// Adds a node as a member without a vote.
    AddLearner {
        /// Id of the node.
        node_id: NodeId,
        /// Address of the node, as `host:port`.
        address: String,
    },
    /// Gives a learner a vote.
    Promote(NodeId),
    /// Removes a member.
    Remove(NodeId),
}

impl From<MetaChange> for Change {
    fn from(change: MetaChange) -> Self {
        match change {
            MetaChange::AddLearner { node_id, address } => Self::AddLearner(v1::MetaMember {
                node_id: node_id.get(),
                address,
                ..Default::default()
            }),
            MetaChange::Promote(node) => Self::Promote(node.get()),
            MetaChange::Remove(node) => Self::Remove(node.get()),
        }
    }
}

impl MetaChange {
    /// Returns whether an error for a repeated request, and the members listed after it, mean that the
    /// change is in effect. The leader sends these errors only for a membership that is committed.
    fn in_effect(&self, error: Reason, members: &[v1::MetaMember]) -> bool {
        let found = |id: NodeId| members.iter().find(|member| member.node_id == id.get());
        match (self, error) {
            (Self::AddLearner { node_id, address }, Reason::MemberExists) => {
                found(*node_id).is_some_and(|member| member.address == *address)
            }
            (Self::Promote(node), Reason::MemberExists) => {
                found(*node).is_some_and(|member| member.voter)
            }
            (Self::Remove(node), Reason::MemberNotFound) => found(*node).is_none(),
            _ => false,
        }
    }
}

impl Client {
    /// Returns the members of the meta group, with the log id of that membership.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader.
    pub async fn meta_members(&self) -> Result<v1::ListMetaMembersResponse, ClientError> {
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        self.core
            .call(GroupId::META, "meta members", Repeat::Read, longest, |channel, timeout| {
                let mut client = router.admin(channel);
                async move {
                    client.list_meta_members(timed(v1::ListMetaMembersRequest {}, timeout)).await
                }
            })
            .await
    }

    /// Begins to replace member `old` by node `new` at `address` (host:port). The meta leader continues; the listed
    /// members show the replacement until it has ended.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `MemberNotFound`, `MembershipBusy` during another replacement, `InvalidArgument` and
    /// others; [`ClientError::OutcomeUnknown`] when no leader answered.
    pub async fn replace_meta_member(
        &self,
        old: NodeId,
        new: NodeId,
        address: &str,
    ) -> Result<(), ClientError> {
        let request = v1::ReplaceMetaMemberRequest {
            old_node_id: old.get(),
            new_node_id: new.get(),
            address: address.to_owned(),
            cancel: false,
        };
        self.request_replacement(&format!("replacing meta node {old}"), request).await
    }

    /// Cancels the replacement of member `old`: the new node is removed again, unless `old` was removed before.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `MemberNotFound` when it is not being replaced, and others.
    pub async fn cancel_meta_replacement(&self, old: NodeId) -> Result<(), ClientError> {
        let request = v1::ReplaceMetaMemberRequest {
            old_node_id: old.get(),
            cancel: true,
            ..v1::ReplaceMetaMemberRequest::default()
        };
        let what = format!("cancelling the replacement of meta node {old}");
        self.request_replacement(&what, request).await
    }

    async fn request_replacement(
        &self,
        what: &str,
        request: v1::ReplaceMetaMemberRequest,
    ) -> Result<(), ClientError> {
        self.core
            .change(what, request, |mut client, request| async move {
                client.replace_meta_member(request).await
            })
            .await
            .map(drop)
    }

    /// Changes the meta group by one step. A request applies to the membership that was listed right
    /// before it. When its outcome is unknown, for example because the leader changed between the two
    /// entries of the change, the call requests the rest of the change from the next leader.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `MembershipStale`, `MemberExists`, `MemberNotFound` and
    /// others; [`ClientError::OutcomeUnknown`] when no leader answered.
    pub async fn change_meta_member(
        &self,
        change: MetaChange,
    ) -> Result<Vec<v1::MetaMember>, ClientError> {
        let options = self.options();
        let mut outcome = self.request_member_change(&change).await;
        for made in 1..MAX_CHANGE_REQUESTS {
            let Err(unknown @ ClientError::OutcomeUnknown { .. }) = outcome else { break };
            let wait = options.backoff.wait(made, Some(AFTER_UNKNOWN), options.ids.bits());
            tokio::time::sleep(wait).await;
            outcome = match self.request_member_change(&change).await {
                Ok(members) => Ok(members),
                // A definite error does not resolve the earlier request, unless it shows its effect.
                Err(error) => self.members_after(&change, &error).await.ok_or(unknown),
            };
        }
        outcome
    }

    /// Returns the members if the error of a repeated request shows that the change is in effect.
    async fn members_after(
        &self,
        change: &MetaChange,
        error: &ClientError,
    ) -> Option<Vec<v1::MetaMember>> {
        let ClientError::Refused { refusal, .. } = error else { return None };
        let members = self.meta_members().await.ok()?.members;
        change.in_effect(refusal.reason, &members).then_some(members)
    }

    async fn request_member_change(
        &self,
        change: &MetaChange,
    ) -> Result<Vec<v1::MetaMember>, ClientError> {
        let before = self.meta_members().await?;
        let what = format!("meta member change {change:?}");
        let request = v1::ChangeMetaMemberRequest {
            membership_term: before.membership_term,
            membership_index: before.membership_index,
            change: Some(change.clone().into()),
        };
        let router = &self.core.router;
        let repeat = Repeat::UnlessUnknown;
        let response = self
            .core
            .call(GroupId::META, &what, repeat, CHANGE_TIMEOUT, |channel, timeout| {
                let mut client = router.admin(channel);
                let request = request.clone();
                async move { client.change_meta_member(timed(request, timeout)).await }
            })
            .await?;
        Ok(response.members)
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::refusal::Refusal;

    use super::*;
    use crate::fake::FakeCluster;

    fn member(id: u64, voter: bool) -> v1::MetaMember {
        let address = format!("m:{id}");
        v1::MetaMember { node_id: id, address, voter, ..Default::default() }
    }

    fn refusals(reasons: &[Reason]) -> Vec<Refusal> {
        reasons.iter().map(|reason| Refusal::new(*reason, "injected")).collect()
    }

    /// Promotes node 4 with these answers to the requests; returns the answers that are left.
    async fn promote(voter: bool, reasons: &[Reason]) -> (Result<Vec<u64>, ClientError>, usize) {
        let cluster = FakeCluster::start(&[], 1).await;
        let client = cluster.client().await;
        {
            let mut state = cluster.state.lock();
            state.members = vec![member(1, true), member(4, voter)];
            state.member_refusals = refusals(reasons).into();
        }
        let changed = client.change_meta_member(MetaChange::Promote(NodeId(4))).await;
        let left = cluster.state.lock().member_refusals.len();
        (changed.map(|members| members.iter().map(|member| member.node_id).collect()), left)
    }

    #[tokio::test]
    async fn interrupted_member_change_is_requested_again() {
        use Reason::{LeadershipLost, MemberExists, MembershipStale};
        let (changed, left) = promote(true, &[LeadershipLost, MembershipStale, MemberExists]).await;
        assert_eq!((changed.unwrap(), left), (vec![1, 4], 0));
        let (changed, left) = promote(true, &[LeadershipLost]).await;
        assert_eq!((changed.unwrap(), left), (vec![1, 4], 0));
    }

    #[tokio::test]
    async fn first_definite_error_ends_a_member_change() {
        for reason in [Reason::MembershipStale, Reason::MemberExists] {
            let (changed, left) = promote(true, &[reason, reason]).await;
            let error = changed.unwrap_err();
            assert!(matches!(error, ClientError::Refused { .. }), "{error}");
            assert_eq!(left, 1);
        }
    }

    #[tokio::test]
    async fn unresolved_member_change_has_an_unknown_outcome() {
        let reasons = [&[Reason::LeadershipLost], &[Reason::MemberExists; 6][..]].concat();
        let (changed, left) = promote(false, &reasons).await;
        let error = changed.unwrap_err();
        assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
        assert_eq!(left, 2);
    }

    #[test]
    fn effect_of_each_member_change_is_recognized() {
        use Reason::{MemberExists, MemberNotFound, MembershipStale};
        let members = [member(1, true), member(4, false)];
        let add = |id, address: &str| MetaChange::AddLearner {
            node_id: NodeId(id),
            address: address.to_owned(),
        };
        for (change, reason, expected) in [
            (add(4, "m:4"), MemberExists, true),
            (add(4, "m:5"), MemberExists, false),
            (add(4, "m:4"), MembershipStale, false),
            (MetaChange::Promote(NodeId(1)), MemberExists, true),
            (MetaChange::Promote(NodeId(4)), MemberExists, false),
            (MetaChange::Remove(NodeId(3)), MemberNotFound, true),
            (MetaChange::Remove(NodeId(1)), MemberNotFound, false),
            (MetaChange::Remove(NodeId(3)), MembershipStale, false),
        ] {
            assert_eq!(change.in_effect(reason, &members), expected, "{change:?} {reason:?}");
        }
    }
}
