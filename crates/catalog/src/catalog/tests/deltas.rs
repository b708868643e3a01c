//! Random sequences of changes: a catalog that follows the deltas equals one that is read as a whole.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use tidewater_common::ids::{GroupId, RegionId, TableId};
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1;

use super::{Catalog, CatalogError, ONE, route, table};
use crate::RouteError;

/// A change of the cluster's catalog. Numbers select an existing record modulo their count.
#[derive(Debug, Clone)]
enum Change {
    /// Creates a table with this number of regions.
    Create { regions: u8 },
    /// Marks a table as dropping, which frees its name.
    BeginDrop { table: usize },
    /// Deletes a table with its routes.
    Drop { table: usize },
    /// Creates a table with the name of an existing or a dropped one.
    CreateAgain { table: usize },
    /// Splits a region; the first child keeps the id of its parent when `keep` is set.
    Split { region: usize, at: u8, keep: bool },
    /// Merges a region with its successor in the table.
    Merge { region: usize },
    /// Moves a region to another group.
    Move { region: usize, group: u64 },
    /// Changes the leader of a group.
    Lead { group: u64, node: u64 },
    /// Adds or changes a node.
    PutNode { node: u64, port: u8 },
    /// Removes a node.
    DeleteNode { node: u64 },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (1u8..4).prop_map(|regions| Change::Create { regions }),
        any::<usize>().prop_map(|table| Change::BeginDrop { table }),
        any::<usize>().prop_map(|table| Change::Drop { table }),
        any::<usize>().prop_map(|table| Change::CreateAgain { table }),
        (any::<usize>(), any::<u8>(), any::<bool>()).prop_map(|(region, at, keep)| Change::Split {
            region,
            at,
            keep
        }),
        any::<usize>().prop_map(|region| Change::Merge { region }),
        (any::<usize>(), 1u64..5).prop_map(|(region, group)| Change::Move { region, group }),
        (1u64..5, 20u64..24).prop_map(|(group, node)| Change::Lead { group, node }),
        (20u64..24, any::<u8>()).prop_map(|(node, port)| Change::PutNode { node, port }),
        (20u64..24).prop_map(|node| Change::DeleteNode { node }),
    ]
}

/// Route of the model: table, start, end, group.
type ModelRoute = (u32, Vec<u8>, Option<Vec<u8>>, u64);

/// The catalog of the meta service.
#[derive(Debug, Default)]
struct Model {
    revision: u64,
    version: u64,
    next_table: u32,
    next_route: u64,
    tables: BTreeMap<u32, v1::Table>,
    routes: BTreeMap<u64, ModelRoute>,
    groups: BTreeMap<u64, v1::Group>,
    nodes: BTreeMap<u64, v1::Node>,
}

fn to_wire(id: u64, (table, start, end, group): &ModelRoute) -> v1::Route {
    v1::Route { group_id: *group, ..route(id, *table, start, end.as_deref()) }
}

impl Model {
    fn new() -> Self {
        Self { revision: 1, version: 1, next_table: 1, next_route: 1, ..Self::default() }
    }

    fn snapshot(&self) -> v1::CatalogSnapshot {
        let mut routes: Vec<_> =
            self.routes.iter().map(|(id, route)| to_wire(*id, route)).collect();
        routes.sort_by(|a, b| a.start.cmp(&b.start));
        v1::CatalogSnapshot {
            cluster_id: ONE.into(),
            incarnation: 1,
            revision: self.revision,
            catalog_version: self.version,
            tables: self.tables.values().cloned().collect(),
            routes,
            groups: self.groups.values().cloned().collect(),
            nodes: self.nodes.values().cloned().collect(),
            ..v1::CatalogSnapshot::default()
        }
    }

    fn pick<K: Copy + Ord, V>(map: &BTreeMap<K, V>, number: usize) -> Option<K> {
        (!map.is_empty()).then(|| *map.keys().nth(number % map.len()).unwrap())
    }

