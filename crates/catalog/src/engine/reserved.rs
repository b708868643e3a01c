//! Routes of a table that is made of an engine's routes.

use tidewater_common::ids::{RegionId, TableId};

use super::RouteEngine;
use crate::{RouteDescriptor, RouteError, table_bounds};

impl RouteEngine {
    /// Returns the engine's routes, cut to the keys of a table, with id 0: a save mints their ids.
    ///
    /// # Errors
    /// [`RouteError::Gap`] if the table has keys without a route, or has the greatest id.
    pub fn routes_of_table(&self, table: TableId) -> Result<Vec<RouteDescriptor>, RouteError> {
        let (start, end) = table_bounds(table).ok_or(RouteError::Gap(table))?;
        let mut next = start.clone();
        let mut routes = Vec::new();
        for route in self.intersecting_routes(&start, Some(&end)) {
            let route = route.descriptor();
            if route.start > next {
                return Err(RouteError::Gap(table));
            }
            let route_end = route.end.clone().filter(|route_end| *route_end < end);
            let range_end = route_end.unwrap_or_else(|| end.clone());
            routes.push(RouteDescriptor {
                route_id: RegionId(0),
                start: std::mem::replace(&mut next, range_end.clone()),
                end: Some(range_end),
                parent_route_id: None,
                ..route.clone()
            });
        }
        if next < end { Err(RouteError::Gap(table)) } else { Ok(routes) }
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::GroupId;
    use tidewater_common::keys::KeyRange;

    use super::*;

    fn range(start: &[u8], end: Option<&[u8]>) -> KeyRange {
        KeyRange { start: start.to_vec(), end: end.map(<[u8]>::to_vec) }
    }

    #[test]
    fn engine_routes_are_cut_to_the_table() {
        let engine = RouteEngine::with_default_route(GroupId(1)).unwrap();
        engine.update_route(range(&[0, 0, 0, 1, 7], Some(&[0, 0, 0, 1, 9])), GroupId(2)).unwrap();
        let routes = engine.routes_of_table(TableId(1)).unwrap();
        let found: Vec<_> = routes
            .iter()
            .map(|route| (route.start.clone(), route.end.clone().unwrap(), route.group_id.get()))
            .collect();
        let expected = [
            (vec![0, 0, 0, 1], vec![0, 0, 0, 1, 7], 1),
            (vec![0, 0, 0, 1, 7], vec![0, 0, 0, 1, 9], 2),
            (vec![0, 0, 0, 1, 9], vec![0, 0, 0, 2], 1),
        ];
        assert_eq!(found, expected);
        assert!(routes.iter().all(|route| route.route_id == RegionId(0)));
    }

    #[test]
    fn keys_without_a_route_are_refused() {
        let engine = RouteEngine::new();
        let gap = Err(RouteError::Gap(TableId(1)));
        assert_eq!(engine.routes_of_table(TableId(1)), gap);
        let (low, middle, high) = ([0, 0, 0, 1], [0, 0, 0, 1, 7], [0, 0, 0, 1, 8]);
        engine.update_route(range(&low, Some(&middle)), GroupId(1)).unwrap();
        assert_eq!(engine.routes_of_table(TableId(1)), gap);
        engine.update_route(range(&high, None), GroupId(1)).unwrap();
        assert_eq!(engine.routes_of_table(TableId(1)), gap);
        engine.update_route(range(&middle, Some(&high)), GroupId(2)).unwrap();
        assert_eq!(engine.routes_of_table(TableId(1)).unwrap().len(), 3);
        let last = RouteError::Gap(TableId(u32::MAX));
        assert_eq!(engine.routes_of_table(TableId(u32::MAX)), Err(last));
    }
}
