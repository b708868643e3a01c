//! Drain and removal of data nodes.

use tidewater_common::ids::{GroupId, NodeId};
use tidewater_proto::v1;

use crate::client::Client;
use crate::error::ClientError;

impl Client {
    /// Begins the drain of a data node, or takes it back (`cancel`). Returns the groups with a replica on the node,
    /// at once: the meta leader moves the replicas to other nodes.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `NodeNotFound`, `NodeAlreadyRemoved`, `InvalidArgument` for a node of another role, and
    /// `MembershipBusy` if the other nodes cannot have its replicas.
    pub async fn drain_node(
        &self,
        node: NodeId,
        cancel: bool,
    ) -> Result<Vec<GroupId>, ClientError> {
        let request = v1::DrainNodeRequest { node_id: node.get(), cancel, replacement_id: 0 };
        self.drain(node, request).await
    }

    /// Begins the drain of a data node, down or up, whose replicas `replacement` gets. Returns the groups with a replica
    /// on the node, at once.
    ///
    /// # Errors
    /// Those of [`drain_node`](Self::drain_node), and `InvalidArgument` if the replacement is draining or down.
    pub async fn replace_node(
        &self,
        node: NodeId,
        replacement: NodeId,
    ) -> Result<Vec<GroupId>, ClientError> {
        let (node_id, replacement_id) = (node.get(), replacement.get());
        let request = v1::DrainNodeRequest { node_id, cancel: false, replacement_id };
        self.drain(node, request).await
    }

    async fn drain(
        &self,
        node: NodeId,
        request: v1::DrainNodeRequest,
    ) -> Result<Vec<GroupId>, ClientError> {
        let what = format!("draining node {node}");
        let response = self
            .core
            .change(&what, request, |mut client, request| async move {
                client.drain_node(request).await
            })
            .await?;
        Ok(response.group_ids.into_iter().map(GroupId).collect())
    }

    /// Removes a data node that hosts no replica. Its data directory is refused from then on.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `MembershipBusy` while it hosts replicas, `NodeNotFound`, `NodeAlreadyRemoved` and others.
    pub async fn remove_node(&self, node: NodeId) -> Result<(), ClientError> {
        let request = v1::RemoveNodeRequest { node_id: node.get() };
        let what = format!("removing node {node}");
        self.core
            .change(&what, request, |mut client, request| async move {
                client.remove_node(request).await
            })
            .await
            .map(drop)
    }
}
