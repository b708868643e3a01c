//! One replica of a data group.
//!
//! A write's way: [`admission`] checks it, the [`batcher`] puts it with others into an [`entry`],
//! Raft replicates that, the [`state_machine`] has it [`apply`]ed to the replicated [`state`] and
//! the memtables of the [`hosted`] regions, and the outcome goes back the same way.
//!
//! # Layout
//!
//! - Pure: [`descriptor`], [`entry`], [`producers`], [`obligation`], [`state`], [`apply`], [`batch`], [`log_bytes`],
//!   [`admission`], [`refusals`].
//! - Shells: [`state_machine`], [`snapshot`], [`batcher`], [`loader`], [`merger`], [`replica`];
//!   [`shared`] is what they have in common, [`area_work`] who takes files over.

pub mod admission;
pub mod apply;
pub mod area_work;
pub mod batch;
pub mod batcher;
pub mod descriptor;
pub mod entry;
pub mod hosted;
pub mod loader;
pub mod log_bytes;
pub mod merger;
pub mod obligation;
pub mod producers;
pub mod refusals;
pub mod replica;
pub mod shared;
pub mod snapshot;
pub mod state;
pub mod state_machine;
#[cfg(test)]
pub(crate) mod testing;
