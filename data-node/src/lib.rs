//! Hosts data groups and serves their regions.
//!
//! A data group is a Raft group whose log is the write-ahead log of the regions assigned to it. Its
//! leader owns those regions: it acknowledges writes and flushes; followers apply the same log to
//! the same memtables.
//!
//! # Layout
//!
//! - [`node`]: the process's part: identity, object store, registration, heartbeats, shutdown.
//! - [`options`]: what a data node is started with.
//! - [`groups`]: the groups of this node, started and stopped at runtime.
//! - [`group`]: one replica: entries, apply, producers, snapshots, batching, admission.
//! - [`leadership`]: what a leader does for its regions: ownership, flushes, manifest advances; and
//!   what every replica does: snapshots, purging.
//! - [`control`], [`data`], [`region_admin`]: the services `GroupControl`, `Data`, `RegionAdmin`.
//! - [`hooks`]: hooks by configuration, as the catalog has them.
//! - [`durable`]: tells durable ones what the manifests say.
//! - [`peers`]: calls to other data nodes. [`compactors`]: compactor nodes, and the jobs that they have.

pub mod compactors;
pub mod control;
pub mod data;
pub mod durable;
pub mod group;
pub mod groups;
pub mod hooks;
pub mod leadership;
mod meters;
pub mod node;
pub mod options;
pub mod peers;
pub mod region_admin;

pub use node::{DataNode, StartError};
pub use options::DataOptions;
