//! What all Raft groups of a node share: log store, network, node identity.
//!
//! A *node* is a process with a data directory. It holds replicas of any number of *groups*; group
//! 0 is the meta group. All groups of a node write to one RocksDB through one flusher, so that one
//! synced write serves them all, and all groups of two nodes talk over the same connections.
//! Nothing here knows what a group replicates.
//!
//! # Layout
//!
//! - [`types`]: the one Raft type configuration, and its conversions to and from the wire.
//! - [`config`]: openraft's settings for meta and data groups.
//! - [`identity`]: the data directory: its lock, who the node is, and the log store in it.
//! - [`log_store`]: votes and entries of all groups in one RocksDB, and what happens when the disk
//!   is full.
//! - [`snapshot_file`]: a snapshot at rest: a synced file with length and checksum.
//! - [`membership`]: changes of a group's voters, and those that were cut off.
//! - `meters`: metrics of the log store.
//! - [`network`]: the calling side: addresses, connections, pipelined appends, snapshots in chunks.
//! - [`registration`]: how data and compactor nodes join: registering, heartbeats, addresses.
//! - [`linearize`](mod@linearize): linearizable reads: proof of leadership, then what was committed before.
//! - [`service`]: the answering side: dispatch by (target node, group) to groups that come and go.
//!
//! # How a node uses it
//!
//! 1. [`DataDirectory::open`] locks the directory, opens the log store, checks who the node is.
//! 2. [`DataDirectory::adopt`] once, when the node has got its id.
//! 3. One [`NetworkFactory`] and one [`RaftHost`] per node, one [`RaftService`] per process.
//! 4. For each group: `openraft::Raft::new(node, raft_config(kind), factory.group(group),
//!    store.group(group), state_machine)`, then [`RaftHost::add`].
//! 5. The node exits when [`LogStore::health`] says [`DiskHealth::Failed`], and refuses proposals
//!    while it says [`DiskHealth::Full`].

pub mod config;
pub mod identity;
pub mod linearize;
pub mod log_store;
pub mod membership;
mod meters;
pub mod network;
pub mod registration;
pub mod service;
pub mod snapshot_file;
#[cfg(test)]
mod testing;
pub mod types;

pub use config::{GroupKind, raft_config};
pub use identity::{DataDirectory, Identity, IdentityError, Role};
pub use linearize::{ReadError, linearize};
pub use log_store::{
    DiskHealth, GroupLog, LogStore, LogStoreOptions, StoreError, when_there_is_room,
};
pub use meters::METRICS;
pub use network::{AddressBook, Confirmations, GroupNetworkFactory, NetworkFactory};
pub use registration::{MetaLink, RegisterError};
pub use service::{GroupHandler, RaftHost, RaftService};
pub use snapshot_file::{SnapshotFile, SnapshotFileError, SnapshotWriter};
pub use types::{Command, Member, Raft, Reply, TypeConfig};
