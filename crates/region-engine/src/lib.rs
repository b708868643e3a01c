//! One region of a table: memtable, Parquet SSTs, manifest, scan, flush. Knows no Raft, no routes
//! and no network; it is given an object store, a clock, ids and options.
//!
//! # Layout
//!
//! - [`env`](mod@env): what a region is handed: store, clock, ids, options.
//! - [`error`]: the engine's error: what was attempted on what, failed and unknown told apart.
//! - [`file_meta`]: what the manifest says about one data file.
//! - [`layout`]: where the objects of a region lie.
//! - [`storage`]: the object store: put if absent, durable local files, probe.
//! - [`manifest`]: versioned record of what a region consists of: replay, commit, fencing.

pub mod env;
pub mod error;
pub mod file_meta;
pub mod layout;
pub mod manifest;
pub mod storage;
