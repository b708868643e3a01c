//! Tidewater's client: finds the node that serves a key, repeats what may be repeated, and says
//! truly what became of it.
//!
//! # Layout
//!
//! - [`Client`] (`client`): connecting; [`ClientOptions`] (`options`), [`ClientError`] (`error`).
//! - [`catalog`]: tables, routes, groups and nodes, kept up to date in the background.
//! - `router`, `leaders`, `pool`: one attempt of a call, made where the leader is thought to be.
//! - [`outcome`]: what an answer says about a write (*failed* or *unknown*) and what to do next.
//! - `core`: calls that are repeated until they are settled; [`admin`]: those of an operator.
//! - [`write`]: [`TableWriter`], by which each row takes effect once.
//! - [`bulk`]: [`BulkLoader`], by which rows become files at once.
//! - [`scan`]: scans, counts and reads by key.
//! - [`predicate`], [`values`]: conditions from text, and whether a text is a value.
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
pub use self::bulk::{BulkLoader, LoadedBatch};
pub use self::catalog::{Catalog, RouteInfo, TableInfo};
pub use self::client::Client;
pub use self::error::ClientError;
pub use self::options::{ClientOptions, IdSource, WriterOptions};
pub use self::scan::{ScanSpec, ScanStream};
pub use self::write::{TableWriter, WriteReport};
