//! Log store, network and node identity, shared by all Raft groups of a node.
//!
//! A *node* is a process with a data directory. It holds replicas of any number of *groups*. Group
//! 0 is the meta group. All groups of a node write to one RocksDB through one flusher, so that one
//! synced write serves them all, and all groups of two nodes share the same connections.
//! This crate does not know what a group replicates.
//!
//! # Layout
//!
//! - [`types`]: the one Raft type configuration, and its conversions to and from the wire.
//! - [`config`]: openraft's settings for meta and data groups.
//! - [`identity`]: the data directory with its lock, the node's identity and the log store.
//! - [`log_store`]: votes and entries of all groups in one RocksDB, and the behaviour on a full
//!   disk.
//! - [`snapshot_file`]: synced snapshot files with length and checksum.
//! - [`leader_history`]: leaders that a replica has seen, and the reasons of changes (pure).
//! - [`membership`]: changes of a group's voters, and recovery of interrupted changes.
//! - `meters`: metrics of the log store.
//! - [`network`]: the client side: connections, pipelined appends, snapshots in chunks.
//! - [`linearize`](mod@linearize): linearizable reads: proof of leadership, then the read index.
//! - [`service`]: the server side: dispatch by (target node, group) to the groups of a node.
//!
//! # How a node uses it
//!
//! 1. [`DataDirectory::open`] locks the directory, opens the log store and checks the identity.
//! 2. [`DataDirectory::adopt`] stores the identity once, when the node has received its id.
//! 3. One [`NetworkFactory`] and one [`RaftHost`] per node, one [`RaftService`] per process.
//! 4. For each group: `openraft::Raft::new(node, raft_config(kind), factory.group(group),
//!    store.group(group), state_machine)`, then [`RaftHost::add`].
//! 5. The node exits when [`LogStore::health`] reports [`DiskHealth::Failed`], and refuses
//!    proposals while it reports [`DiskHealth::Full`].

pub mod config;
pub mod identity;
pub mod leader_history;
pub mod linearize;
pub mod log_store;
pub mod membership;
mod meters;
pub mod network;
pub mod service;
pub mod snapshot_file;
#[cfg(test)]
mod testing;
pub mod types;

pub use config::{GroupKind, raft_config};
pub use identity::{DataDirectory, Identity, IdentityError, Role};
pub use leader_history::{LeaderCause, LeaderChange, LeaderHistory, LeaderView};
pub use linearize::{ReadError, linearize};
pub use log_store::{
    DiskHealth, GroupLog, LogStore, LogStoreOptions, LogUsage, StoreError, retry_while_disk_full,
};
pub use meters::METRICS;
pub use network::{Confirmations, GroupNetworkFactory, NetworkFactory};
pub use service::{GroupHandler, MemberRecords, PeerInput, RaftHost, RaftService};
pub use snapshot_file::{SnapshotFile, SnapshotFileError, SnapshotWriter};
pub use types::{Command, Member, Raft, Reply, TypeConfig};
