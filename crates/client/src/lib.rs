//! Client of Tidewater: routes each operation to the responsible node, retries it where that is safe, and
//! reports its exact outcome.
//!
//! # Layout
//!
//! - [`Client`] (`client`): connection to a cluster; [`ClientOptions`] (`options`), [`ClientError`]
//!   (`error`).
//! - [`catalog`]: tables, routes, groups and nodes; `catalog_watch`: keeps them up to date in the
//!   background; `catalog_refresh`: requests for changes that it has yet to receive; `stale`: waits after
//!   answers that a route or schema is out of date.
//! - `router`, `leaders`: one attempt of a call, at the presumed leader of a group.
//! - [`outcome`]: outcome of a write (*failed* or *unknown*) and reaction to an error.
//! - `core`: calls with retries; [`admin`]: operations of an operator.
//! - [`mod@write`]: [`TableWriter`], which applies each row once.
//! - [`bulk`]: [`BulkLoader`], which writes rows directly as files.
//! - [`scan`]: scans, counts and reads by key.
//! - [`predicate`], [`values`]: parsing of predicates, and validation of values.

pub mod admin;
pub mod bulk;
pub mod catalog;
mod catalog_refresh;
mod catalog_watch;
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
pub mod values;
pub mod write;

pub use self::admin::{HookFrom, NewHook, NewTable};
pub use self::bulk::{BulkLoader, LoadedBatch};
pub use self::catalog::{Catalog, RouteInfo, TableInfo};
pub use self::catalog_refresh::CatalogReads;
pub use self::client::Client;
pub use self::error::ClientError;
pub use self::options::{ClientOptions, IdSource, WriterOptions};
pub use self::scan::{ScanSpec, ScanStream};
pub use self::write::{TableWriter, WriteReport};
