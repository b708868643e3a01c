//! Hint of a refused call whose route or schema is out of date.
//!
//! A client derives from a [`CatalogHint`] for which change of the catalog it waits. It uses the hint for nothing
//! else: it receives the catalog itself from the meta service only.

use tidewater_proto::v1;

use crate::ids::{CatalogVersion, GroupId, RegionId, Revision, SchemaVersion, TableId};
use crate::keys::{KeyRange, global_key, split_global_range, table_range};

/// Most bytes of the bounds of a region in an error. Clients refuse answers with long trailers.
const MAX_BOUND_BYTES: usize = 512;

/// State with which a node compared a route or schema that is out of date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogHint {
    /// From a data node: the region of the call.
    Region {
        /// Region that the call named.
        region: RegionId,
        /// Its state in its group.
        presence: RegionPresence,
    },
    /// From a meta node: the catalog on which it decided.
    Catalog {
        /// Revision of the catalog.
        revision: Revision,
        /// Version of its routes.
        version: CatalogVersion,
    },
}

/// Presence of a region in its group, as far as the replica has applied the group's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegionPresence {
    /// The group serves the region.
    Served(ServedRegion),
    /// The group has not opened the region.
    Unknown,
    /// The group has dropped the region permanently.
    Dropped,
    /// Another group has the region.
    Moved(GroupId),
}

/// A region as its group serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedRegion {
    /// Table of the region.
    pub table: TableId,
    /// Version of the table's schema in the region.
    pub schema_version: SchemaVersion,
    /// Group that serves the region.
    pub group: GroupId,
    /// Row keys of the region; `None` when they are too long to be sent.
    pub range: Option<KeyRange>,
}

impl From<CatalogHint> for v1::CatalogHint {
    fn from(hint: CatalogHint) -> Self {
        let (region, presence) = match hint {
            CatalogHint::Catalog { revision, version } => {
                return Self {
                    revision: revision.get(),
                    catalog_version: version.get(),
                    ..Self::default()
                };
            }
            CatalogHint::Region { region, presence } => (region, presence),
        };
        let wire = Self { region_id: region.get(), ..Self::default() };
        match presence {
            RegionPresence::Unknown => {
                Self { presence: v1::RegionPresence::Unknown.into(), ..wire }
            }
            RegionPresence::Dropped => {
                Self { presence: v1::RegionPresence::Dropped.into(), ..wire }
            }
            RegionPresence::Moved(group) => {
                Self { presence: v1::RegionPresence::Moved.into(), group_id: group.get(), ..wire }
            }
            RegionPresence::Served(served) => Self {
                presence: v1::RegionPresence::Served.into(),
                table_id: served.table.get(),
                schema_version: served.schema_version.get(),
                group_id: served.group.get(),
                route: route(region, &served),
                ..wire
            },
        }
    }
}

fn route(region: RegionId, served: &ServedRegion) -> Option<v1::Route> {
    let range = served.range.as_ref()?;
    let bytes = range.start.len() + range.end.as_ref().map_or(0, Vec::len);
    let end = match &range.end {
        Some(end) => Some(global_key(served.table, end)),
        None => table_range(served.table).end,
    };
    (bytes <= MAX_BOUND_BYTES).then(|| v1::Route {
        route_id: region.get(),
        start: global_key(served.table, &range.start).into(),
        end: end.map(Into::into),
        group_id: served.group.get(),
        ..v1::Route::default()
    })
}

impl CatalogHint {
    /// Reads a received hint. `None` when it contradicts itself: the caller then has no hint.
    pub fn from_wire(wire: &v1::CatalogHint) -> Option<Self> {
        if wire.region_id == 0 {
            return (wire.revision != 0).then_some(Self::Catalog {
                revision: Revision(wire.revision),
                version: CatalogVersion(wire.catalog_version),
            });
        }
        let presence = match v1::RegionPresence::try_from(wire.presence).ok()? {
            v1::RegionPresence::Unspecified => return None,
            v1::RegionPresence::Unknown => RegionPresence::Unknown,
            v1::RegionPresence::Dropped => RegionPresence::Dropped,
            v1::RegionPresence::Served => RegionPresence::Served(served_region(wire)?),
            v1::RegionPresence::Moved if wire.group_id == 0 => return None,
            v1::RegionPresence::Moved => RegionPresence::Moved(GroupId(wire.group_id)),
        };
        Some(Self::Region { region: RegionId(wire.region_id), presence })
    }
}

