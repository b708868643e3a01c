//! Hosts data groups and serves their regions.
//!
//! A data group is a Raft group whose log is the write-ahead log of the regions assigned to it. Its
//! leader owns those regions: it acknowledges writes and flushes; followers apply the same log to
//! the same memtables.
//!
//! # Layout
//!
//! - [`node`]: the data node as a process component: identity, object store, registration,
//!   heartbeats, shutdown.
//! - [`options`]: start options of a data node.
//! - [`groups`]: replicas on this node, started and stopped at runtime.
//! - [`group`]: one replica: entries, apply, producers, snapshots, batching, admission.
//! - [`leadership`]: work of a leader for its regions: ownership, flushes, compactions, manifest
//!   advances; and work of every replica: snapshots, purging.
//! - [`owner_request`]: requests to the owner of a group's regions.
//! - [`control`], [`data`], [`region_admin`]: the services `GroupControl`, `Data`, `RegionAdmin`.
//! - [`catalog`]: the catalog as watched; [`group_records`]: groups as the meta leader records them.
//! - [`hooks`]: hooks of this node, as configured in the catalog.
//! - [`durable_hooks`]: delivery of manifest changes to durable hooks.
//! - [`refresh`]: the service `RefreshWork`: loads of splits, merges of staged files. [`exports`]: the service `ExportWork`.
//! - [`peers`]: calls to other data nodes. [`compactors`]: compactor nodes and their jobs.
//! - [`node_events`]: events that the node records. `meters`: metrics of the node.

pub mod barriers;
pub mod catalog;
pub mod compactors;
pub mod control;
pub mod data;
pub mod durable_hooks;
pub mod exports;
pub mod group;
pub mod group_records;
pub mod groups;
pub mod hooks;
pub mod leadership;
mod meters;
pub mod node;
pub mod node_events;
pub mod options;
pub mod owner_request;
pub mod peers;
pub mod refresh;
pub mod region_admin;

pub use meters::METRICS;
pub use node::{DataNode, StartError};
pub use options::DataOptions;
