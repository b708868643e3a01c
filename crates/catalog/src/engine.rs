//! Lookups of routes by global key, for clients and gateways.
//!
//! The engine has the routes of one catalog version, and of a few earlier ones. Readers take no lock: they see the
//! routes of one version, before or after a change, never a mixture. Changes are validated before readers see them.
//!
//! - [`RouteSnapshot`], [`RouteDelta`] (`changes`): the routes of a version, and a change to the next version.
//! - `state`: which changes an engine accepts, and what follows from them (pure).
//! - [`EngineRoute`] (`route`): a route with the counters of its accesses.
//! - [`EngineStats`] (`stats`): sums of the counters, and the routes with the most accesses.

mod changes;
mod reserved;
mod route;
mod state;
mod stats;

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidewater_common::ids::{CatalogVersion, Epoch, GroupId, Incarnation, RegionId};
use tidewater_common::keys::KeyRange;

pub use self::changes::{RouteDelta, RouteSnapshot, routes_digest};
pub use self::route::{AccessKind, EngineRoute, RouteLoad};
use self::state::EngineState;
pub use self::stats::{EngineStats, HotRoute};
use crate::{GlobalKey, RouteDescriptor, RouteError, RouteState};

/// Number of earlier versions whose routes are kept for [`RouteEngine::route_at`]. Versions share what is equal in
/// them: one costs about 15 KB with 100,000 routes.
pub const KEPT_VERSIONS: usize = 64;

/// Score from which a route counts as hot unless [`RouteEngine::with_threshold`] sets another one.
const DEFAULT_THRESHOLD: u64 = 1_000_000;

/// Reasons to reject a change or a question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// A snapshot of an earlier version or incarnation.
    #[error("the snapshot at version {got} is older than the known version {have}")]
    SnapshotVersionStale {
        /// Known version.
        have: EngineVersion,
        /// Version of the snapshot.
        got: EngineVersion,
    },
    /// A snapshot of the known version with other routes: one of the two is damaged, or is of another cluster.
    #[error(
        "the routes of version {version} have digest {known:016x}, and those of the snapshot {received:016x}"
    )]
    CatalogDivergence {
        /// Version of both.
        version: CatalogVersion,
        /// Digest of the known routes.
        known: u64,
        /// Digest of the routes of the snapshot.
        received: u64,
    },
    /// A delta that does not extend the known version by one. The caller fetches a snapshot.
    #[error("a delta from version {previous} to {version} does not follow version {have}")]
    DeltaVersionGap {
        /// Known version.
        have: CatalogVersion,
        /// Version before the delta.
        previous: CatalogVersion,
        /// Version after the delta.
        version: CatalogVersion,
    },
    /// A version whose routes are not known, or no longer.
    #[error(
        "the routes of version {version} are not kept (kept: {kept} versions from {oldest} to {newest})"
    )]
    VersionNotKept {
        /// The version asked for.
        version: CatalogVersion,
        /// Number of kept versions.
        kept: usize,
        /// Oldest kept version.
        oldest: CatalogVersion,
        /// Newest version.
        newest: CatalogVersion,
    },
    /// A change of keys that a route of the catalog has: only ephemeral routes change without the catalog.
    #[error("route {0} of the catalog has keys of the range, and only the catalog changes it")]
    RouteOfCatalog(RegionId),
    /// Invalid routes.
    #[error(transparent)]
    Route(#[from] RouteError),
}

/// Version of the routes of an engine. A restored cluster has a later incarnation, and its versions begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EngineVersion {
    /// Incarnation of the cluster.
    pub incarnation: Incarnation,
    /// Version of the catalog.
    pub version: CatalogVersion,
}

impl std::fmt::Display for EngineVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of incarnation {}", self.version, self.incarnation)
    }
}

/// Routes for concurrent lookups.
#[derive(Debug)]
pub struct RouteEngine {
    state: ArcSwap<EngineState>,
    /// Held by the one change that is being validated.
    changing: Mutex<()>,
    threshold: u64,
}

