//! Tiling rule: every key of every live table has exactly one route.

use std::collections::BTreeSet;

#[cfg(test)]
use tidewater_common::ids::RegionId;
use tidewater_common::ids::TableId;

use super::{CatalogError, RouteDescriptor};

/// Returns the global key range of a table: from its id to the next id, big endian. `None` for the
/// last id, which is never assigned.
pub fn table_bounds(table: TableId) -> Option<(Vec<u8>, Vec<u8>)> {
    let next = table.get().checked_add(1)?;
    Some((table.get().to_be_bytes().to_vec(), next.to_be_bytes().to_vec()))
}

/// Checks all routes of a catalog, sorted by start, against the live tables (ids ascending).
pub fn validate_routes(
    routes: &[&RouteDescriptor],
    live: impl IntoIterator<Item = TableId>,
) -> Result<(), CatalogError> {
    let mut ids = BTreeSet::new();
    for route in routes {
        route.validate()?;
        if !ids.insert(route.route_id) {
            return Err(CatalogError::DuplicateRouteId(route.route_id));
        }
    }
    check_order(routes)?;
    let mut rest = routes;
    for table in live {
        rest = check_table(table, rest)?;
    }
    match rest.first() {
        Some(route) => Err(CatalogError::OutsideLiveTable(route.route_id)),
        None => Ok(()),
    }
}

fn check_order(routes: &[&RouteDescriptor]) -> Result<(), CatalogError> {
    for pair in routes.windows(2) {
        let [left, right] = pair else { continue };
        if left.start >= right.start {
            return Err(CatalogError::Order(left.route_id, right.route_id));
        }
        match &left.end {
            None => return Err(CatalogError::Order(left.route_id, right.route_id)),
            Some(end) if *end > right.start => {
                return Err(CatalogError::Overlap(left.route_id, right.route_id));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Checks that the first routes tile the table's keys; returns the remaining routes.
fn check_table<'a, 'b>(
    table: TableId,
    routes: &'a [&'b RouteDescriptor],
) -> Result<&'a [&'b RouteDescriptor], CatalogError> {
    let (mut next, end) = table_bounds(table).ok_or(CatalogError::Gap(table))?;
    let mut rest = routes;
    while next < end {
        let Some((route, remaining)) = rest.split_first() else {
            return Err(CatalogError::Gap(table));
        };
        if route.start < next {
            return Err(CatalogError::OutsideLiveTable(route.route_id));
        }
        if route.start > next {
            return Err(CatalogError::Gap(table));
        }
        match &route.end {
            Some(route_end) if *route_end <= end => next.clone_from(route_end),
            _ => return Err(CatalogError::OutsideLiveTable(route.route_id)),
        }
        rest = remaining;
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{Epoch, GroupId, Incarnation};

    use super::*;
    use crate::catalog::RouteState;

    fn route(id: u64, start: &[u8], end: Option<&[u8]>) -> RouteDescriptor {
        RouteDescriptor {
            route_id: RegionId(id),
            start: start.to_vec(),
            end: end.map(<[u8]>::to_vec),
            group_id: GroupId(1),
            state: RouteState::Active,
            parent_route_id: None,
            epoch: Epoch(0),
            incarnation: Incarnation::FIRST,
        }
    }

    fn check(routes: &[RouteDescriptor], live: &[u32]) -> Result<(), CatalogError> {
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
        let cases: Vec<(Vec<RouteDescriptor>, &[u32], CatalogError)> = vec![
            (vec![route(0, T1, Some(T2))], &[1], CatalogError::RouteIdRequired),
            (vec![route(1, T1, Some(T1))], &[1], CatalogError::InvalidRange(one)),
            (
                vec![route(1, T1, Some(T1_MID)), route(1, T1_MID, Some(T2))],
                &[1],
                CatalogError::DuplicateRouteId(one),
            ),
            (
                vec![route(1, T1, Some(T2)), route(2, T1_MID, Some(T2))],
                &[1],
                CatalogError::Overlap(one, two),
            ),
            (
                vec![route(1, T1, Some(T2)), route(2, T1, Some(T2))],
                &[1],
                CatalogError::Order(one, two),
            ),
            (
                vec![route(1, T2, Some(T3)), route(2, T1, Some(T2))],
                &[1, 2],
                CatalogError::Order(one, two),
            ),
            (
                vec![route(1, T1, None), route(2, T2, Some(T3))],
                &[1, 2],
                CatalogError::Order(one, two),
            ),
            (vec![], &[1], CatalogError::Gap(TableId(1))),
            (vec![route(1, T1_MID, Some(T2))], &[1], CatalogError::Gap(TableId(1))),
            (vec![route(1, T1, Some(T1_MID))], &[1], CatalogError::Gap(TableId(1))),
            (vec![route(1, T1, Some(T2))], &[], CatalogError::OutsideLiveTable(one)),
            (vec![route(1, T1, Some(T3))], &[1], CatalogError::OutsideLiveTable(one)),
            (vec![route(1, T1, None)], &[1], CatalogError::OutsideLiveTable(one)),
            (vec![route(1, T1, Some(T2))], &[2], CatalogError::OutsideLiveTable(one)),
        ];
        for (routes, live, error) in cases {
            assert_eq!(check(&routes, live), Err(error), "{routes:?}");
        }
    }
}
