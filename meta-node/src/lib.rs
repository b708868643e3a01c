//! Raft group 0: the catalog of tables, routes, groups and nodes, and the services that lead the
//! cluster.
//!
//! # Layout
//!
//! - [`catalog`]: records, their stored bytes, and the state they make up. Pure.
//! - [`commands`]: what each command does to the state: validation, then a change. Pure.
//! - [`machine`]: the replicated state machine: the state in memory, in RocksDB, in snapshots.
//! - [`group`]: this node's replica: proposing, reading, who leads.
//! - `leader`: what only the leader does: time, failure detection, placement, procedures.
//! - `services`: the RPC services `Meta` and `Admin`.
//! - `join`: how a node with an empty directory becomes part of a cluster.
//! - [`node`]: the whole, as a process starts and stops it.
//!
//! Start reading at [`commands`].

pub mod catalog;
pub mod commands;
pub mod group;
mod join;
mod leader;
pub mod machine;
pub mod node;
mod services;

pub use node::{Bootstrap, Meta, MetaError, MetaOptions};
