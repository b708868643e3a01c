//! Application of snapshots and deltas. All checks precede the first change: after an error the
//! catalog is unchanged.

use std::sync::Arc;

use tidewater_common::ids::{
    CatalogVersion, ClusterId, GroupId, Incarnation, NodeId, RegionId, Revision, TableId,
};
use tidewater_common::keys::{KeyCodec, KeyRange, split_global_key};
use tidewater_common::schema::{TableOptions, TableSchema};
use tidewater_proto::v1;

use super::{Catalog, CatalogError, RouteInfo, TableInfo};

/// Relation of a newer snapshot to the known catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotRelation {
    /// The same revision.
    Same,
    /// A later revision of the same incarnation.
    Newer,
    /// The cluster was restored or recovered: all previous knowledge is void.
    Restored,
}

impl Catalog {
    /// Builds the catalog of a snapshot.
    ///
    /// # Errors
    /// The snapshot contradicts itself, or this release cannot read it.
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
            tables: Default::default(),
            routes: Default::default(),
            starts: Default::default(),
            groups: Default::default(),
            nodes: Default::default(),
        };
        for table in &snapshot.tables {
            catalog.insert_table(table)?;
        }
        for route in &snapshot.routes {
            if catalog.starts.contains_key(&RegionId(route.route_id)) {
                return Err(CatalogError::DuplicateRoute(RegionId(route.route_id)));
            }
            catalog.insert_route(route_info(route)?)?;
        }
        catalog.check_tiling()?;
        catalog.insert_groups_and_nodes(&snapshot.groups, &snapshot.nodes);
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
            next.tables.remove(&TableId(*id));
        }
        for table in &delta.table_upserts {
            next.insert_table(table)?;
        }
        for id in &delta.route_deletes {
            next.remove_route(RegionId(*id));
        }
        // Remove all routes before adding any: a route may get the start key of one that shrinks.
        for route in &delta.route_upserts {
            next.remove_route(RegionId(route.route_id));
        }
        for route in &delta.route_upserts {
            next.insert_route(route_info(route)?)?;
        }
        next.check_tiling()?;
        for node in &delta.node_deletes {
            next.nodes.remove(&NodeId(*node));
        }
        next.insert_groups_and_nodes(&delta.group_upserts, &delta.node_upserts);
        Ok(next)
    }

    /// Compares a received catalog with this one.
    ///
    /// # Errors
    /// The received catalog must not replace this one.
    pub fn compare_to(&self, newer: &Self) -> Result<SnapshotRelation, CatalogError> {
        if newer.cluster_id != self.cluster_id {
            return Err(CatalogError::ClusterChanged {
                was: self.cluster_id,
                is: newer.cluster_id,
            });
        }
        if newer.incarnation < self.incarnation {
            return Err(CatalogError::OldIncarnation {
                have: self.incarnation,
                got: newer.incarnation,
            });
        }
        if newer.incarnation > self.incarnation {
            return Ok(SnapshotRelation::Restored);
        }
        match newer.revision.cmp(&self.revision) {
            std::cmp::Ordering::Less => {
                Err(CatalogError::Stale { have: self.revision, got: newer.revision })
            }
            std::cmp::Ordering::Equal => Ok(SnapshotRelation::Same),
            std::cmp::Ordering::Greater => Ok(SnapshotRelation::Newer),
        }
    }

    fn insert_table(&mut self, table: &v1::Table) -> Result<(), CatalogError> {
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
        self.tables.insert(id, Arc::new(TableInfo { id, name, state, schema, options, codec }));
        Ok(())
    }

    fn insert_route(&mut self, route: RouteInfo) -> Result<(), CatalogError> {
        let key = (route.table, route.range.start.clone());
        if let Some(other) = self.routes.get(&key) {
            return Err(CatalogError::Overlap(other.region, route.region));
        }
        self.starts.insert(route.region, key.clone());
        self.routes.insert(key, Arc::new(route));
        Ok(())
    }

    fn remove_route(&mut self, region: RegionId) {
        if let Some(key) = self.starts.remove(&region) {
            self.routes.remove(&key);
        }
    }

    fn check_tiling(&self) -> Result<(), CatalogError> {
        let mut previous: Option<&RouteInfo> = None;
        for route in self.routes.values() {
            if let Some(before) = previous.filter(|before| before.table == route.table)
                && before.range.end.as_ref().is_none_or(|end| *end > route.range.start)
            {
                return Err(CatalogError::Overlap(before.region, route.region));
            }
            previous = Some(route);
        }
        Ok(())
    }

    fn insert_groups_and_nodes(&mut self, groups: &[v1::Group], nodes: &[v1::Node]) {
        for group in groups {
            self.groups.insert(GroupId(group.group_id), group.clone());
        }
        for node in nodes {
            self.nodes.insert(NodeId(node.node_id), node.clone());
        }
    }
}

fn route_info(route: &v1::Route) -> Result<RouteInfo, CatalogError> {
    let region = RegionId(route.route_id);
    let (table, start) = split_global_key(&route.start).ok_or(CatalogError::BadRange(region))?;
    let end = match route.end.as_deref() {
        None => None,
        Some(end) => {
            let (end_table, end) = split_global_key(end).ok_or(CatalogError::BadRange(region))?;
            // A bound at the beginning of a later table is no bound within this one.
            (end_table == table).then(|| end.to_vec())
        }
    };
    let range = KeyRange::new(start, end);
    if range.is_empty() {
        return Err(CatalogError::BadRange(region));
    }
    Ok(RouteInfo {
        region,
        table,
        range,
        group: GroupId(route.group_id),
        state: route.state(),
        parent: RegionId(route.parent_route_id),
    })
}
