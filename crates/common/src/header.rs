//! Sender and intended receiver of a call between nodes.

use tidewater_proto::v1::{CallHeader, Reason};

use crate::ids::{ClusterId, NodeId};
use crate::quote::quoted;
use crate::refusal::Refusal;

/// Sender of calls to the nodes of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallSender {
    /// Cluster of sender and receivers.
    pub cluster: ClusterId,
    /// The sending node.
    pub node: NodeId,
}

impl CallSender {
    /// A client, which is no node of the cluster.
    #[must_use]
    pub fn client(cluster: ClusterId) -> Self {
        Self { cluster, node: NodeId(0) }
    }

    /// Returns the header of a call to a node, which the node checks by [`check_header`].
    #[must_use]
    pub fn header(&self, target: NodeId) -> CallHeader {
        CallHeader {
            cluster_id: self.cluster.to_string(),
            source_node: self.node.get(),
            target_node: target.get(),
            catalog_revision: 0,
        }
    }
}

/// Returns whether a node has sent a call, and not a client.
#[must_use]
pub fn is_from_node(header: Option<&CallHeader>) -> bool {
    header.is_some_and(|header| header.source_node != 0)
}

/// Rejects a call that is meant for another cluster or another node: a new node on an old address
/// must not answer for the old one.
///
/// # Errors
/// [`Reason::InvalidArgument`] without a header, [`Reason::WrongCluster`], [`Reason::WrongNode`].
pub fn check_header(
    cluster: ClusterId,
    node: NodeId,
    header: Option<&CallHeader>,
) -> Result<(), Refusal> {
    let Some(header) = header else {
        return Err(Refusal::new(
            Reason::InvalidArgument,
            "the call has no header: a call between nodes must name its cluster and target node",
        ));
    };
    if header.cluster_id != cluster.to_string() {
        return Err(Refusal::new(
            Reason::WrongCluster,
            format!(
                "this node belongs to cluster {cluster}, not to {}",
                quoted(&header.cluster_id)
            ),
        ));
    }
    if header.target_node != node.get() {
        return Err(Refusal::new(
            Reason::WrongNode,
            format!("this is node {node}, not node {}", header.target_node),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn senders_are_nodes_or_clients() {
        let cluster = ClusterId(Uuid::from_u128(1));
        let node = CallSender { cluster, node: NodeId(1) };
        assert!(is_from_node(Some(&node.header(NodeId(4)))));
        assert!(!is_from_node(Some(&CallSender::client(cluster).header(NodeId(4)))));
        assert!(!is_from_node(None));
    }

    #[test]
    fn calls_for_other_nodes_are_refused() {
        let cluster = ClusterId(Uuid::from_u128(1));
        let header =
            |cluster, target| CallSender { cluster, node: NodeId(1) }.header(NodeId(target));
        let refused = |header: Option<CallHeader>| {
            check_header(cluster, NodeId(4), header.as_ref()).err().map(|refusal| refusal.reason)
        };
        assert_eq!(refused(Some(header(cluster, 4))), None);
        assert_eq!(refused(Some(header(cluster, 5))), Some(Reason::WrongNode));
        let other = ClusterId(Uuid::from_u128(2));
        assert_eq!(refused(Some(header(other, 4))), Some(Reason::WrongCluster));
        assert_eq!(refused(None), Some(Reason::InvalidArgument));
    }
}
