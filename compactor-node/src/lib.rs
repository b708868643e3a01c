//! A compactor node: no durable state, jobs from the owners of regions.
//!
//! Words: a **handle** is a region that an owner has opened here, with its hooks; it ends when it is
//! closed, not used for a while, or when a later owner opens the region. A **job** is one attempt at
//! a plan. A **slot** is the right to run one; jobs share the memory that is for merges. A job that
//! was accepted goes on without its caller, and the manifest says what came of it.
//!
//! # Layout
//!
//! - [`node`]: started, asked for its services, drained. `parts`: what its services share.
//! - [`options`]: settings, and what follows from them for the engine.
//! - `service`: the gRPC service, a file per call.
//! - `handles`: regions that are open (pure). `admission`: whether a job is taken, and with what (pure).
//! - `jobs`: those that run. `run`: one job's life. `disk`: room for outputs.
//! - `meters`: what `/metrics` shows.

mod admission;
mod disk;
mod handles;
mod jobs;
mod meters;
pub mod node;
pub mod options;
mod parts;
mod run;
mod service;
#[cfg(test)]
mod testing;

pub use node::{CompactorNode, ServeError, StartError};
pub use options::CompactorOptions;
