//! Drain and removal of data nodes.

use std::time::Duration;

use tidewater_common::ids::{GroupId, NodeId};
use tidewater_proto::v1;
use tidewater_rpc::timed;

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

impl Client {
    /// Begins the drain of a data node, or takes it back (`cancel`). Returns the groups with a replica on the node,
    /// at once: the meta leader moves the replicas to other nodes.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `NodeNotFound`, `NodeRemoved`, `InvalidArgument` for a node of another role, and
    /// `MembershipBusy` if the other nodes cannot have its replicas.
    pub async fn drain_node(
        &self,
        node: NodeId,
        cancel: bool,
    ) -> Result<Vec<GroupId>, ClientError> {
        let request = v1::DrainNodeRequest { node_id: node.get(), cancel };
        let router = &self.core.router;
        let what = format!("draining node {node}");
        let response = self
            .core
            .call(GroupId::META, &what, Repeat::Idempotent, CHANGE_TIMEOUT, |channel, timeout| {
                let mut client = router.admin(channel);
                async move { client.drain_node(timed(request, timeout)).await }
            })
            .await?;
        Ok(response.group_ids.into_iter().map(GroupId).collect())
    }

    /// Removes a data node that hosts no replica. Its data directory is refused from then on.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `MembershipBusy` while it hosts replicas, `NodeNotFound`, `NodeRemoved` and others.
    pub async fn remove_node(&self, node: NodeId) -> Result<(), ClientError> {
        let request = v1::RemoveNodeRequest { node_id: node.get() };
        let router = &self.core.router;
        let what = format!("removing node {node}");
        self.core
            .call(GroupId::META, &what, Repeat::Idempotent, CHANGE_TIMEOUT, |channel, timeout| {
                let mut client = router.admin(channel);
                async move { client.remove_node(timed(request, timeout)).await }
            })
            .await
            .map(drop)
    }
}
