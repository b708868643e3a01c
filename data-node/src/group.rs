//! One replica of a data group.
//!
//! Path of a write: [`admission`] checks it, the [`batcher`] combines it with other writes into an
//! [`entry`], Raft replicates the entry, the [`state_machine`] applies it ([`apply`]) to the
//! replicated [`state`] and the memtables of the [`hosted`] regions, and the outcome returns the
//! same way.
//!
//! # Layout
//!
//! - Pure: [`descriptor`], [`entry`], [`producers`], [`obligation`], [`state`], [`table_sinces`], [`apply`], [`batch`],
//!   [`log_bytes`], [`admission`], [`refusals`].
//! - Shells: [`state_machine`], [`snapshot`], [`batcher`], [`loader`], [`memtable_merger`], [`replica`].
//!   They share [`shared`], which also keeps the [`failing_work`] and the
//!   [`damaged_files`] of the regions; [`staging_work`] serializes the work with staging areas.

pub mod admission;
pub mod admits;
pub mod apply;
pub mod batch;
pub mod batcher;
pub mod damaged_files;
pub mod descriptor;
pub mod entry;
pub mod failing_work;
pub mod hosted;
pub mod loader;
pub mod log_bytes;
pub mod memtable_merger;
pub mod moves;
pub mod obligation;
pub mod producers;
pub mod refresh;
pub mod refusals;
pub mod region_load;
pub mod replica;
pub mod shared;
pub mod snapshot;
pub mod staging_work;
pub mod state;
pub mod state_machine;
pub mod table_sinces;
#[cfg(test)]
pub(crate) mod testing;
