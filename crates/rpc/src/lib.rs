//! Calls between the nodes of a cluster.
//!
//! This crate knows how one node calls another, and neither the Raft log nor the regions.
//!
//! # Layout
//!
//! - [`AddressBook`] (`addresses`): addresses of nodes.
//! - [`MetaLink`] (`meta_link`): calls of data and compactor nodes to the meta group: registration,
//!   heartbeats, cursors of durable hooks, the catalog watch.

mod addresses;
mod meta_link;

pub use addresses::AddressBook;
pub use meta_link::{MetaLink, RegisterError};

/// Largest message between nodes in either direction, in bytes. A log entry must stay well below it.
pub const MESSAGE_BYTES: usize = 64 << 20;
