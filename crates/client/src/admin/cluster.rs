//! Calls for the cluster as a whole: status, meta members, leadership, log filters.

use std::time::Duration;

use bytes::Bytes;
use tidewater_common::ids::{GroupId, LogIndex, NodeId};
use tidewater_proto::v1::{self, change_meta_member_request::Change};
use tidewater_rpc::{attempt, timed};

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;
use crate::outcome::FailedAttempt;

/// Timeout of an attempt to change the membership, which waits for a learner to catch up.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

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

impl Client {
    /// Returns the status of nodes, groups and tables in summary.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader.
    pub async fn cluster_status(&self) -> Result<v1::ClusterStatusResponse, ClientError> {
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        self.core
            .call(GroupId::META, "cluster status", Repeat::Read, longest, |channel, timeout| {
                let mut client = router.admin(channel);
                async move {
                    client.cluster_status(timed(v1::ClusterStatusRequest {}, timeout)).await
                }
            })
            .await
    }

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

    /// Changes the meta group by one step, on condition that its current membership does not change in between.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `MembershipStale`, `MemberExists`, `MemberNotFound` and
    /// others; [`ClientError::OutcomeUnknown`] when the response was lost.
    pub async fn change_meta_member(
        &self,
        change: MetaChange,
    ) -> Result<Vec<v1::MetaMember>, ClientError> {
        let current = self.meta_members().await?;
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
            membership_term: current.membership_term,
            membership_index: current.membership_index,
            change: Some(change),
        };
        let router = &self.core.router;
        let response = self
            .core
            .call(
                GroupId::META,
                &what,
                Repeat::UnlessUnknown,
                CHANGE_TIMEOUT,
                |channel, timeout| {
                    let mut client = router.admin(channel);
                    let request = request.clone();
                    async move { client.change_meta_member(timed(request, timeout)).await }
                },
            )
            .await?;
        Ok(response.members)
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
        // A repeat after success has no effect.
        self.core
            .call(GroupId::META, &what, Repeat::Idempotent, longest, |channel, timeout| {
                let mut client = router.admin(channel);
                async move { client.transfer_group_leader(timed(request, timeout)).await }
            })
            .await?;
        self.core.router.leaders.forget_group(group);
        Ok(())
    }

    /// Proposes a catalog command without effect, for benchmarks; returns its log index.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader.
    pub async fn bench_command(&self, value: Bytes) -> Result<LogIndex, ClientError> {
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        let response = self
            .core
            .call(GroupId::META, "bench command", Repeat::Read, longest, |channel, timeout| {
                let mut client = router.admin(channel);
                let value = value.clone();
                async move {
                    client.bench_command(timed(v1::BenchCommandRequest { value }, timeout)).await
                }
            })
            .await?;
        Ok(LogIndex(response.log_index))
    }

    /// Sets the log filter of a node; returns the previous filter.
    ///
    /// # Errors
    /// [`ClientError::NodeNotFound`]; [`ClientError::Refused`] for a filter that does not parse.
    pub async fn set_log_filter(&self, node: NodeId, filter: &str) -> Result<String, ClientError> {
        let address = self.node_address(node).await?;
        let what = format!("log filter of node {node} at {address}");
        let channel =
            self.core.router.channel(&address).map_err(|failure| refused(&what, failure))?;
        let mut client = v1::node_admin_client::NodeAdminClient::new(channel);
        let timeout = self.options().attempt_timeout;
        let request = v1::SetLogFilterRequest { filter: filter.to_owned() };
        let response = attempt(&address, timeout, client.set_log_filter(timed(request, timeout)))
            .await
            .map_err(|failure| refused(&what, failure))?;
        Ok(response.previous)
    }

    async fn node_address(&self, node: NodeId) -> Result<String, ClientError> {
        if let Some(node) = self.catalog().node(node) {
            return Ok(node.address.clone());
        }
        let catalog = self.core.refresh_catalog().await?;
        catalog.node(node).map(|node| node.address.clone()).ok_or(ClientError::NodeNotFound(node))
    }
}

/// Converts the failure of a single attempt. An unknown outcome is reported as failed, because setting the
/// same filter again is harmless.
fn refused(what: &str, failure: FailedAttempt) -> ClientError {
    ClientError::Refused { what: what.to_owned(), refusal: Box::new(failure.refusal) }
}
