//! Client of Tidewater: routes each operation to the responsible node, retries it where that is safe, and
//! reports its exact outcome.
//!
//! # Layout
//!
//! - [`Client`] (`client`): connection to a cluster; [`ClientOptions`] (`options`), [`ClientError`]
//!   (`error`).
//! - [`catalog`]: tables, routes, groups and nodes, and the task that keeps them up to date, from the crate
//!   `tidewater-catalog`; `catalog_source`: its calls of the meta service; `stale`: waits after answers that a route
//!   or schema is out of date.
//! - `router`, `leaders`: one attempt of a call, at the presumed leader of a group.
//! - [`outcome`]: outcome of a write (*failed* or *unknown*) and reaction to an error.
//! - `core`: calls with retries; [`admin`]: operations of an operator.
//! - [`mod@write`]: [`TableWriter`], which applies each row once; [`OnceWriter`], which does so over restarts of the process.
//! - [`bulk`]: [`BulkLoader`], which writes rows directly as files.
//! - [`scan`]: scans, counts and reads by key.
//! - [`predicate`], [`values`]: parsing of predicates, and validation of values.

pub mod admin;
pub mod bulk;
mod catalog_source;
mod client;
mod core;
mod error;
#[cfg(test)]
mod fake;
mod leaders;
pub mod options;
pub mod outcome;
pub mod predicate;
mod router;
pub mod scan;
mod stale;
mod suggestion;
mod timestamps;
pub mod values;
pub mod write;

pub use self::admin::{
    AcquireHold, ExportDefinition, HoldLoss, HookFrom, LiveHold, NewHook, NewTable,
};
pub use self::bulk::{BulkLoader, LoadedBatch};
pub use self::client::{Client, column};
pub use self::error::ClientError;
pub use self::options::{ClientOptions, IdSource, WriterOptions};
pub use self::scan::{ScanSpec, ScanStream};
pub use self::write::{
    ForgottenRows, NotedWrite, OnceOutcome, OnceWrite, OnceWriter, PutAs, ResumeError, TableWriter,
    WriteReport,
};
pub use tidewater_catalog as catalog;
pub use tidewater_catalog::{Catalog, CatalogReads, RouteInfo, TableInfo};
