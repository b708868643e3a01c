//! Cluster-wide calls: status, meta members, leaders, log filters.

use std::time::Duration;

use bytes::Bytes;
use tidewater_common::ids::{GroupId, LogIndex, NodeId};
use tidewater_proto::v1::{self, change_meta_member_request::Change};

use crate::client::Client;
use crate::core::RetryMode;
use crate::error::ClientError;
use crate::pool::attempt;
use crate::router::timed;

/// Timeout of a membership change, which waits for a learner to catch up.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// A single change of the meta group's members.
#[derive(Debug, Clone)]
pub enum MetaChange {
    /// Adds a node as a learner, without a vote.
    AddLearner {
        /// Id of the node.
        node_id: NodeId,
        /// Address, host:port.
        address: String,
    },
    /// Promotes a learner to a voter.
    Promote(NodeId),
    /// Removes a member.
    Remove(NodeId),
}

impl Client {
    /// Returns the status of the cluster.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader.
    pub async fn cluster_status(&self) -> Result<v1::ClusterStatusResponse, ClientError> {
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        self.core
            .call(GroupId::META, "cluster status", RetryMode::Read, longest, |channel, timeout| {
                let mut client = router.admin(channel);
                async move {
                    client.cluster_status(timed(v1::ClusterStatusRequest {}, timeout)).await
                }
            })
            .await
    }

    /// Returns the members of the meta group, and the log id of that membership.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader.
    pub async fn meta_members(&self) -> Result<v1::ListMetaMembersResponse, ClientError> {
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        self.core
            .call(GroupId::META, "meta members", RetryMode::Read, longest, |channel, timeout| {
                let mut client = router.admin(channel);
                async move {
                    client.list_meta_members(timed(v1::ListMetaMembersRequest {}, timeout)).await
                }
            })
            .await
    }

    /// Makes one change of the meta group's members, based on its current membership.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `MembershipStale`, `MemberExists`, `MemberNotFound` and
    /// others; [`ClientError::OutcomeUnknown`] when the response was lost.
    pub async fn change_meta_member(
        &self,
        change: MetaChange,
    ) -> Result<Vec<v1::MetaMember>, ClientError> {
        let now = self.meta_members().await?;
        let what = format!("meta member change {change:?}");
        let change = match change {
            MetaChange::AddLearner { node_id, address } => Change::AddLearner(v1::MetaMember {
                node_id: node_id.get(),
                address,
                ..Default::default()
            }),
            MetaChange::Promote(node) => Change::Promote(node.get()),
            MetaChange::Remove(node) => Change::Remove(node.get()),
        };
        let request = v1::ChangeMetaMemberRequest {
            membership_term: now.membership_term,
            membership_index: now.membership_index,
            change: Some(change),
        };
        let router = &self.core.router;
        let answer = self
            .core
            .call(
                GroupId::META,
                &what,
                RetryMode::UnlessUnknown,
                CHANGE_TIMEOUT,
                |channel, timeout| {
                    let mut client = router.admin(channel);
                    let request = request.clone();
                    async move { client.change_meta_member(timed(request, timeout)).await }
                },
            )
            .await?;
        Ok(answer.members)
    }

    /// Transfers the leadership of a group (0: the meta group) to a node.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `GroupNotFound`, `MemberNotFound` and others.
    pub async fn transfer_leader(&self, group: GroupId, to: NodeId) -> Result<(), ClientError> {
        let request = v1::TransferGroupLeaderRequest { group_id: group.get(), to_node: to.get() };
        let router = &self.core.router;
        let what = format!("transfer of the leadership of group {group} to node {to}");
        let longest = Duration::from_secs(15);
        // A retry requests the state that is already reached.
        self.core
            .call(GroupId::META, &what, RetryMode::Idempotent, longest, |channel, timeout| {
                let mut client = router.admin(channel);
                async move { client.transfer_group_leader(timed(request, timeout)).await }
            })
            .await?;
        self.core.router.leaders.forget_group(group);
        Ok(())
    }

    /// Proposes a catalog command without effect, for benchmarks.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader.
    pub async fn bench_command(&self, value: Bytes) -> Result<LogIndex, ClientError> {
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        let answer = self
            .core
            .call(GroupId::META, "bench command", RetryMode::Read, longest, |channel, timeout| {
                let mut client = router.admin(channel);
                let value = value.clone();
                async move {
                    client.bench_command(timed(v1::BenchCommandRequest { value }, timeout)).await
                }
            })
            .await?;
        Ok(LogIndex(answer.log_index))
    }

    /// Sets the log filter of a node; returns the previous filter.
    ///
    /// # Errors
    /// [`ClientError::NodeNotFound`]; [`ClientError::Refused`] for a filter that does not parse.
    pub async fn set_log_filter(&self, node: NodeId, filter: &str) -> Result<String, ClientError> {
        let address = self.node_address(node).await?;
        let what = format!("log level of node {node} at {address}");
        let channel =
            self.core.router.pool.channel(&address).map_err(|failure| refused(&what, failure))?;
        let mut client = v1::node_admin_client::NodeAdminClient::new(channel);
        let timeout = self.options().attempt_timeout;
        let request = v1::SetLogFilterRequest { filter: filter.to_owned() };
        let answer = attempt(timeout, client.set_log_filter(timed(request, timeout)))
            .await
            .map_err(|failure| refused(&what, failure))?;
        Ok(answer.previous)
    }

    async fn node_address(&self, node: NodeId) -> Result<String, ClientError> {
        if let Some(node) = self.catalog().node(node) {
            return Ok(node.address.clone());
        }
        let catalog = self.core.refreshed().await?;
        catalog.node(node).map(|node| node.address.clone()).ok_or(ClientError::NodeNotFound(node))
    }
}

/// Converts a failed attempt at one node. Setting the same filter again is harmless, so an unknown
/// outcome is not distinguished.
fn refused(what: &str, failure: crate::outcome::FailedAttempt) -> ClientError {
    ClientError::Refused { what: what.to_owned(), refusal: Box::new(failure.refusal) }
}
