//! The cluster as a whole: status, meta members, leaders, logs.

use std::time::Duration;

use bytes::Bytes;
use tidewater_common::ids::{GroupId, LogIndex, NodeId};
use tidewater_proto::v1::{self, change_meta_member_request::Change};

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;
use crate::pool::attempt;
use crate::router::timed;

/// A membership change waits for a learner to catch up.
const CHANGE: Duration = Duration::from_secs(60);

/// One step of a change to the meta group's members.
#[derive(Debug, Clone)]
pub enum MetaChange {
    /// A node joins without a vote.
    AddLearner {
        /// Its id.
        node_id: NodeId,
        /// host:port.
        address: String,
    },
    /// A learner gets a vote.
    Promote(NodeId),
    /// A member leaves.
    Remove(NodeId),
}

impl Client {
    /// What an operator wants to know first.
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

    /// The members of the meta group, and the log id of that membership.
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

    /// Changes the meta group by one step, decided on the membership as it is now.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `MembershipStale`, `MemberExists`, `MemberNotFound` and
    /// others; [`ClientError::OutcomeUnknown`] when the answer was lost.
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
            .call(GroupId::META, &what, Repeat::UnlessUnknown, CHANGE, |channel, timeout| {
                let (mut client, request) = (router.admin(channel), request.clone());
                async move { client.change_meta_member(timed(request, timeout)).await }
            })
            .await?;
        Ok(answer.members)
    }

    /// Hands the leadership of a group (0: the meta group) to a node.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `GroupNotFound`, `MemberNotFound` and others.
    pub async fn transfer_leader(&self, group: GroupId, to: NodeId) -> Result<(), ClientError> {
        let request = v1::TransferGroupLeaderRequest { group_id: group.get(), to_node: to.get() };
        let router = &self.core.router;
        let what = format!("transfer of the leadership of group {group} to node {to}");
        let longest = Duration::from_secs(15);
        // A repeat asks for what is so already.
        self.core
            .call(GroupId::META, &what, Repeat::Idempotent, longest, |channel, timeout| {
                let mut client = router.admin(channel);
                async move { client.transfer_group_leader(timed(request, timeout)).await }
            })
            .await?;
        self.core.router.leaders.forget_group(group);
        Ok(())
    }

    /// Proposes a catalog command without effect, for measuring.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader.
    pub async fn bench_command(&self, value: Bytes) -> Result<LogIndex, ClientError> {
        let router = &self.core.router;
        let longest = self.options().attempt_timeout;
        let answer = self
            .core
            .call(GroupId::META, "bench command", Repeat::Read, longest, |channel, timeout| {
                let (mut client, value) = (router.admin(channel), value.clone());
                async move {
                    client.bench_command(timed(v1::BenchCommandRequest { value }, timeout)).await
                }
            })
            .await?;
        Ok(LogIndex(answer.log_index))
    }

    /// Sets what a node logs; returns the filter that was in force.
    ///
    /// # Errors
    /// [`ClientError::NodeNotFound`]; [`ClientError::Refused`] for a filter that does not parse.
    pub async fn set_log_filter(&self, node: NodeId, filter: &str) -> Result<String, ClientError> {
        let address = self.node_address(node).await?;
        let what = format!("log level of node {node} at {address}");
        let channel =
            self.core.router.pool.channel(&address).map_err(|miss| refused(&what, miss))?;
        let mut client = v1::node_admin_client::NodeAdminClient::new(channel);
        let timeout = self.options().attempt_timeout;
        let request = v1::SetLogFilterRequest { filter: filter.to_owned() };
        let answer = attempt(timeout, client.set_log_filter(timed(request, timeout)))
            .await
            .map_err(|miss| refused(&what, miss))?;
        Ok(answer.previous)
    }

    async fn node_address(&self, node: NodeId) -> Result<String, ClientError> {
        if let Some(node) = self.catalog().node(node) {
            return Ok(node.address.clone());
        }
        let catalog = self.core.refresh_catalog().await?;
        catalog.node(node).map(|node| node.address.clone()).ok_or(ClientError::NodeNotFound(node))
    }
}

/// One attempt at one node; setting the same filter again does no harm, so doubt is not told apart.
fn refused(what: &str, miss: crate::outcome::FailedAttempt) -> ClientError {
    ClientError::Refused { what: what.to_owned(), refusal: Box::new(miss.refusal) }
}
