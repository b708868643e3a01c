//! One region of a table: memtable, Parquet SSTs, manifest, scan, flush. Knows no Raft, no routes
//! and no network; the caller passes an object store, a clock, an id source and options.
//!
//! A program that stores rows in its own process opens a region and needs nothing else;
//! `examples/embed.rs` does so with a hook that observes every change. In short:
//!
//! ```no_run
//! # use std::{error::Error, sync::Arc};
//! # use tidewater_common::{clock::SystemClock, ids::*};
//! # use tidewater_region_engine::{env::*, storage::Storage, *};
//! # async fn keep(spec: RegionSpec, rows: RowsWrite) -> Result<(), Box<dyn Error>> {
//! let storage = Storage::open("file:///var/lib/rows").await?;
//! let clock = Arc::new(SystemClock);
//! let ids = Arc::new(SystemIds);
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
//! The engine logs flushes and compactions that its caller starts at debug. A data node logs one line at
//! info for each, with more fields; other programs log the reports that the calls return.
//!
//! # Layout
//!
//! - [`bulk`]: files written outside the engine: writer, checks.
//! - [`cache`]: ranges of objects in memory, shared by all regions of a process.
//! - [`env`](mod@env): dependencies of a region: store, clock, ids, options.
//! - [`error`]: the engine's error type; distinguishes failed from unknown outcomes.
//! - [`file_meta`]: the manifest's record of one data file.
//! - [`index`]: indexes that rule out keys a file cannot hold; built in the background.
//! - [`layout`]: paths of the objects of a region.
//! - [`storage`]: the object store: put if absent, durable local files, probe.
//! - [`region`]: the public interface of a region: apply, scan, flush, take ownership.
//! - [`memtable`]: sorted runs of rows that are not flushed yet.
//! - `meters`: metrics of reads, caches and hook calls.
//! - [`memory`]: the memory budget shared by all memtables of a process.
//! - [`read`]: scans and point reads: merge, filter.
//! - [`sst`]: data files: writer, reader, checksums.
//! - [`compaction`]: rewrites files into fewer files: picker, jobs, commit.
//! - [`gc`]: garbage collection of unreferenced objects.
//! - [`hooks`]: observers of regions: the trait, the registry, the isolation of failing hooks.
//! - `flush`, `version`, `row_versions`: writing of runs to files; the files that a read pins; batches
//!   of rows in memory.
//! - [`manifest`]: versioned record of a region's files and metadata: replay, commit, fencing.

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
mod meters;
pub mod read;
pub mod region;
mod row_versions;
#[cfg(test)]
mod schedule;
pub mod sst;
pub mod storage;
mod version;
mod workers;

pub use self::error::EngineError;
pub use self::hooks::{Plugins, RegionHook, RegionHookRef};
pub use self::memory::MemoryBudget;
pub use self::memtable::{RowsWrite, RunImage};
pub use self::meters::METRICS;
pub use self::read::{
    AsOf, CompareOp, Predicate, RowOrder, RowStream, ScanMeter, ScanOptions, ScanStats, TableShape,
};
pub use self::region::{
    CompactionReport, FlushReport, IndexReport, Parent, Region, RegionSpec, RegionStats,
};
pub use self::row_versions::RowOp;
