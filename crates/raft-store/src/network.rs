//! The calling side: how a group's leader and candidates reach the other replicas.
//!
//! All groups of two nodes share their connections. There are three *lanes*, each one connection
//! for a pair of nodes, made when it is first used: heartbeats, votes and leader transfers
//! (control) never wait behind large appends (bulk), nor those behind a snapshot.
//!
//! Every call names cluster, source, target and group, so that a new node on an old address does
//! not answer for the old one. Every call has a deadline.
//!
//! # Layout
//!
//! - `addresses`: where nodes are; `connections`: channels to them.
//! - `group_network`: one group's calls to one node; `append_stream`: pipelined appends, and
//!   `held_commit`: those that need not be sent; `heartbeats`: those of all groups on one stream;
//!   `confirmations`: what they prove to readers;
//!   `snapshot_stream`: a snapshot in chunks; `error`: what openraft makes of a refusal.

use std::sync::Arc;

use openraft::RaftNetworkFactory;
use tidewater_common::ids::{ClusterId, GroupId, NodeId};

use crate::types::{Member, TypeConfig};

mod addresses;
mod append_stream;
mod confirmations;
mod connections;
mod error;
mod group_network;
mod heartbeats;
mod held_commit;
mod snapshot_stream;

pub use addresses::AddressBook;
pub use confirmations::Confirmations;
pub use group_network::GroupNetwork;

use connections::{Connections, Lane};
use heartbeats::Heartbeats;

/// Largest message in either direction, in bytes. A single entry must stay well below it.
pub const MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Makes the networks of all groups of a node. Clones share their connections.
#[derive(Debug, Clone)]
pub struct NetworkFactory {
    shared: Arc<Shared>,
}

/// What the networks of a node have in common.
#[derive(Debug)]
struct Shared {
    cluster_id: ClusterId,
    node_id: NodeId,
    addresses: Arc<AddressBook>,
    connections: Connections,
    heartbeats: Heartbeats,
}

impl NetworkFactory {
    /// For a node of a cluster; addresses are looked up in the book for each call.
    pub fn new(cluster_id: ClusterId, node_id: NodeId, addresses: Arc<AddressBook>) -> Self {
        let connections = Connections::default();
        let heartbeats = Heartbeats::default();
        let shared = Shared { cluster_id, node_id, addresses, connections, heartbeats };
        Self { shared: Arc::new(shared) }
    }

    /// The network of a group, for `openraft::Raft::new`.
    pub fn group(&self, group: GroupId) -> GroupNetworkFactory {
        let confirmations = Arc::default();
        GroupNetworkFactory { shared: Arc::clone(&self.shared), group, confirmations }
    }

    /// The address book.
    pub fn addresses(&self) -> &Arc<AddressBook> {
        &self.shared.addresses
    }
}

/// Makes a group's networks to its other members.
#[derive(Debug, Clone)]
pub struct GroupNetworkFactory {
    shared: Arc<Shared>,
    group: GroupId,
    confirmations: Arc<Confirmations>,
}

impl GroupNetworkFactory {
    /// What the answers to this group's heartbeats prove.
    pub fn confirmations(&self) -> &Arc<Confirmations> {
        &self.confirmations
    }

    fn client(&self, target: u64, member: &Member, lane: Lane) -> GroupNetwork {
        // The membership names the address that was right when the member joined; whoever knows a
        // later one has put it into the book.
        self.shared.addresses.set_if_absent(NodeId(target), &member.address);
        let confirmations = Arc::clone(&self.confirmations);
        let shared = Arc::clone(&self.shared);
        GroupNetwork::new(shared, self.group, NodeId(target), lane, confirmations)
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNetworkFactory {
    type Network = GroupNetwork;

    async fn new_client(&mut self, target: u64, node: &Member) -> Self::Network {
        self.client(target, node, Lane::Bulk)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Self::Network {
        self.client(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> Self::Network {
        self.client(target, node, Lane::Snapshot)
    }
}

#[cfg(test)]
mod tests;
