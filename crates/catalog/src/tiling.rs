//! Tiling rule: every key of every live table has exactly one route.

use tidewater_common::ids::TableId;

use crate::route_map::check_routes;
use crate::{RouteDescriptor, RouteError};

/// Returns the global key range of a table: from its id to the next id, big endian. `None` for the
/// last id, which is never assigned.
#[must_use]
pub fn table_bounds(table: TableId) -> Option<(Vec<u8>, Vec<u8>)> {
    let next = table.get().checked_add(1)?;
    Some((table.get().to_be_bytes().to_vec(), next.to_be_bytes().to_vec()))
}

/// Checks all routes of a catalog, sorted by start, against the live tables (ids ascending).
///
/// # Errors
/// The first violation: of a single route, then a duplicate id, the order, an overlap, a gap in a live table, a route
/// outside of the live tables.
pub fn validate_routes(
    routes: &[&RouteDescriptor],
    live: impl IntoIterator<Item = TableId>,
) -> Result<(), RouteError> {
    for route in routes {
        route.validate()?;
    }
    check_routes(routes.iter().copied())?;
    let mut rest = routes;
    for table in live {
        rest = check_table(table, rest)?;
    }
    match rest.first() {
        Some(route) => Err(RouteError::OutsideLiveTable(route.route_id)),
        None => Ok(()),
    }
}

/// Checks that the first routes tile the table's keys; returns the remaining routes.
fn check_table<'a, 'b>(
    table: TableId,
    routes: &'a [&'b RouteDescriptor],
) -> Result<&'a [&'b RouteDescriptor], RouteError> {
    let (mut next, end) = table_bounds(table).ok_or(RouteError::Gap(table))?;
    let mut rest = routes;
    while next < end {
        let Some((route, remaining)) = rest.split_first() else {
            return Err(RouteError::Gap(table));
        };
        if route.start < next {
            return Err(RouteError::OutsideLiveTable(route.route_id));
        }
        if route.start > next {
            return Err(RouteError::Gap(table));
        }
        match &route.end {
            Some(route_end) if *route_end <= end => next.clone_from(route_end),
            _ => return Err(RouteError::OutsideLiveTable(route.route_id)),
        }
        rest = remaining;
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::RegionId;

    use super::*;
    use crate::testing::route;

    fn check(routes: &[RouteDescriptor], live: &[u32]) -> Result<(), RouteError> {
        let routes: Vec<_> = routes.iter().collect();
        validate_routes(&routes, live.iter().copied().map(TableId))
    }

    const T1: &[u8] = &[0, 0, 0, 1];
    const T1_MID: &[u8] = &[0, 0, 0, 1, 128];
    const T2: &[u8] = &[0, 0, 0, 2];
    const T3: &[u8] = &[0, 0, 0, 3];

    #[test]
    fn tiled_tables_are_valid() {
        let routes =
            [route(1, T1, Some(T1_MID)), route(3, T1_MID, Some(T2)), route(2, T2, Some(T3))];
        assert_eq!(check(&routes, &[1, 2]), Ok(()));
        assert_eq!(check(&[], &[]), Ok(()));
    }

    #[test]
    fn each_tiling_violation_has_its_own_error() {
        let one = RegionId(1);
        let two = RegionId(2);
        let cases: Vec<(Vec<RouteDescriptor>, &[u32], RouteError)> = vec![
            (vec![route(0, T1, Some(T2))], &[1], RouteError::RouteIdRequired),
            (vec![route(1, T1, Some(T1))], &[1], RouteError::InvalidRange(one)),
            (
                vec![route(1, T1, Some(T1_MID)), route(1, T1_MID, Some(T2))],
                &[1],
                RouteError::DuplicateRouteId(one),
            ),
            (
                vec![route(1, T1, Some(T2)), route(2, T1_MID, Some(T2))],
                &[1],
                RouteError::Overlap(one, two),
            ),
            (
                vec![route(1, T1, Some(T2)), route(2, T1, Some(T2))],
                &[1],
                RouteError::Order(one, two),
            ),
            (
                vec![route(1, T2, Some(T3)), route(2, T1, Some(T2))],
                &[1, 2],
                RouteError::Order(one, two),
            ),
            (
                vec![route(1, T1, None), route(2, T2, Some(T3))],
                &[1, 2],
                RouteError::Order(one, two),
            ),
            (vec![], &[1], RouteError::Gap(TableId(1))),
            (vec![route(1, T1_MID, Some(T2))], &[1], RouteError::Gap(TableId(1))),
            (vec![route(1, T1, Some(T1_MID))], &[1], RouteError::Gap(TableId(1))),
            (vec![route(1, T1, Some(T2))], &[], RouteError::OutsideLiveTable(one)),
            (vec![route(1, T1, Some(T3))], &[1], RouteError::OutsideLiveTable(one)),
            (vec![route(1, T1, None)], &[1], RouteError::OutsideLiveTable(one)),
            (vec![route(1, T1, Some(T2))], &[2], RouteError::OutsideLiveTable(one)),
        ];
        for (routes, live, error) in cases {
            assert_eq!(check(&routes, live), Err(error), "{routes:?}");
        }
    }
}
