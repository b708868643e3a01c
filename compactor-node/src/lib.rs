//! A compactor node: no durable state, jobs from region owners.
//!
//! It registers, shows that it lives, and is idle: job RPCs come with remote compaction.
//!
//! # Layout
//!
//! - [`node`]: started, asked for its services, drained.

pub mod node;

pub use node::{CompactorNode, CompactorOptions, StartError};
