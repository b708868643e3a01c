//! Changes of an engine: all routes of a version, or those that a version changes.

use std::hash::Hasher;

use tidewater_common::ids::{CatalogVersion, Incarnation, RegionId};
use tidewater_proto::v1;
use twox_hash::XxHash64;

use crate::{RouteDescriptor, RouteError};

/// All routes of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSnapshot {
    /// Incarnation of the cluster.
    pub incarnation: Incarnation,
    /// Version of the catalog.
    pub version: CatalogVersion,
    /// The routes, sorted by start.
    pub routes: Vec<RouteDescriptor>,
}

/// Change of the routes from a version to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteDelta {
    /// Version before the change.
    pub previous: CatalogVersion,
    /// Version after the change.
    pub version: CatalogVersion,
    /// Routes that are new or have changed.
    pub upserts: Vec<RouteDescriptor>,
    /// Routes that exist no more.
    pub deletes: Vec<RegionId>,
}

impl TryFrom<&v1::CatalogSnapshot> for RouteSnapshot {
    type Error = RouteError;

    fn try_from(wire: &v1::CatalogSnapshot) -> Result<Self, RouteError> {
        Ok(Self {
            incarnation: Incarnation(wire.incarnation),
            version: CatalogVersion(wire.catalog_version),
            routes: descriptors(&wire.routes)?,
        })
    }
}

impl RouteDelta {
    /// Returns the routes of a change of the catalog, or `None` if it changes no route.
    ///
    /// # Errors
    /// A route violates an invariant of a single route.
    pub fn from_catalog(wire: &v1::CatalogDelta) -> Result<Option<Self>, RouteError> {
        if wire.catalog_version == wire.previous_catalog_version {
            return Ok(None);
        }
        Ok(Some(Self {
            previous: CatalogVersion(wire.previous_catalog_version),
            version: CatalogVersion(wire.catalog_version),
            upserts: descriptors(&wire.route_upserts)?,
            deletes: wire.route_deletes.iter().copied().map(RegionId).collect(),
        }))
    }
}

fn descriptors(routes: &[v1::Route]) -> Result<Vec<RouteDescriptor>, RouteError> {
    routes.iter().map(RouteDescriptor::try_from).collect()
}

/// Returns a digest of routes and their order (`XxHash64`), which is the same in every process.
pub fn routes_digest<'a>(routes: impl IntoIterator<Item = &'a RouteDescriptor>) -> u64 {
    let mut hasher = XxHash64::with_seed(0);
    let number = |hasher: &mut XxHash64, value: u64| hasher.write(&value.to_be_bytes());
    for route in routes {
        number(&mut hasher, route.route_id.get());
        number(&mut hasher, route.group_id.get());
        number(&mut hasher, route.state as u64);
        number(&mut hasher, route.parent_route_id.map_or(0, RegionId::get));
        number(&mut hasher, route.epoch.get());
        number(&mut hasher, route.incarnation.get());
        number(&mut hasher, route.start.len() as u64);
        hasher.write(&route.start);
        // No key has this length, so an unbounded route differs from every other.
        number(&mut hasher, route.end.as_ref().map_or(u64::MAX, |end| end.len() as u64));
        hasher.write(route.end.as_deref().unwrap_or_default());
    }
    hasher.finish()
}
