//! Tiling rule: every key of every live table has exactly one route, and every key of a reserved table at most one.

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

/// Keys of a table that must have a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// All keys: of a table that is served.
    Whole,
    /// Any keys: of a reserved table.
    Partial,
}

/// Checks routes, sorted by start, against all tables that have some (ids ascending).
///
/// # Errors
/// The first violation: of a single route, then a duplicate id, the order, an overlap, a gap in a table that is served,
/// a route outside of the tables.
pub fn validate_routes(
    routes: &[&RouteDescriptor],
    tables: impl IntoIterator<Item = (TableId, Coverage)>,
) -> Result<(), RouteError> {
    for route in routes {
        route.validate()?;
    }
    check_routes(routes.iter().copied())?;
    let mut rest = routes;
    for (table, coverage) in tables {
        rest = match coverage {
            Coverage::Whole => check_whole(table, rest)?,
            Coverage::Partial => check_partial(table, rest)?,
        };
    }
    match rest.first() {
        Some(route) => Err(RouteError::OutsideTable(route.route_id)),
        None => Ok(()),
    }
}

/// Checks that the first routes tile the table's keys; returns the remaining routes.
fn check_whole<'a, 'b>(
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
            return Err(RouteError::OutsideTable(route.route_id));
        }
        if route.start > next {
            return Err(RouteError::Gap(table));
        }
        match &route.end {
            Some(route_end) if *route_end <= end => next.clone_from(route_end),
            _ => return Err(RouteError::OutsideTable(route.route_id)),
        }
        rest = remaining;
    }
    Ok(rest)
}

/// Checks that the first routes have keys of the table only; returns those of later tables.
fn check_partial<'a, 'b>(
    table: TableId,
    routes: &'a [&'b RouteDescriptor],
) -> Result<&'a [&'b RouteDescriptor], RouteError> {
    let (start, end) = table_bounds(table).ok_or(RouteError::Gap(table))?;
    let (own, rest) = routes.split_at(routes.partition_point(|route| route.start < end));
    let is_inside = |route: &&&RouteDescriptor| {
        route.start >= start && route.end.as_ref().is_some_and(|route_end| *route_end <= end)
    };
    match own.iter().find(|route| !is_inside(route)) {
        Some(route) => Err(RouteError::OutsideTable(route.route_id)),
        None => Ok(rest),
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::RegionId;

    use super::*;
    use crate::testing::route;

    fn check(routes: &[RouteDescriptor], live: &[u32]) -> Result<(), RouteError> {
        let routes: Vec<_> = routes.iter().collect();
        validate_routes(&routes, live.iter().map(|table| (TableId(*table), Coverage::Whole)))
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
    fn reserved_tables_may_have_gaps() {
        let check = |routes: &[RouteDescriptor]| {
            let routes: Vec<_> = routes.iter().collect();
            let tables = [
                (TableId(1), Coverage::Whole),
                (TableId(2), Coverage::Partial),
                (TableId(3), Coverage::Whole),
            ];
            validate_routes(&routes, tables)
        };
        let (first, third) = (route(1, T1, Some(T2)), route(3, T3, Some(&[0, 0, 0, 4])));
        let middle: &[u8] = &[0, 0, 0, 2, 7];
        for of_second in
            [vec![], vec![route(2, middle, Some(T3))], vec![route(2, T2, Some(middle))]]
        {
            let routes = [vec![first.clone()], of_second, vec![third.clone()]].concat();
            assert_eq!(check(&routes), Ok(()), "{routes:?}");
        }
        let beyond = [first.clone(), route(2, middle, Some(&[0, 0, 0, 3, 1]))];
        assert_eq!(check(&beyond), Err(RouteError::OutsideTable(RegionId(2))));
        assert_eq!(check(&[first]), Err(RouteError::Gap(TableId(3))));
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
            (vec![route(1, T1, Some(T2))], &[], RouteError::OutsideTable(one)),
            (vec![route(1, T1, Some(T3))], &[1], RouteError::OutsideTable(one)),
            (vec![route(1, T1, None)], &[1], RouteError::OutsideTable(one)),
            (vec![route(1, T1, Some(T2))], &[2], RouteError::OutsideTable(one)),
        ];
        for (routes, live, error) in cases {
            assert_eq!(check(&routes, live), Err(error), "{routes:?}");
        }
    }
}
