//! The route catalog as a library: its records, catalogs that follow its changes, and lookups of routes.
//!
//! The crate decides nothing about the cluster: the meta group does. It is shared by the meta nodes, which store
//! the records, and by clients and gateways, which follow them.
//!
//! - *Global key*: id of a table (4 bytes, big endian), then a row key.
//! - *Route*: half-open range of global keys, the group that serves it, and a state. Its region has the same id.
//! - *Catalog version*: grows by one with every change of routes. *Revision*: grows by one with every change of
//!   any record that watchers receive.
//! - *Ephemeral route*: route with id 0, of tests and tools; never stored.
//!
//! # Layout
//!
//! - [`RouteDescriptor`] (`route`), [`RouteError`] (`route_error`): a route as it is stored, and every error of routes.
//! - `codec`, `keys`, [`frame`]: stored bytes of routes, of the catalog version and of the next route id.
//! - `tiling`: the rule that every key of a live table has exactly one route.
//! - [`RouteMap`] (`route_map`), [`GlobalKey`] (`global_key`): routes ordered by their starts, without overlaps.
//! - [`Catalog`] (`catalog`): tables, routes, groups and nodes as a client has them, at one revision.
//! - [`CatalogWatcher`] (`watcher`): background task that keeps a catalog up to date from a [`CatalogSource`]
//!   (`source`), on request, too ([`RefreshRequests`]), and publishes it ([`PublishedCatalog`]).
//! - [`TimestampAllocator`] (`timestamps`): timestamps that increase across leaders.
//! - [`RouteEngine`] (`engine`): routes of one version for concurrent lookups by global key, with counters of
//!   accesses.

mod catalog;
mod codec;
pub mod engine;
pub mod frame;
mod global_key;
mod keys;
mod published;
mod refresh_requests;
mod route;
mod route_error;
mod route_map;
mod source;
#[cfg(test)]
mod testing;
mod tiling;
mod timestamps;
mod watcher;

pub use self::catalog::{
    Catalog, CatalogError, CatalogStep, EpochNotPublished, RouteInfo, TableInfo,
};
pub use self::codec::{
    decode_catalog_next_route_id, decode_catalog_route, decode_catalog_version,
    encode_catalog_next_route_id, encode_catalog_route, encode_catalog_version,
};
pub use self::engine::{EngineError, RouteDelta, RouteEngine, RouteSnapshot};
pub use self::global_key::GlobalKey;
pub use self::keys::{
    NEXT_ROUTE_ID_KEY, ROUTE_KEY_PREFIX, VERSION_KEY, catalog_next_route_id_key, catalog_route_key,
    catalog_version_key, is_catalog_route_key, route_id_from_key,
};
pub use self::published::PublishedCatalog;
pub use self::refresh_requests::{CatalogReads, RefreshRequests};
pub use self::route::{RouteDescriptor, RouteState, next_route_id_floor};
pub use self::route_error::RouteError;
pub use self::route_map::{KeyedRoute, RouteMap};
pub use self::source::CatalogSource;
pub use self::tiling::{Coverage, table_bounds, validate_routes};
pub use self::timestamps::{PastCeiling, Timestamp, TimestampAllocator};
pub use self::watcher::CatalogWatcher;
