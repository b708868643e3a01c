//! Positions in the changes of the catalog, and the routes at them.

use tidewater_common::ids::{CatalogVersion, Incarnation, RegionId, Revision};
use tidewater_proto::v1;

use crate::catalog::{CatalogError, RouteDelta, RouteSnapshot};
use crate::error::ClientError;

/// Position in the changes of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogCursor {
    /// Incarnation of the cluster.
    pub incarnation: Incarnation,
    /// Number of the last change of any record.
    pub revision: Revision,
    /// Version of the routes at this revision.
    pub version: CatalogVersion,
}

/// All routes of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRoutes {
    /// Position at which they were read.
    pub cursor: CatalogCursor,
    /// The routes, sorted by start.
    pub snapshot: RouteSnapshot,
    /// Every id of a route that exists or has existed is smaller.
    pub next_route_id: RegionId,
}

/// Changes of the routes after a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteChanges {
    /// Consecutive changes, oldest first, at most as many as asked for; and the position after them.
    Deltas(Vec<RouteDelta>, CatalogCursor),
    /// The changes are no longer kept, or the cluster was restored.
    Snapshot(StoredRoutes),
}

impl CatalogCursor {
    /// Returns the position after a change.
    pub(super) fn after(self, delta: &v1::CatalogDelta) -> Result<Self, ClientError> {
        let follows = delta.revision == self.revision.get().saturating_add(1)
            && delta.previous_catalog_version == self.version.get();
        if !follows {
            return Err(ClientError::Catalog(CatalogError::Gap {
                have: self.revision,
                got: Revision(delta.revision),
            }));
        }
        Ok(Self {
            incarnation: self.incarnation,
            revision: Revision(delta.revision),
            version: CatalogVersion(delta.catalog_version),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_with_a_hole_are_an_error() {
        let cursor = CatalogCursor {
            incarnation: Incarnation(1),
            revision: Revision(7),
            version: CatalogVersion(3),
        };
        let delta = |revision, previous, version| v1::CatalogDelta {
            revision,
            previous_catalog_version: previous,
            catalog_version: version,
            ..v1::CatalogDelta::default()
        };
        let next = cursor.after(&delta(8, 3, 4)).unwrap();
        assert_eq!((next.revision, next.version), (Revision(8), CatalogVersion(4)));
        assert_eq!(cursor.after(&delta(8, 3, 3)).unwrap().version, CatalogVersion(3));
        for hole in [delta(9, 3, 4), delta(7, 3, 4), delta(8, 4, 5)] {
            let error = cursor.after(&hole).unwrap_err();
            assert!(matches!(error, ClientError::Catalog(CatalogError::Gap { .. })), "{error}");
        }
    }
}