    fn put_table(&mut self, delta: &mut v1::CatalogDelta, name: &str, regions: u8) {
        let id = self.next_table;
        self.next_table += 1;
        delta.table_upserts.push(table(id, name));
        self.tables.insert(id, table(id, name));
        let bounds = (1..regions).map(|number| vec![number * 40]);
        let starts: Vec<Vec<u8>> = std::iter::once(Vec::new()).chain(bounds).collect();
        for (number, start) in starts.iter().enumerate() {
            let route = (id, start.clone(), starts.get(number + 1).cloned(), 1);
            self.put_route(delta, None, route);
        }
    }

    fn put_route(&mut self, delta: &mut v1::CatalogDelta, id: Option<u64>, route: ModelRoute) {
        let id = id.unwrap_or(self.next_route);
        self.next_route = self.next_route.max(id + 1);
        delta.route_upserts.push(to_wire(id, &route));
        self.routes.insert(id, route);
    }

    fn delete_route(&mut self, delta: &mut v1::CatalogDelta, id: u64) {
        delta.route_deletes.push(id);
        self.routes.remove(&id);
    }

    fn apply(&mut self, change: Change) -> v1::CatalogDelta {
        let mut delta = v1::CatalogDelta::default();
        self.make(change, &mut delta);
        let touches_routes = !delta.route_upserts.is_empty() || !delta.route_deletes.is_empty();
        delta.previous_catalog_version = self.version;
        self.version += u64::from(touches_routes);
        self.revision += 1;
        v1::CatalogDelta { revision: self.revision, catalog_version: self.version, ..delta }
    }

    fn make(&mut self, change: Change, delta: &mut v1::CatalogDelta) {
        match change {
            Change::Create { regions } => {
                let name = format!("t{}", self.next_table);
                self.put_table(delta, &name, regions);
            }
            Change::BeginDrop { table } => {
                let Some(id) = Self::pick(&self.tables, table) else { return };
                let table = self.tables.get_mut(&id).unwrap();
                table.state = v1::TableState::Dropping.into();
                delta.table_upserts.push(table.clone());
            }
            Change::Drop { table } => {
                let Some(id) = Self::pick(&self.tables, table) else { return };
                self.tables.remove(&id);
                delta.table_deletes.push(id);
                let own = self.routes.iter().filter(|(_, route)| route.0 == id);
                for id in own.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.delete_route(delta, id);
                }
            }
            Change::CreateAgain { table } => {
                let Some(id) = Self::pick(&self.tables, table) else { return };
                let name = self.tables[&id].name.clone();
                for old in self.tables.values_mut().filter(|old| old.name == name) {
                    old.state = v1::TableState::Dropping.into();
                    delta.table_upserts.push(old.clone());
                }
                self.put_table(delta, &name, 1);
            }
            Change::Split { region, at, keep } => {
                let Some(id) = Self::pick(&self.routes, region) else { return };
                let (table, start, end, group) = self.routes[&id].clone();
                let middle = [start.as_slice(), &[at]].concat();
                if end.as_ref().is_some_and(|end| *end <= middle) {
                    return;
                }
                if !keep {
                    self.delete_route(delta, id);
                }
                let first = (table, start, Some(middle.clone()), group);
                self.put_route(delta, keep.then_some(id), first);
                self.put_route(delta, None, (table, middle, end, group));
            }
            Change::Merge { region } => {
                let Some(id) = Self::pick(&self.routes, region) else { return };
                let (table, start, end, group) = self.routes[&id].clone();
                let next = self
                    .routes
                    .iter()
                    .find(|(_, next)| next.0 == table && Some(&next.1) == end.as_ref());
                let Some((next, (_, _, next_end, _))) = next else { return };
                let merged = (table, start, next_end.clone(), group);
                let next = *next;
                self.delete_route(delta, next);
                self.put_route(delta, Some(id), merged);
            }
            Change::Move { region, group } => {
                let Some(id) = Self::pick(&self.routes, region) else { return };
                let (table, start, end, _) = self.routes[&id].clone();
                self.put_route(delta, Some(id), (table, start, end, group));
            }
            Change::Lead { group, node } => {
                let group = v1::Group { group_id: group, leader: node, ..v1::Group::default() };
                delta.group_upserts.push(group.clone());
                self.groups.insert(group.group_id, group);
            }
            Change::PutNode { node, port } => {
                let address = format!("node:{port}");
                let node = v1::Node { node_id: node, address, ..v1::Node::default() };
                delta.node_upserts.push(node.clone());
                self.nodes.insert(node.node_id, node);
            }
            Change::DeleteNode { node } => {
                self.nodes.remove(&node);
                delta.node_deletes.push(node);
            }
        }
    }
}

