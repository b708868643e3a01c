use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::NodeId;
use tidewater_proto::v1::raft_client::RaftClient;
use tonic::transport::{Channel, Endpoint};

use tidewater_rpc::MESSAGE_BYTES;

/// Connect timeout. A live node answers faster.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection without incoming data is closed after interval and timeout, even when the other
/// machine vanished without closing it.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Space for several appends in flight, of up to 4 MiB each.
const STREAM_WINDOW: u32 = 16 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

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

/// Channels to nodes. They connect at their first use, resolve the host name each time they
/// connect, and reconnect automatically.
#[derive(Debug, Default)]
pub(super) struct Connections {
    channels: Mutex<HashMap<(NodeId, ConnectionLane), (String, Channel)>>,
}

impl Connections {
    /// Returns a client of the node at an address, over this lane.
    pub(super) fn client(
        &self,
        node: NodeId,
        address: &str,
        lane: ConnectionLane,
    ) -> Result<RaftClient<Channel>, tonic::transport::Error> {
        let mut channels = self.channels.lock();
        let channel = match channels.get(&(node, lane)) {
            Some((known, channel)) if known == address => channel.clone(),
            _ => {
                let channel = endpoint(address)?.connect_lazy();
                channels.insert((node, lane), (address.to_owned(), channel.clone()));
                channel
            }
        };
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES))
    }

    /// Drops the connections to a node: the next calls open new ones. Used when another node
    /// responds at the old address, as it would continue to do so.
    pub(super) fn forget(&self, node: NodeId) {
        self.channels.lock().retain(|(known, _), _| *known != node);
    }
}

fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}
