//! Routes by the first key of their ranges: a table is a range of the index.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

use rpds::RedBlackTreeSetSync as PersistentSet;
use tidewater_common::ids::TableId;

use super::{RouteDescriptor, table_bounds};

/// A route, ordered by its start only.
#[derive(Debug, Clone)]
struct RouteByStart(Arc<RouteDescriptor>);

impl Borrow<[u8]> for RouteByStart {
    fn borrow(&self) -> &[u8] {
        &self.0.start
    }
}

// For ranges with bounds of their own.
impl Borrow<Vec<u8>> for RouteByStart {
    fn borrow(&self) -> &Vec<u8> {
        &self.0.start
    }
}

impl PartialEq for RouteByStart {
    fn eq(&self, other: &Self) -> bool {
        self.0.start == other.0.start
    }
}

impl Eq for RouteByStart {}

impl PartialOrd for RouteByStart {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RouteByStart {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.start.cmp(&other.0.start)
    }
}

/// Routes ordered by start. Clones share their nodes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RouteIndex(PersistentSet<RouteByStart>);

impl RouteIndex {
    pub(super) fn put(&mut self, route: Arc<RouteDescriptor>) {
        self.0.insert_mut(RouteByStart(route));
    }

    /// Removes a route, unless another one has taken its start.
    pub(super) fn remove(&mut self, route: &RouteDescriptor) {
        let indexed = self.get(&route.start);
        if indexed.is_some_and(|indexed| indexed.route_id == route.route_id) {
            self.0.remove_mut(route.start.as_slice());
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<RouteDescriptor>> {
        self.0.iter().map(|route| &route.0)
    }

    /// The route that starts at this global key.
    pub(super) fn get(&self, start: &[u8]) -> Option<&Arc<RouteDescriptor>> {
        self.0.get(start).map(|route| &route.0)
    }

    /// The routes that start within a table's keys.
    pub(super) fn in_table(&self, table: TableId) -> impl Iterator<Item = &Arc<RouteDescriptor>> {
        let bounds = table_bounds(table).into_iter();
        bounds.flat_map(move |(start, end)| {
            self.0.range::<Vec<u8>, _>(start..end).map(|route| &route.0)
        })
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{Epoch, GroupId, Incarnation, RegionId};

    use super::*;
    use crate::catalog::RouteState;

    fn route(id: u64, start: &[u8]) -> Arc<RouteDescriptor> {
        Arc::new(RouteDescriptor {
            route_id: RegionId(id),
            start: start.to_vec(),
            end: None,
            group_id: GroupId(1),
            state: RouteState::Active,
            parent_route_id: None,
            epoch: Epoch(0),
            incarnation: Incarnation::FIRST,
        })
    }

    fn ids<'a>(routes: impl Iterator<Item = &'a Arc<RouteDescriptor>>) -> Vec<u64> {
        routes.map(|route| route.route_id.get()).collect()
    }

    #[test]
    fn table_is_a_range_of_the_index() {
        let mut index = RouteIndex::default();
        for (id, start) in [
            (1, &[0, 0, 0, 2, 7][..]),
            (2, &[0, 0, 0, 1]),
            (3, &[0, 0, 0, 2]),
            (4, &[0, 0, 0, 3]),
            (5, &[255, 255, 255, 255]),
        ] {
            index.put(route(id, start));
        }
        assert_eq!(ids(index.iter()), [2, 3, 1, 4, 5]);
        assert_eq!(ids(index.in_table(TableId(2))), [3, 1]);
        assert_eq!(ids(index.in_table(TableId(9))), [0; 0]);
        assert_eq!(ids(index.in_table(TableId(u32::MAX))), [0; 0], "never assigned");
        assert_eq!(index.get(&[0, 0, 0, 2, 7]).unwrap().route_id, RegionId(1));
        assert!(index.get(&[0, 0, 0, 2, 8]).is_none());
    }

    #[test]
    fn removed_route_leaves_its_successor_at_the_same_start() {
        let mut index = RouteIndex::default();
        let parent = route(1, &[0, 0, 0, 1]);
        index.put(Arc::clone(&parent));
        index.put(route(2, &[0, 0, 0, 1]));
        assert_eq!(ids(index.iter()), [2]);
        index.remove(&parent);
        assert_eq!(ids(index.iter()), [2]);
    }
}
