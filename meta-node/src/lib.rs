//! Meta node: Raft group 0 with the catalog of tables, routes, groups and nodes, and the services
//! that run on its leader.
//!
//! # Layout
//!
//! - [`catalog`]: records, their stored bytes, and the state that they form. Pure.
//! - `catalog_events`: events of the catalog, which each replica derives from the log. Pure, except for the memory of the
//!   last ones.
//! - [`commands`]: validation of each command and the resulting change of the state. Pure.
//! - [`machine`]: the replicated state machine: the state in memory, in RocksDB, in snapshots.
//! - [`group`]: this node's replica: proposals, linearizable reads, leadership.
//! - `feed`: the catalog as it is sent to watchers.
//! - `leader`: tasks of the leader: replicated time, failure detection, placement, procedures, problems.
//! - `services`: the RPC services `Meta`, `Admin`, `HookAdmin`, `HookCursors`, `Procedures` and
//!   `MetaMembers`.
//! - `meters`: metrics of these services.
//! - `join`: the handshake by which a node with an empty directory joins a cluster.
//! - [`node`]: start and shutdown of the complete node in a process.
//!
//! Start reading at [`commands`].

pub mod catalog;
mod catalog_events;
pub mod commands;
mod feed;
pub mod group;
mod join;
mod leader;
pub mod machine;
mod meters;
pub mod node;
mod services;

pub use leader::BarrierOptions;
pub use meters::METRICS;
pub use node::{Bootstrap, Meta, MetaError, MetaLeadership, MetaOptions};
