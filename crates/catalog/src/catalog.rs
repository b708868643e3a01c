//! A client's copy of the cluster's catalog.
//!
//! - [`Catalog`]: an immutable value at one revision. Snapshots and deltas produce the next value. It does
//!   no I/O.
//! - [`TableInfo`], [`RouteInfo`]: the tables and routes of a catalog, decoded.

mod apply;
mod follow;
mod lookup;

use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync};
use tidewater_common::ids::{
    CatalogVersion, ClusterId, Epoch, GroupId, Incarnation, NodeId, RegionId, Revision, TableId,
};
use tidewater_common::keys::{KeyCodec, KeyError, KeyRange};
use tidewater_common::schema::{SchemaError, TableOptions, TableSchema};
use tidewater_proto::v1;

pub use self::apply::CatalogStep;
pub(crate) use self::follow::Followed;
use crate::{GlobalKey, KeyedRoute, RouteError, RouteMap, RouteState};

/// A table with its decoded schema and its key codec.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Id of the table; not reused after a drop.
    pub id: TableId,
    /// Name, unique among the tables that are not being dropped.
    pub name: String,
    /// State; only an active table can be read and written.
    pub state: v1::TableState,
    /// Columns and primary key.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live.
    pub options: TableOptions,
    /// Encoder of the table's row keys.
    pub codec: KeyCodec,
    /// Epoch as of which a refreshable table is read; 0: it is empty.
    pub published: Epoch,
    /// Later publications of a refreshable table are after this epoch; 0: after the published one.
    pub complete: Epoch,
}

/// A read of a refreshable table as of an epoch after its last publication, at which it may have rows of the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "table {table} is refreshable, and its contents as of epoch {requested} are not known before its next refresh: it was published \
     at epoch {published}; leave the epoch out, or acquire a hold at it"
)]
pub struct EpochNotPublished {
    /// Name of the table.
    pub table: String,
    /// Epoch of the read.
    pub requested: Epoch,
    /// Published epoch of the table.
    pub published: Epoch,
}

impl TableInfo {
    /// Returns the epoch that a read names: the requested one, or the published one of a refreshable table, which is read as of its
    /// last publication at or before the epoch. `None`: the newest rows are read.
    ///
    /// # Errors
    /// [`EpochNotPublished`].
    pub fn as_of(&self, requested: Option<Epoch>) -> Result<Option<Epoch>, EpochNotPublished> {
        if !self.options.refreshable {
            return Ok(requested);
        }
        let published = self.published;
        match requested {
            Some(requested) if requested > published.max(self.complete) => {
                let table = self.name.clone();
                Err(EpochNotPublished { table, requested, published })
            }
            _ => Ok(Some(requested.unwrap_or(published))),
        }
    }
}

/// A route, with its range as row keys of its table.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteInfo {
    /// Id of the route and of its region.
    pub region: RegionId,
    /// Table of the route.
    pub table: TableId,
    /// Range of row keys, without the table id.
    pub range: KeyRange,
    /// Raft group that serves the region.
    pub group: GroupId,
    /// State, which determines the admitted operations.
    pub state: RouteState,
    /// Route that this one was split from; 0 if none.
    pub parent: RegionId,
}

impl KeyedRoute for RouteInfo {
    fn id(&self) -> RegionId {
        self.region
    }

    fn start(&self) -> GlobalKey<'_> {
        GlobalKey::in_table(self.table, &self.range.start)
    }

    fn end(&self) -> Option<GlobalKey<'_>> {
        end_in_table(self.table, &self.range)
    }
}

/// Returns the end of a range of row keys as a global key; `None`: the range ends with the key space.
fn end_in_table(table: TableId, range: &KeyRange) -> Option<GlobalKey<'_>> {
    match &range.end {
        Some(end) => Some(GlobalKey::in_table(table, end)),
        None => Some(GlobalKey::in_table(TableId(table.get().checked_add(1)?), &[])),
    }
}

/// Tables, routes, groups and nodes at one revision.
///
/// The maps are persistent: catalogs share what is equal in both. A clone costs nothing. A delta costs time and
/// memory in proportion to its records, each times the logarithm of the catalog's size, and, if it changes routes, one
/// pointer for each few hundred routes (see [`RouteMap`]).
#[derive(Debug, Clone)]
pub struct Catalog {
    cluster_id: ClusterId,
    incarnation: Incarnation,
    revision: Revision,
    version: CatalogVersion,
    tables: RedBlackTreeMapSync<TableId, Arc<TableInfo>>,
    /// Ids of the tables that are not being dropped.
    names: HashTrieMapSync<String, TableId>,
    routes: RouteMap<RouteInfo>,
    groups: RedBlackTreeMapSync<GroupId, Arc<v1::Group>>,
    nodes: RedBlackTreeMapSync<NodeId, Arc<v1::Node>>,
}

/// Reasons to reject a snapshot or delta.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The configured addresses belong to another cluster.
    #[error("the client connected to cluster {was}, but cluster {is} answers at its addresses")]
    OtherCluster {
        /// Cluster to which the client connected.
        was: ClusterId,
        /// Cluster that answers.
        is: ClusterId,
    },
    /// The answering node does not know that the cluster was restored.
    #[error("the received catalog of incarnation {got} is older than the known incarnation {have}")]
    OldIncarnation {
        /// Known incarnation.
        have: Incarnation,
        /// Received incarnation.
        got: Incarnation,
    },
    /// A snapshot older than the known revision.
    #[error("the snapshot at revision {got} is older than the known revision {have}")]
    Stale {
        /// Known revision.
        have: Revision,
        /// Received revision.
        got: Revision,
    },
    /// A delta that does not extend the known revision. The caller must fetch a snapshot.
    #[error("a delta to revision {got} does not follow revision {have}")]
    Gap {
        /// Known revision.
        have: Revision,
        /// Received revision.
        got: Revision,
    },
    /// A snapshot whose cluster id is not a UUID.
    #[error("cluster id {0:?} is not a UUID")]
    BadClusterId(String),
    /// A table whose schema or options this release cannot decode.
    #[error("table {name:?}: {source}")]
    Table {
        /// Name of the table.
        name: String,
        /// Problem of the schema or options.
        source: SchemaError,
    },
    /// A table whose keys this release cannot encode.
    #[error("table {name:?}: {source}")]
    Keys {
        /// Name of the table.
        name: String,
        /// Problem of the keys.
        source: KeyError,
    },
    /// A route whose bounds are not keys, or are out of order.
    #[error("route {0} has an invalid range")]
    BadRange(RegionId),
    /// Routes that overlap or have the same id.
    #[error(transparent)]
    Routes(#[from] RouteError),
}

#[cfg(test)]
mod tests;
