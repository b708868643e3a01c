//! One region of a table: memtable, Parquet SSTs, manifest, scan, flush. Knows no Raft, no routes
//! and no network; it is given an object store, a clock, ids and options.
//!
//! A program that keeps rows itself opens a region and needs nothing else; `examples/embed.rs` does
//! so with a hook that sees every change. In short:
//!
//! ```no_run
//! # use std::{error::Error, sync::Arc};
//! # use tidewater_common::{clock::SystemClock, ids::*};
//! # use tidewater_region_engine::{env::*, storage::Storage, *};
//! # async fn keep(spec: RegionSpec, rows: RowsWrite) -> Result<(), Box<dyn Error>> {
//! let storage = Storage::open("file:///var/lib/rows").await?;
//! let (clock, ids) = (Arc::new(SystemClock), Arc::new(SystemIds));
//! let memory = MemoryBudget::new(64 << 20);
//! let env = RegionEnv::new(storage, clock, ids, memory, EngineOptions::default());
//! let region = Region::new(env, spec, Sequence(1), Sequence(0))?;
//! region.take_ownership(OwnerEpoch::default(), GroupId(1)).await?;
//! region.apply(rows)?;
//! region.flush().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! - [`bulk`]: files that somebody else wrote: writer, checks.
//! - [`cache`]: pieces of objects in memory, for all regions of a process.
//! - [`env`](mod@env): what a region is handed: store, clock, ids, options.
//! - [`error`]: the engine's error: what was attempted on what, failed and unknown told apart.
//! - [`file_meta`]: what the manifest says about one data file.
//! - [`index`]: what says which keys a file cannot hold; built in the background.
//! - [`layout`]: where the objects of a region lie.
//! - [`storage`]: the object store: put if absent, durable local files, probe.
//! - [`region`]: the region as its host sees it: apply, scan, flush, take ownership.
//! - [`memtable`]: sorted runs of rows that are not flushed yet.
//! - [`memory`]: the budget that all memtables of a process share.
//! - [`read`]: scans and point reads: merge, filter.
//! - [`sst`]: data files: writer, reader, checksums.
//! - [`compaction`]: merges files into fewer: picker, jobs, commit.
//! - [`gc`]: deletes the objects that no manifest names any more.
//! - [`hooks`]: observers of regions: the trait, the registry, how a bad one is kept apart.
//! - `flush`, `version`, `row_versions`: from runs to files; what a read pins; the shape of rows.
//! - [`manifest`]: versioned record of what a region consists of: replay, commit, fencing.

pub mod bulk;
pub mod cache;
pub mod compaction;
pub mod env;
pub mod error;
mod expiry;
pub mod file_meta;
mod flush;
pub mod gc;
#[cfg(test)]
mod histories;
pub mod hooks;
pub mod index;
pub mod layout;
pub mod manifest;
pub mod memory;
pub mod memtable;
pub mod read;
pub mod region;
mod row_versions;
#[cfg(test)]
mod schedule;
pub mod sst;
pub mod storage;
mod version;

pub use self::error::EngineError;
pub use self::hooks::{Plugins, RegionHook, RegionHookRef};
pub use self::memory::MemoryBudget;
pub use self::memtable::{RowsWrite, RunImage};
pub use self::read::{CompareOp, Predicate, RowStream, ScanMeter, ScanOptions, ScanStats};
pub use self::region::{
    CompactionReport, FlushReport, IndexReport, Region, RegionSpec, RegionStats,
};
pub use self::row_versions::RowOp;
