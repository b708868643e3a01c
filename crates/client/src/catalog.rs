//! The cluster's catalog as a client stores it: a plain value, advanced by snapshots and deltas.
//!
//! This module does no I/O. [`watch`] keeps one such value up to date in the background.

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

pub use self::apply::SnapshotRelation;

/// A table with its decoded schema.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Id of the table; not reused after a drop.
    pub id: TableId,
    /// Name; unique among the tables that are not being dropped.
    pub name: String,
    /// State; only an active table can be read and written.
    pub state: v1::TableState,
    /// Columns and key.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live.
    pub options: TableOptions,
    /// Encoder of the table's row keys.
    pub codec: KeyCodec,
}

/// A route, with its range as row keys of its table.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteInfo {
    /// Id of the route, and of the region behind it.
    pub region: RegionId,
    /// Table of the route.
    pub table: TableId,
    /// Range of row keys, without the table id.
    pub range: KeyRange,
    /// Group that serves the region.
    pub group: GroupId,
    /// State, which decides the admitted operations.
    pub state: v1::RouteState,
    /// Route that it was split from; 0 for none.
    pub parent: RegionId,
}

/// The catalog at one revision.
#[derive(Debug, Clone)]
pub struct Catalog {
    cluster_id: ClusterId,
    incarnation: Incarnation,
    revision: Revision,
    version: CatalogVersion,
    tables: BTreeMap<TableId, Arc<TableInfo>>,
    /// By table and start key.
    routes: BTreeMap<(TableId, Vec<u8>), Arc<RouteInfo>>,
    starts: HashMap<RegionId, (TableId, Vec<u8>)>,
    groups: BTreeMap<GroupId, v1::Group>,
    nodes: BTreeMap<NodeId, v1::Node>,
}

/// Error of an invalid or outdated snapshot or delta.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Another cluster responds at the configured addresses.
    #[error("this is cluster {is}, not cluster {was} to which the client connected")]
    ClusterChanged {
        /// Cluster to which the client connected.
        was: ClusterId,
        /// Cluster that responds now.
        is: ClusterId,
    },
    /// The responding node does not know yet that the cluster was restored.
    #[error("the catalog of incarnation {got} is older than the known one of {have}")]
    OldIncarnation {
        /// Known incarnation.
        have: Incarnation,
        /// Received incarnation.
        got: Incarnation,
    },
    /// A snapshot from before the known revision.
    #[error("the snapshot at revision {got} is older than the known revision {have}")]
    Stale {
        /// Known revision.
        have: Revision,
        /// Received revision.
        got: Revision,
    },
    /// A delta that does not follow the known revision: fetch a snapshot.
    #[error("a delta to revision {got} does not follow revision {have}")]
    Gap {
        /// Known revision.
        have: Revision,
        /// Received revision.
        got: Revision,
    },
    /// The cluster id of the snapshot is not a UUID.
    #[error("the cluster id {0:?} is not a UUID")]
    BadClusterId(String),
    /// A table with a schema that this release cannot read.
    #[error("table {name:?}: {source}")]
    Table {
        /// Name of the table.
        name: String,
        /// Error of the schema.
        source: SchemaError,
    },
    /// A table whose keys this release cannot build.
    #[error("table {name:?}: {source}")]
    Keys {
        /// Name of the table.
        name: String,
        /// Error of the key columns.
        source: KeyError,
    },
    /// A route whose bounds are invalid keys, or out of order.
    #[error("route {0} has an invalid range")]
    BadRange(RegionId),
    /// Two routes for one key.
    #[error("routes {0} and {1} overlap")]
    Overlap(RegionId, RegionId),
    /// Two routes with one id.
    #[error("duplicate route {0}")]
    DuplicateRoute(RegionId),
}

#[cfg(test)]
mod tests;
