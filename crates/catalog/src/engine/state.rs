//! State of an engine, and the state after a change (pure).

use std::collections::VecDeque;
use std::sync::Arc;

use tidewater_common::ids::{CatalogVersion, Incarnation};

use super::{
    EngineError, EngineRoute, EngineVersion, KEPT_VERSIONS, RouteDelta, RouteSnapshot,
    routes_digest,
};
use crate::{GlobalKey, KeyedRoute, RouteDescriptor, RouteError, RouteMap};

/// Routes of the newest version and of some before it.
#[derive(Debug)]
pub(super) struct EngineState {
    pub(super) position: EngineVersion,
    pub(super) routes: RouteMap<EngineRoute>,
    /// Earlier versions of this incarnation, oldest first.
    past: VecDeque<(CatalogVersion, RouteMap<EngineRoute>)>,
}

impl Default for EngineState {
    fn default() -> Self {
        let position = EngineVersion { incarnation: Incarnation(0), version: CatalogVersion(0) };
        Self { position, routes: RouteMap::default(), past: VecDeque::new() }
    }
}

impl EngineState {
    /// Returns the state after a snapshot; `None`: the state has its routes already.
    pub(super) fn after_snapshot(
        &self,
        snapshot: RouteSnapshot,
    ) -> Result<Option<Self>, EngineError> {
        let RouteSnapshot { incarnation, version, routes } = snapshot;
        let position = EngineVersion { incarnation, version };
        if position < self.position {
            return Err(EngineError::SnapshotVersionStale { have: self.position, got: position });
        }
        if position == self.position {
            let known = routes_digest(self.routes.iter().map(|route| route.descriptor()));
            let received = routes_digest(&routes);
            return if known == received {
                Ok(None)
            } else {
                Err(EngineError::CatalogDivergence { version, known, received })
            };
        }
        let routes = RouteMap::from_sorted(self.continued(routes)?)?;
        let is_restored = incarnation > self.position.incarnation;
        let past = if is_restored { VecDeque::new() } else { self.past_of_next() };
        Ok(Some(Self { position, routes, past }))
    }

    /// Returns the state after a delta.
    pub(super) fn after_delta(&self, delta: RouteDelta) -> Result<Self, EngineError> {
        let RouteDelta { previous, version, upserts, deletes } = delta;
        let have = self.position.version;
        let next = have.get().checked_add(1).ok_or(RouteError::VersionOverflow)?;
        if previous != have || version != CatalogVersion(next) {
            return Err(EngineError::DeltaVersionGap { have, previous, version });
        }
        let mut routes = self.routes_of_catalog()?;
        routes.apply(deletes, self.continued(upserts)?)?;
        let position = EngineVersion { version, ..self.position };
        Ok(Self { position, routes, past: self.past_of_next() })
    }

    /// Returns the state with an ephemeral route in the place of the parts of others.
    pub(super) fn with_ephemeral(&self, route: RouteDescriptor) -> Result<Self, EngineError> {
        route.validate_ephemeral()?;
        let mut routes = self.routes.clone();
        let replaced: Vec<_> =
            self.routes.intersecting(route.start(), route.end()).cloned().collect();
        for old in replaced {
            if !old.descriptor().is_ephemeral() {
                return Err(EngineError::RouteOfCatalog(old.id()));
            }
            routes.remove_at(old.start());
            for rest in remainders(old.descriptor(), &route) {
                routes.insert(Arc::new(EngineRoute::new(rest, None)))?;
            }
        }
        routes.insert(Arc::new(EngineRoute::new(route, None)))?;
        Ok(Self { position: self.position, routes, past: self.past.clone() })
    }

    /// Returns the routes of a version.
    pub(super) fn routes_at(
        &self,
        version: CatalogVersion,
    ) -> Result<&RouteMap<EngineRoute>, EngineError> {
        if version == self.position.version {
            return Ok(&self.routes);
        }
        let kept = self.past.iter().find(|(known, _)| *known == version);
        kept.map(|(_, routes)| routes).ok_or_else(|| EngineError::VersionNotKept {
            version,
            kept: self.past.len() + 1,
            oldest: self.past.front().map_or(self.position.version, |(oldest, _)| *oldest),
            newest: self.position.version,
        })
    }

    /// Number of versions whose routes are known.
    pub(super) fn kept_versions(&self) -> usize {
        self.past.len() + 1
    }

    /// Converts routes, with the counters that they have in this state.
    fn continued(
        &self,
        routes: Vec<RouteDescriptor>,
    ) -> Result<Vec<Arc<EngineRoute>>, EngineError> {
        routes
            .into_iter()
            .map(|route| {
                route.validate()?;
                let before = self.routes.with_id(route.route_id);
                Ok(Arc::new(EngineRoute::new(route, before.map(Arc::as_ref))))
            })
            .collect()
    }

    /// Returns the routes without the ephemeral ones, which end with the first version of the catalog.
    fn routes_of_catalog(&self) -> Result<RouteMap<EngineRoute>, EngineError> {
        if self.routes.ephemeral_count() == 0 {
            return Ok(self.routes.clone());
        }
        let of_catalog = self.routes.iter().filter(|route| !route.descriptor().is_ephemeral());
        Ok(RouteMap::from_sorted(of_catalog.cloned().collect())?)
    }

    /// Returns the earlier versions of the next state of this incarnation.
    fn past_of_next(&self) -> VecDeque<(CatalogVersion, RouteMap<EngineRoute>)> {
        let mut past = self.past.clone();
        if past.len() >= KEPT_VERSIONS {
            past.pop_front();
        }
        past.push_back((self.position.version, self.routes.clone()));
        past
    }
}

/// Returns the parts of a route before and after another one.
fn remainders(old: &RouteDescriptor, new: &RouteDescriptor) -> Vec<RouteDescriptor> {
    let mut rest = Vec::new();
    if old.start < new.start {
        rest.push(RouteDescriptor { end: Some(new.start.clone()), ..old.clone() });
    }
    if let Some(end) = &new.end
        && old.reaches(GlobalKey::from_bytes(end))
    {
        rest.push(RouteDescriptor { start: end.clone(), ..old.clone() });
    }
    rest
}
