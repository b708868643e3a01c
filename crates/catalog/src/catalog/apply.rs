//! Construction of catalogs from snapshots and deltas. Each function returns a new value, so an error
//! leaves the current catalog unchanged.

use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync};
use tidewater_common::ids::{
    CatalogVersion, ClusterId, Epoch, GroupId, Incarnation, NodeId, RegionId, Revision, TableId,
};
use tidewater_common::keys::{KeyCodec, split_global_range};
use tidewater_common::schema::{TableOptions, TableSchema};
use tidewater_proto::v1::{self, TableState};

use super::{Catalog, CatalogError, RouteInfo, TableInfo};
use crate::{KeyedRoute, RouteError, RouteMap};

/// Relation of a received snapshot to the current catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogStep {
    /// The same revision of the same incarnation.
    Same,
    /// A later revision of the same incarnation.
    Newer,
    /// A later incarnation: the cluster was restored or recovered, and all earlier knowledge is invalid.
    Restored,
}

impl Catalog {
    /// Builds the catalog of a snapshot.
    ///
    /// # Errors
    /// The snapshot is inconsistent, or contains records that this release cannot decode.
    pub fn from_snapshot(snapshot: &v1::CatalogSnapshot) -> Result<Self, CatalogError> {
        let cluster_id: ClusterId = snapshot
            .cluster_id
            .parse()
            .map_err(|_| CatalogError::BadClusterId(snapshot.cluster_id.clone()))?;
        let mut catalog = Self {
            cluster_id,
            incarnation: Incarnation(snapshot.incarnation),
            revision: Revision(snapshot.revision),
            version: CatalogVersion(snapshot.catalog_version),
            tables: RedBlackTreeMapSync::new_sync(),
            names: HashTrieMapSync::new_sync(),
            routes: sorted_routes(&snapshot.routes)?,
            groups: RedBlackTreeMapSync::new_sync(),
            nodes: RedBlackTreeMapSync::new_sync(),
        };
        for table in &snapshot.tables {
            catalog.put_table(table)?;
        }
        catalog.put_groups_and_nodes(&snapshot.groups, &snapshot.nodes);
        Ok(catalog)
    }

    /// Returns the catalog after a delta.
    ///
    /// # Errors
    /// [`CatalogError::Gap`]: fetch a snapshot. Others: the delta is invalid.
    pub fn with_delta(&self, delta: &v1::CatalogDelta) -> Result<Self, CatalogError> {
        if Some(delta.revision) != self.revision.get().checked_add(1)
            || delta.previous_catalog_version != self.version.get()
        {
            return Err(CatalogError::Gap { have: self.revision, got: Revision(delta.revision) });
        }
        let mut next = self.clone();
        next.revision = Revision(delta.revision);
        next.version = CatalogVersion(delta.catalog_version);
        for id in &delta.table_deletes {
            next.remove_table(TableId(*id));
        }
        for table in &delta.table_upserts {
            next.put_table(table)?;
        }
        let deletes = delta.route_deletes.iter().map(|id| RegionId(*id));
        let upserts = delta.route_upserts.iter().map(route_info).collect::<Result<_, _>>()?;
        next.routes.apply(deletes, upserts)?;
        for node in &delta.node_deletes {
            next.nodes.remove_mut(&NodeId(*node));
        }
        next.put_groups_and_nodes(&delta.group_upserts, &delta.node_upserts);
        Ok(next)
    }

    /// Returns the relation of the received catalog `newer` to this one.
    ///
    /// # Errors
    /// `newer` is older or of another cluster, and must not replace this catalog.
    pub fn step_to(&self, newer: &Self) -> Result<CatalogStep, CatalogError> {
        if newer.cluster_id != self.cluster_id {
            return Err(CatalogError::OtherCluster { was: self.cluster_id, is: newer.cluster_id });
        }
        if newer.incarnation < self.incarnation {
            return Err(CatalogError::OldIncarnation {
                have: self.incarnation,
                got: newer.incarnation,
            });
        }
        if newer.incarnation > self.incarnation {
            return Ok(CatalogStep::Restored);
        }
        match newer.revision.cmp(&self.revision) {
            std::cmp::Ordering::Less => {
                Err(CatalogError::Stale { have: self.revision, got: newer.revision })
            }
            std::cmp::Ordering::Equal => Ok(CatalogStep::Same),
            std::cmp::Ordering::Greater => Ok(CatalogStep::Newer),
        }
    }

    fn put_table(&mut self, table: &v1::Table) -> Result<(), CatalogError> {
        let unreadable = |source| CatalogError::Table { name: table.name.clone(), source };
        let schema =
            TableSchema::try_from(&table.schema.clone().unwrap_or_default()).map_err(unreadable)?;
        let options = TableOptions::try_from(&table.options.clone().unwrap_or_default())
            .map_err(unreadable)?;
        let codec = KeyCodec::new(&schema, &options)
            .map_err(|source| CatalogError::Keys { name: table.name.clone(), source })?;
        let id = TableId(table.table_id);
        let state = table.state();
        let name = table.name.clone();
        self.remove_table(id);
        // A table without regions cannot be written or read by its name.
        if !matches!(state, TableState::Dropping | TableState::Reserved) {
            self.names.insert_mut(name.clone(), id);
        }
        let table = Arc::new(TableInfo {
            id,
            name,
            state,
            schema,
            options,
            codec,
            published: Epoch(table.published_epoch),
            complete: Epoch(table.complete_epoch),
        });
        self.tables.insert_mut(id, table);
        Ok(())
    }

    fn remove_table(&mut self, id: TableId) {
        let Some(table) = self.tables.get(&id).cloned() else { return };
        self.tables.remove_mut(&id);
        // The name may belong to a later table.
        if self.names.get(&table.name) == Some(&id) {
            self.names.remove_mut(&table.name);
        }
    }

    fn put_groups_and_nodes(&mut self, groups: &[v1::Group], nodes: &[v1::Node]) {
        for group in groups {
            self.groups.insert_mut(GroupId(group.group_id), Arc::new(group.clone()));
        }
        for node in nodes {
            self.nodes.insert_mut(NodeId(node.node_id), Arc::new(node.clone()));
        }
    }
}

/// Returns the routes of a snapshot, which may have any order.
fn sorted_routes(routes: &[v1::Route]) -> Result<RouteMap<RouteInfo>, CatalogError> {
    let mut routes = routes.iter().map(route_info).collect::<Result<Vec<_>, _>>()?;
    routes.sort_by(|left, right| left.start().cmp(&right.start()));
    Ok(RouteMap::from_sorted(routes)?)
}

fn route_info(route: &v1::Route) -> Result<Arc<RouteInfo>, CatalogError> {
    let region = RegionId(route.route_id);
    if region == RegionId(0) {
        return Err(RouteError::RouteIdRequired.into());
    }
    let (table, range) = split_global_range(&route.start, route.end.as_deref())
        .filter(|(_, range)| !range.is_empty())
        .ok_or(CatalogError::BadRange(region))?;
    Ok(Arc::new(RouteInfo {
        region,
        table,
        range,
        group: GroupId(route.group_id),
        state: route.state().into(),
        parent: RegionId(route.parent_route_id),
    }))
}
