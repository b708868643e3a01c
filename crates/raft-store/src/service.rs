//! The answering side: Raft RPCs, dispatched by (target node, group) to groups that come and go.
//!
//! A process may be several nodes (`standalone` is a meta and a data node) behind one listener, so
//! the service knows one *host* for each node, and a host knows the node's groups. A message that
//! is for another cluster, another node, or a group that is not here is refused by name, before
//! anything of it is looked at.
//!
//! # Layout
//!
//! - `handler`: what a group answers, whatever its state machine is.
//! - `host`: the groups of a node; `dispatch`: the refusals.
//! - `rpc`: the gRPC methods; `heartbeats`: those of all groups on one stream; `incoming`: a snapshot
//!   that arrives in chunks.

use std::sync::Arc;

use parking_lot::RwLock;
use tidewater_common::ids::NodeId;
use tidewater_proto::v1::raft_server::RaftServer;

mod dispatch;
mod handler;
mod heartbeats;
mod host;
mod incoming;
mod rpc;

pub use handler::{GroupHandler, HandlerError};
pub use host::RaftHost;

use crate::network::MESSAGE_BYTES;

/// Serves the proto service `Raft` for all nodes of a process. Clones are the same service.
#[derive(Debug, Clone, Default)]
pub struct RaftService {
    hosts: Arc<RwLock<Vec<Arc<RaftHost>>>>,
}

impl RaftService {
    /// A service without nodes: everything is refused until there are some.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node, in place of an older host of the same node.
    pub fn add_host(&self, host: Arc<RaftHost>) {
        let mut hosts = self.hosts.write();
        remove(&mut hosts, host.node_id());
        host.set_gone(false);
        hosts.push(host);
    }

    /// Removes a node; streams to it end.
    pub fn remove_host(&self, node: NodeId) {
        remove(&mut self.hosts.write(), node);
    }

    /// The gRPC service, with its message limits, to add to a router.
    pub fn into_server(self) -> RaftServer<Self> {
        RaftServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }
}

fn remove(hosts: &mut Vec<Arc<RaftHost>>, node: NodeId) {
    for host in hosts.extract_if(.., |known| known.node_id() == node) {
        host.set_gone(true);
    }
}

#[cfg(test)]
mod tests;
