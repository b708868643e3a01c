//! Calls for the cluster as a whole: status, leadership, log filters.

use std::time::Duration;

use bytes::Bytes;
use tidewater_common::ids::{GroupId, LogIndex, NodeId};
use tidewater_proto::v1;
use tidewater_rpc::{attempt, timed};

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;
use crate::outcome::FailedAttempt;

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
