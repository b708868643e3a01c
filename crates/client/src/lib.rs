//! Tidewater's client: routes calls to the node that serves a key, retries them where that is safe,
//! and reports whether a write was acknowledged, failed, or has an unknown outcome.
//!
//! # Layout
//!
//! - [`Client`] (`client`): connecting; [`ClientOptions`] (`options`), [`ClientError`] (`error`).
//! - [`catalog`]: tables, routes, groups and nodes, kept up to date in the background.
//! - `router`, `leaders`, `pool`: one attempt of a call, made at the likely leader.
//! - [`outcome`]: classification of failed attempts (*failed* or *unknown*) and the retry action.
//! - `core`: calls with retries; [`admin`]: the calls of an operator.
//! - [`write`]: [`TableWriter`], with which each row takes effect exactly once.
//! - [`bulk`]: [`BulkLoader`], which loads rows directly as files.
//! - [`scan`]: scans, counts and reads by key.
//! - [`predicate`], [`values`]: conditions from text, and validation of text values.
//! - `backoff`: waits between attempts.

pub mod admin;
pub mod backoff;
pub mod bulk;
pub mod catalog;
mod client;
mod core;
mod error;
#[cfg(test)]
mod fake;
mod leaders;
pub mod options;
pub mod outcome;
mod pool;
pub mod predicate;
mod router;
pub mod scan;
pub mod values;
pub mod write;

pub use self::admin::{HookFrom, NewHook, NewTable};
pub use self::bulk::{BulkLoadReport, BulkLoader};
pub use self::catalog::{Catalog, RouteInfo, TableInfo};
pub use self::client::Client;
pub use self::error::ClientError;
pub use self::options::{ClientOptions, IdSource, WriterOptions};
pub use self::scan::{ScanSpec, ScanStream};
pub use self::write::{TableWriter, WriteReport};
