//! Clusters of real processes under every fault that the design must survive.
//!
//! Each module is a kind of fault. Writes are in flight during the fault, and at the end the oracle
//! compares their outcomes with a scan.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod alters;
mod bad_start;
mod bad_wire;
mod beside_duckdb;
mod bulk;
mod callers;
mod catalog_reads;
mod change;
mod clocks;
mod collections;
mod commands;
mod compactors;
mod copied_directories;
mod drains;
mod durable_hooks;
mod earlier;
mod epochs;
mod events;
mod exports;
mod faulty_store;
mod file_readers;
mod flights;
mod forged;
mod freeze;
mod full_disk;
mod garbage;
mod growth;
mod hanging_nodes;
mod hook_calls;
mod hooks;
mod hotspots;
mod joins;
mod kill;
mod kill_points;
mod load_create;
mod lost_nodes;
mod many_runs;
mod member_replacement;
mod memory;
mod moves;
mod nycflights;
mod partition;
mod problems;
mod python;
mod quiet_start;
mod reader;
mod readme;
mod reflection;
mod refreshes;
mod releases;
mod reserved;
mod restart;
mod rolling_restart;
mod s3;
mod scan_memory;
mod scan_results;
mod splits;
mod statistics;
mod stubs;
mod support;
mod upgrade;