impl Default for RouteEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl RouteEngine {
    /// Creates an engine without routes, at version 0.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: ArcSwap::from_pointee(EngineState::default()),
            changing: Mutex::new(()),
            threshold: DEFAULT_THRESHOLD,
        }
    }

    /// Creates an engine with one ephemeral route over all keys, for tests and tools.
    ///
    /// # Errors
    /// [`RouteError::GroupIdRequired`].
    pub fn with_default_route(group: GroupId) -> Result<Self, EngineError> {
        let engine = Self::new();
        engine.update_route(KeyRange::whole(), group)?;
        Ok(engine)
    }

    /// Sets the score from which a route counts as hot; see [`HotRoute`].
    #[must_use]
    pub fn with_threshold(self, score: u64) -> Self {
        Self { threshold: score, ..self }
    }

    /// Version of the catalog; 0 before the first snapshot or delta.
    pub fn version(&self) -> CatalogVersion {
        self.state.load().position.version
    }

    /// Incarnation of the cluster; 0 before the first snapshot.
    pub fn incarnation(&self) -> Incarnation {
        self.state.load().position.incarnation
    }

    /// Returns the route that contains a global key.
    pub fn get_route(&self, key: &[u8]) -> Option<Arc<EngineRoute>> {
        self.state.load().routes.get(GlobalKey::from_bytes(key)).cloned()
    }

    /// Returns the routes that have keys from `start` to `end` (exclusive; `None`: unbounded), in order, all of one
    /// version.
    pub fn intersecting_routes(&self, start: &[u8], end: Option<&[u8]>) -> Vec<Arc<EngineRoute>> {
        let state = self.state.load();
        let end = end.map(GlobalKey::from_bytes);
        state.routes.intersecting(GlobalKey::from_bytes(start), end).cloned().collect()
    }

    /// Returns the route that contained a global key at a version.
    ///
    /// # Errors
    /// [`EngineError::VersionNotKept`].
    pub fn route_at(
        &self,
        version: CatalogVersion,
        key: &[u8],
    ) -> Result<Option<Arc<EngineRoute>>, EngineError> {
        let state = self.state.load();
        Ok(state.routes_at(version)?.get(GlobalKey::from_bytes(key)).cloned())
    }

    /// Returns the newest version and its routes, in order.
    pub fn routes(&self) -> (EngineVersion, Vec<Arc<EngineRoute>>) {
        let state = self.state.load();
        (state.position, state.routes.iter().cloned().collect())
    }

    /// Counts an access to a key. Returns `false` if no route has the key.
    pub fn record_access(&self, key: &[u8], kind: AccessKind, bytes: u64) -> bool {
        let state = self.state.load();
        let route = state.routes.get(GlobalKey::from_bytes(key));
        if let Some(route) = route {
            route.count(kind, bytes);
        }
        route.is_some()
    }

    /// Returns the sums of the counters, and the hottest routes. Takes time for every route.
    pub fn stats(&self) -> EngineStats {
        EngineStats::of(&self.state.load(), self.threshold)
    }

    /// Replaces all routes by those of a snapshot. Returns `false` if the engine has them already.
    ///
    /// Ephemeral routes end. Counters of routes that keep their id and range continue.
    ///
    /// # Errors
    /// [`EngineError::SnapshotVersionStale`], [`EngineError::CatalogDivergence`], or the first of
    /// [`RouteError::DuplicateRouteId`], [`RouteError::Order`] and [`RouteError::Overlap`]. The engine is unchanged.
    pub fn apply_snapshot(&self, snapshot: RouteSnapshot) -> Result<bool, EngineError> {
        let changing = self.changing.lock();
        let next = self.state.load().after_snapshot(snapshot)?;
        let is_new = next.is_some();
        if let Some(next) = next {
            self.state.store(Arc::new(next));
        }
        drop(changing);
        Ok(is_new)
    }

    /// Changes the routes to those of the next version. Counters of routes that keep their id and range continue.
    ///
    /// # Errors
    /// [`EngineError::DeltaVersionGap`]: fetch a snapshot. [`RouteError::DuplicateRouteId`] or
    /// [`RouteError::Overlap`]. The engine is unchanged.
    pub fn apply_delta(&self, delta: RouteDelta) -> Result<(), EngineError> {
        self.change(|state| state.after_delta(delta))
    }

    /// Gives a range of global keys to a group by an ephemeral route, which replaces the parts of other ephemeral
    /// routes. The version stays.
    ///
    /// # Errors
    /// [`EngineError::RouteOfCatalog`], [`RouteError::GroupIdRequired`] or [`RouteError::InvalidRange`]. The engine
    /// is unchanged.
    pub fn update_route(&self, range: KeyRange, group: GroupId) -> Result<(), EngineError> {
        let route = RouteDescriptor {
            route_id: RegionId(0),
            start: range.start,
            end: range.end,
            group_id: group,
            state: RouteState::Active,
            parent_route_id: None,
            epoch: Epoch(0),
            incarnation: Incarnation::FIRST,
        };
        self.change(|state| state.with_ephemeral(route))
    }

    fn change(
        &self,
        next: impl FnOnce(&EngineState) -> Result<EngineState, EngineError>,
    ) -> Result<(), EngineError> {
        let _changing = self.changing.lock();
        let next = next(&self.state.load())?;
        self.state.store(Arc::new(next));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
