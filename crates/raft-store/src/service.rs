//! Server side of the Raft network: RPCs, dispatched by (target node, group) to a node's groups.
//!
//! A process may run several nodes (`standalone` is a meta and a data node) behind one listener.
//! The service therefore has one *host* for each node, and a host has the node's groups. A message
//! for another cluster, another node, or a group without a replica on this node is refused with its
//! own reason, before its content is read.
//!
//! # Layout
//!
//! - `handler`: a group's responses, independent of its state machine.
//! - `host`: the groups of a node; `dispatch`: lookup of the destination, with its RPC errors.
//! - `peer_check`: which messages no member sends (pure); `peers`: their refusal;
//!   `confirmed_members`: members that other members named.
//! - `rpc`: the gRPC methods; `heartbeats`: heartbeats of all groups on one stream; `incoming`: a
//!   snapshot that arrives in chunks.

use std::sync::Arc;

use parking_lot::RwLock;
use tidewater_common::ids::NodeId;
use tidewater_proto::v1::raft_server::RaftServer;
use tidewater_rpc::MESSAGE_BYTES;

mod committed_check;
mod confirmed_members;
mod dispatch;
mod handler;
mod heartbeats;
mod host;
mod incoming;
mod peer_check;
mod peers;
mod rpc;

pub use handler::{GroupHandler, HandlerError, PeerInput};
pub use host::{MemberRecords, RaftHost};
pub use peer_check::ReplicaView;

/// Implementation of the proto service `Raft` for all nodes of a process. Clones are the same
/// service.
#[derive(Debug, Clone, Default)]
pub struct RaftService {
    hosts: Arc<RwLock<Vec<Arc<RaftHost>>>>,
}

impl RaftService {
    /// Creates a service without nodes, which refuses all calls.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node, replacing an older host of the same node.
    pub fn add_host(&self, host: Arc<RaftHost>) {
        let mut hosts = self.hosts.write();
        remove(&mut hosts, host.node_id());
        host.set_removed(false);
        hosts.push(host);
    }

    /// Removes a node and ends the streams to it.
    pub fn remove_host(&self, node: NodeId) {
        remove(&mut self.hosts.write(), node);
    }

    /// Returns the gRPC service with its message limits, for a router.
    pub fn into_server(self) -> RaftServer<Self> {
        RaftServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }
}

fn remove(hosts: &mut Vec<Arc<RaftHost>>, node: NodeId) {
    for host in hosts.extract_if(.., |known| known.node_id() == node) {
        host.set_removed(true);
    }
}

#[cfg(test)]
mod tests;
