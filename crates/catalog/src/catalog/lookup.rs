//! Lookups in a catalog.

use std::sync::Arc;

use tidewater_common::ids::{
    CatalogVersion, ClusterId, GroupId, Incarnation, NodeId, RegionId, Revision, TableId,
};
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1;

use super::{Catalog, RouteInfo, TableInfo, end_in_table};
use crate::GlobalKey;

impl Catalog {
    /// Id of the cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// Incarnation of the cluster; it increases when the cluster is restored.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Revision, which increases with every change of any record.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Version of the routes, which increases with every change of a route.
    pub fn version(&self) -> CatalogVersion {
        self.version
    }

    /// Returns the table with this name that is not being dropped.
    pub fn table_named(&self, name: &str) -> Option<&Arc<TableInfo>> {
        self.tables.get(self.names.get(name)?)
    }

    /// Returns the table with this id.
    pub fn table(&self, id: TableId) -> Option<&Arc<TableInfo>> {
        self.tables.get(&id)
    }

    /// All tables, in order of id.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableInfo>> {
        self.tables.values()
    }

    /// All routes, in order of table and start key.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<RouteInfo>> {
        self.routes.iter()
    }

    /// Returns the routes of a table that overlap `range`, in key order.
    pub fn routes_in<'a>(
        &'a self,
        table: TableId,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = &'a Arc<RouteInfo>> {
        let start = GlobalKey::in_table(table, &range.start);
        self.routes.intersecting(start, end_in_table(table, range))
    }

    /// Returns the route that contains a row key.
    pub fn route_for(&self, table: TableId, row_key: &[u8]) -> Option<&Arc<RouteInfo>> {
        self.routes.get(GlobalKey::in_table(table, row_key))
    }

    /// Returns the route of the region with this id.
    pub fn route(&self, region: RegionId) -> Option<&Arc<RouteInfo>> {
        self.routes.with_id(region)
    }

    /// Returns the group with this id.
    pub fn group(&self, id: GroupId) -> Option<&v1::Group> {
        self.groups.get(&id).map(Arc::as_ref)
    }

    /// All groups, in order of id.
    pub fn groups(&self) -> impl Iterator<Item = &v1::Group> {
        self.groups.values().map(Arc::as_ref)
    }

    /// Returns the node with this id.
    pub fn node(&self, id: NodeId) -> Option<&v1::Node> {
        self.nodes.get(&id).map(Arc::as_ref)
    }

    /// All nodes, in order of id.
    pub fn nodes(&self) -> impl Iterator<Item = &v1::Node> {
        self.nodes.values().map(Arc::as_ref)
    }

    /// Returns the ids and addresses of the nodes of this role that are not removed, in order of id.
    pub fn addresses(&self, role: v1::NodeRole) -> Vec<(NodeId, String)> {
        self.nodes
            .values()
            .filter(|node| node.role() == role && node.state() != v1::NodeState::Removed)
            .map(|node| (NodeId(node.node_id), node.address.clone()))
            .collect()
    }

    /// Returns the address of a group's leader as last reported to the meta service.
    pub fn leader_address(&self, group: GroupId) -> Option<&str> {
        let leader = self.groups.get(&group)?.leader;
        self.node(NodeId(leader)).map(|node| node.address.as_str())
    }

    /// Returns the addresses of all nodes that hold a voting replica of a group.
    pub fn replica_addresses(&self, group: GroupId) -> Vec<&str> {
        let Some(group) = self.groups.get(&group) else { return Vec::new() };
        let members = if group.voters.is_empty() { &group.first_members } else { &group.voters };
        members
            .iter()
            .filter_map(|id| self.node(NodeId(*id)))
            .map(|node| node.address.as_str())
            .collect()
    }
}
