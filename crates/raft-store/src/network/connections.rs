use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::raft_client::RaftClient;
use tidewater_rpc::{Channels, ConnectPolicy, MESSAGE_BYTES};
use tonic::transport::Channel;

/// Most connections: three lanes to each of 1,024 nodes.
const MAX_CHANNELS: usize = 3 * 1_024;

/// Purpose of a connection to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ConnectionLane {
    /// Heartbeats, votes, leader transfers: small and urgent.
    Control,
    /// Appends.
    Bulk,
    /// Snapshots.
    Snapshot,
}

/// Channels to nodes, one for each lane.
#[derive(Debug)]
pub(super) struct Connections(Channels<(NodeId, ConnectionLane)>);

impl Default for Connections {
    fn default() -> Self {
        Self(Channels::with_limit(ConnectPolicy::RAFT, MAX_CHANNELS))
    }
}

impl Connections {
    /// Returns a client of the node at an address, over this lane.
    pub(super) fn client(
        &self,
        node: NodeId,
        address: &str,
        lane: ConnectionLane,
    ) -> Result<RaftClient<Channel>, Refusal> {
        let channel = self.0.keyed((node, lane), address)?;
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES))
    }

    /// Drops the connections to a node: the next calls open new ones. Used when another node
    /// responds at the old address, as it would continue to do so.
    pub(super) fn forget(&self, node: NodeId) {
        self.0.forget(|(known, _)| *known == node);
    }
}