/// Checks that lookups in two catalogs return the same.
fn assert_equal(followed: &Catalog, read: &Catalog) {
    assert_eq!((followed.revision(), followed.version()), (read.revision(), read.version()));
    let tables = |catalog: &Catalog| {
        let table = |table: &std::sync::Arc<super::super::TableInfo>| {
            (table.id, table.name.clone(), table.state, table.schema.version())
        };
        catalog.tables().map(table).collect::<Vec<_>>()
    };
    assert_eq!(tables(followed), tables(read));
    let routes = |catalog: &Catalog| catalog.routes().cloned().collect::<Vec<_>>();
    assert_eq!(routes(followed), routes(read));
    let groups = |catalog: &Catalog| catalog.groups().cloned().collect::<Vec<_>>();
    assert_eq!(groups(followed), groups(read));
    let nodes = |catalog: &Catalog| catalog.nodes().cloned().collect::<Vec<_>>();
    assert_eq!(nodes(followed), nodes(read));
    for table in read.tables() {
        let named = |catalog: &Catalog| catalog.table_named(&table.name).map(|found| found.id);
        assert_eq!(named(followed), named(read), "{}", table.name);
        let within = |catalog: &Catalog| {
            let whole = KeyRange::whole();
            let routes = catalog.routes_in(table.id, &whole);
            routes.map(|route| route.region).collect::<Vec<_>>()
        };
        assert_eq!(within(followed), within(read), "{}", table.name);
    }
    for id in 0..64 {
        let region = RegionId(id);
        assert_eq!(followed.route(region), read.route(region), "region {id}");
    }
    for group in 1..5 {
        let leader = |catalog: &Catalog| catalog.leader_address(GroupId(group)).map(str::to_owned);
        assert_eq!(leader(followed), leader(read));
    }
}

proptest! {
    #[test]
    fn catalog_of_deltas_equals_catalog_of_snapshot(changes in vec(change(), 1..60)) {
        let mut model = Model::new();
        let mut followed = Catalog::from_snapshot(&model.snapshot()).unwrap();
        for change in changes {
            let before = followed.clone();
            let before_was = Catalog::from_snapshot(&model.snapshot()).unwrap();
            let delta = model.apply(change);
            followed = followed.with_delta(&delta).unwrap();
            assert_equal(&followed, &Catalog::from_snapshot(&model.snapshot()).unwrap());
            // The previous catalog is unchanged.
            assert_equal(&before, &before_was);
        }
    }

    #[test]
    fn route_that_overlaps_a_neighbour_is_rejected(
        changes in vec(change(), 1..30),
        region in any::<usize>(),
        at in any::<u8>(),
    ) {
        let mut model = Model::new();
        model.apply(Change::Create { regions: 3 });
        for change in changes {
            model.apply(change);
        }
        let Some(id) = Model::pick(&model.routes, region) else { return Ok(()) };
        let (table, start, end, _) = model.routes[&id].clone();
        let inside = [start.as_slice(), &[at]].concat();
        prop_assume!(end.as_ref().is_none_or(|end| inside < *end));
        let catalog = Catalog::from_snapshot(&model.snapshot()).unwrap();
        let delta = v1::CatalogDelta {
            revision: model.revision + 1,
            previous_catalog_version: model.version,
            catalog_version: model.version + 1,
            route_upserts: vec![route(10_000, table, &inside, None)],
            ..v1::CatalogDelta::default()
        };
        let error = catalog.with_delta(&delta).unwrap_err();
        prop_assert!(matches!(error, CatalogError::Routes(RouteError::Overlap(..))), "{error}");
        prop_assert!(catalog.route_for(TableId(table), &inside).is_some());
    }
}