fn served_region(wire: &v1::CatalogHint) -> Option<ServedRegion> {
    let table = TableId(wire.table_id);
    let schema_version = SchemaVersion(wire.schema_version);
    let group = GroupId(wire.group_id);
    if wire.table_id == 0 || wire.schema_version == 0 || wire.group_id == 0 {
        return None;
    }
    let range = match &wire.route {
        None => None,
        Some(route) => Some(agreeing_range(wire, route)?),
    };
    Some(ServedRegion { table, schema_version, group, range })
}

fn agreeing_range(wire: &v1::CatalogHint, route: &v1::Route) -> Option<KeyRange> {
    let (table, range) = split_global_range(&route.start, route.end.as_deref())?;
    let agrees = route.route_id == wire.region_id
        && route.group_id == wire.group_id
        && table.get() == wire.table_id
        && !range.is_empty();
    agrees.then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(range: Option<KeyRange>) -> CatalogHint {
        let served = ServedRegion {
            table: TableId(7),
            schema_version: SchemaVersion(2),
            group: GroupId(5),
            range,
        };
        CatalogHint::Region { region: RegionId(100), presence: RegionPresence::Served(served) }
    }

    fn region(presence: RegionPresence) -> CatalogHint {
        CatalogHint::Region { region: RegionId(100), presence }
    }

    #[test]
    fn hint_round_trips_over_the_wire() {
        for hint in [
            region(RegionPresence::Unknown),
            region(RegionPresence::Dropped),
            region(RegionPresence::Moved(GroupId(3))),
            served(Some(KeyRange::whole())),
            served(Some(KeyRange::new(b"a", Some(b"b".to_vec())))),
            CatalogHint::Catalog { revision: Revision(12), version: CatalogVersion(3) },
        ] {
            let wire = v1::CatalogHint::from(hint.clone());
            assert_eq!(CatalogHint::from_wire(&wire), Some(hint));
        }
    }

    #[test]
    fn long_bounds_are_not_sent() {
        let long = served(Some(KeyRange::new(vec![1; 300], Some(vec![2; 300]))));
        let wire = v1::CatalogHint::from(long);
        assert_eq!(wire.route, None);
        let Some(CatalogHint::Region { presence: RegionPresence::Served(received), .. }) =
            CatalogHint::from_wire(&wire)
        else {
            panic!("{wire:?}")
        };
        assert_eq!((received.schema_version, received.range), (SchemaVersion(2), None));
    }

    #[test]
    fn contradicting_hint_is_ignored() {
        let good = v1::CatalogHint::from(served(Some(KeyRange::new(b"a", Some(b"b".to_vec())))));
        let with_route = |change: fn(&mut v1::Route)| {
            let mut hint = good.clone();
            hint.route.as_mut().map(change).unwrap();
            hint
        };
        let bad = [
            v1::CatalogHint::default(),
            v1::CatalogHint { presence: 99, ..good.clone() },
            v1::CatalogHint { presence: 0, ..good.clone() },
            v1::CatalogHint { table_id: 0, ..good.clone() },
            v1::CatalogHint { schema_version: 0, ..good.clone() },
            v1::CatalogHint { group_id: 0, ..good.clone() },
            // The route is of another table, region or group.
            v1::CatalogHint { table_id: 8, ..good.clone() },
            v1::CatalogHint { region_id: 101, ..good.clone() },
            v1::CatalogHint { group_id: 6, ..good.clone() },
            with_route(|route| route.start = vec![1, 2].into()),
            with_route(|route| route.end = Some(vec![1].into())),
            with_route(|route| route.end = Some(route.start.clone())),
        ];
        for hint in bad {
            assert_eq!(CatalogHint::from_wire(&hint), None, "{hint:?}");
        }
    }
}
