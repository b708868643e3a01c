//! The cluster's catalog as a client keeps it: a plain value that snapshots and deltas move on.
//!
//! Nothing here does I/O. [`watch`] keeps one such value up to date in the background.

mod apply;
mod lookup;
pub(crate) mod watch;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidewater_common::ids::{
    CatalogVersion, ClusterId, GroupId, Incarnation, NodeId, RegionId, Revision, TableId,
};
use tidewater_common::keys::{KeyCodec, KeyError, KeyRange};
use tidewater_common::schema::{SchemaError, TableOptions, TableSchema};
use tidewater_proto::v1;

pub use self::apply::Step;

/// One table, ready for use.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Never used again after a drop.
    pub id: TableId,
    /// Unique among the tables that are not being dropped.
    pub name: String,
    /// Only an active table can be read and written.
    pub state: v1::TableState,
    /// Columns and key.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live.
    pub options: TableOptions,
    /// Builds the table's row keys.
    pub codec: KeyCodec,
}

/// One route, with its range as row keys of its table.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteInfo {
    /// Id of the route, and of the region behind it.
    pub region: RegionId,
    /// The table that it belongs to.
    pub table: TableId,
    /// Row keys, without the table id.
    pub range: KeyRange,
    /// The group that serves it.
    pub group: GroupId,
    /// What it admits.
    pub state: v1::RouteState,
    /// The route that it was split from; 0 when none.
    pub parent: RegionId,
}

/// Everything at one revision.
#[derive(Debug, Clone)]
pub struct Catalog {
    cluster_id: ClusterId,
    incarnation: Incarnation,
    revision: Revision,
    version: CatalogVersion,
    tables: BTreeMap<TableId, Arc<TableInfo>>,
    /// By table and start.
    routes: BTreeMap<(TableId, Vec<u8>), Arc<RouteInfo>>,
    starts: HashMap<RegionId, (TableId, Vec<u8>)>,
    groups: BTreeMap<GroupId, v1::Group>,
    nodes: BTreeMap<NodeId, v1::Node>,
}

/// A snapshot or delta that cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Another cluster answers at the addresses that were given.
    #[error("this is cluster {is}, not cluster {was} to which the client connected")]
    OtherCluster {
        /// To which the client connected.
        was: ClusterId,
        /// Which answers now.
        is: ClusterId,
    },
    /// The answering node has not heard that the cluster was restored.
    #[error("the catalog of incarnation {got} is older than the known one of {have}")]
    OldIncarnation {
        /// Known.
        have: Incarnation,
        /// Received.
        got: Incarnation,
    },
    /// A snapshot from before the known revision.
    #[error("the snapshot at revision {got} is older than the known revision {have}")]
    Stale {
        /// Known.
        have: Revision,
        /// Received.
        got: Revision,
    },
    /// A delta that does not follow on what is known: a snapshot is needed.
    #[error("a delta to revision {got} does not follow on revision {have}")]
    Gap {
        /// Known.
        have: Revision,
        /// Received.
        got: Revision,
    },
    /// The snapshot names its cluster by something that is no UUID.
    #[error("the cluster id {0:?} is no UUID")]
    BadClusterId(String),
    /// A table that this release cannot read.
    #[error("table {name:?}: {source}")]
    Table {
        /// The table's name.
        name: String,
        /// What is wrong with it.
        source: SchemaError,
    },
    /// A table whose keys this release cannot build.
    #[error("table {name:?}: {source}")]
    Keys {
        /// The table's name.
        name: String,
        /// What is wrong with them.
        source: KeyError,
    },
    /// A route whose bounds are no keys, or are out of order.
    #[error("route {0} has an invalid range")]
    BadRange(RegionId),
    /// Two routes for one key.
    #[error("routes {0} and {1} overlap")]
    Overlap(RegionId, RegionId),
    /// Two routes of one id.
    #[error("route {0} is there twice")]
    DuplicateRoute(RegionId),
}

#[cfg(test)]
mod tests;
