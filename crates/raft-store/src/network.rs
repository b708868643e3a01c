//! Client side of the Raft network: the calls of a group's leader and candidates to its replicas.
//!
//! All groups of two nodes share their connections. There are three *connection lanes*, each one
//! connection for a pair of nodes that is opened at its first use. HeartbeatStreams, votes and leader
//! transfers (control) never wait behind large appends (bulk), and appends never wait behind a
//! snapshot.
//!
//! Every call carries cluster, source, target and group, so that a new node at an old address does
//! not answer for the old one. Every call has a deadline.
//!
//! # Layout
//!
//! - `connections`: channels to nodes.
//! - `group_network`: one group's calls to one node; `append_stream`: pipelined appends;
//!   `held_commit`: commit updates that ride on the next entries; `heartbeats`: heartbeats of all
//!   groups on one stream; `confirmations`: proof of leadership for readers; `snapshot_stream`: a
//!   snapshot in chunks; `error`: RPC errors as errors of openraft.

use std::sync::Arc;

use openraft::RaftNetworkFactory;
use tidewater_common::ids::{BootNumber, ClusterId, GroupId, NodeId};
use tidewater_rpc::AddressBook;

use crate::types::{Member, TypeConfig};

mod answer_check;
mod append_stream;
mod confirmations;
mod connections;
mod error;
mod group_network;
mod heartbeats;
mod held_commit;
mod snapshot_stream;

pub use confirmations::Confirmations;
pub use group_network::GroupNetwork;

use connections::{ConnectionLane, Connections};
use heartbeats::HeartbeatStreams;

/// Factory of the networks of all groups of a node. Clones share their connections.
#[derive(Debug, Clone)]
pub struct NetworkFactory {
    shared: Arc<NetworkContext>,
}

/// State shared by the networks of all groups of a node.
#[derive(Debug)]
struct NetworkContext {
    cluster_id: ClusterId,
    node_id: NodeId,
    /// Number of this start of the node; 0: not counted.
    boot: BootNumber,
    addresses: Arc<AddressBook>,
    connections: Connections,
    heartbeats: HeartbeatStreams,
}

impl NetworkFactory {
    /// Creates the factory of a node. Each call looks up its address in the address book.
    pub fn new(cluster_id: ClusterId, node_id: NodeId, addresses: Arc<AddressBook>) -> Self {
        Self::of_start(cluster_id, (node_id, BootNumber(0)), addresses)
    }

    /// As [`NetworkFactory::new`], for a node that counts its starts: other nodes refuse its messages once
    /// they know of a newer start.
    pub fn of_start(
        cluster_id: ClusterId,
        (node_id, boot): (NodeId, BootNumber),
        addresses: Arc<AddressBook>,
    ) -> Self {
        let shared = NetworkContext {
            cluster_id,
            node_id,
            boot,
            addresses,
            connections: Connections::default(),
            heartbeats: HeartbeatStreams::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the network of a group, for `openraft::Raft::new`.
    pub fn group(&self, group: GroupId) -> GroupNetworkFactory {
        let confirmations = Arc::default();
        GroupNetworkFactory { shared: Arc::clone(&self.shared), group, confirmations }
    }

    /// Returns the address book.
    pub fn addresses(&self) -> &Arc<AddressBook> {
        &self.shared.addresses
    }
}

/// Factory of a group's networks to its other members.
#[derive(Debug, Clone)]
pub struct GroupNetworkFactory {
    shared: Arc<NetworkContext>,
    group: GroupId,
    confirmations: Arc<Confirmations>,
}

impl GroupNetworkFactory {
    /// Returns the confirmations of this group's leadership.
    pub fn confirmations(&self) -> &Arc<Confirmations> {
        &self.confirmations
    }

    fn client(&self, target: u64, member: &Member, lane: ConnectionLane) -> GroupNetwork {
        // The membership holds the address at the time the member joined. The address book already
        // holds any later address.
        self.shared.addresses.set_if_absent(NodeId(target), &member.address);
        let confirmations = Arc::clone(&self.confirmations);
        let shared = Arc::clone(&self.shared);
        GroupNetwork::new(shared, self.group, NodeId(target), lane, confirmations)
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNetworkFactory {
    type Network = GroupNetwork;

    async fn new_client(&mut self, target: u64, node: &Member) -> Self::Network {
        self.client(target, node, ConnectionLane::Bulk)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Self::Network {
        self.client(target, node, ConnectionLane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> Self::Network {
        self.client(target, node, ConnectionLane::Snapshot)
    }
}

#[cfg(test)]
mod tests;
