//! A compactor node: runs compaction jobs for the owners of regions, without durable state of its
//! own.
//!
//! - *Handle*: a region that an owner has opened on this compactor, with its hooks. Lives until it
//!   is closed, was not used for a while, or a later owner opens the region.
//! - *Job*: one attempt at a compaction plan. An accepted job continues without its caller; the
//!   manifest records its result.
//! - *Slot*: permission to run one job. All jobs share the memory for compactions.
//!
//! # Layout
//!
//! - [`node`]: start, services and draining of the node. `context`: state shared by its services.
//! - [`options`]: options of the node, and the engine options derived from them.
//! - `service`: the gRPC service, one file per call.
//! - `handles`: open regions (pure). `events`: events of the node.
//! - `jobs`: running jobs, admitted by [`tidewater_region_engine::compaction::admission`]. `run`: life of
//!   one job.
//! - `meters`: metrics of `/metrics`.

mod context;
mod events;
mod handles;
mod jobs;
mod meters;
pub mod node;
pub mod options;
mod run;
mod service;
#[cfg(test)]
mod testing;

pub use meters::METRICS;
pub use node::{CompactorNode, ServeError, StartError};
pub use options::CompactorOptions;
