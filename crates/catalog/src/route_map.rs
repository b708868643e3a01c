//! Routes ordered by their starts, without overlaps: the one index of routes of clients and engines.
//!
//! The map is persistent: a clone shares everything, and a change copies one chunk of routes and the list of
//! chunks. A lookup compares eight bytes of the starts and of the end, which are adjacent in memory, and reads a whole key
//! only where these are equal (`prefixes`).
//!
//! - *Chunk* (`chunk`): up to 512 adjacent routes. Lookup by start is a search of the chunks, then of one chunk.
//! - *Id*: each route has one of its own, except ephemeral ones, which all have 0 and are found by key only.

mod chunk;
mod prefixes;

use std::collections::HashSet;
use std::sync::Arc;

use rpds::HashTrieMapSync;
use tidewater_common::ids::RegionId;

use self::chunk::Chunks;
use crate::{GlobalKey, RouteError};

/// A route with its id and its range of global keys.
pub trait KeyedRoute {
    /// Id; 0: the route is ephemeral.
    fn id(&self) -> RegionId;
    /// First key.
    fn start(&self) -> GlobalKey<'_>;
    /// End of the range, exclusive; `None`: unbounded.
    fn end(&self) -> Option<GlobalKey<'_>>;

    /// Returns whether the route has keys from this one on.
    fn reaches(&self, key: GlobalKey<'_>) -> bool {
        self.end().is_none_or(|end| end > key)
    }
}

/// Routes that do not overlap.
#[derive(Debug)]
pub struct RouteMap<R> {
    chunks: Arc<Chunks<R>>,
    by_id: HashTrieMapSync<RegionId, Arc<R>>,
}

impl<R> Clone for RouteMap<R> {
    fn clone(&self) -> Self {
        Self { chunks: Arc::clone(&self.chunks), by_id: self.by_id.clone() }
    }
}

impl<R> Default for RouteMap<R> {
    fn default() -> Self {
        Self { chunks: Arc::default(), by_id: HashTrieMapSync::new_sync() }
    }
}

impl<R: KeyedRoute> RouteMap<R> {
    /// Creates the map of routes that are sorted by start.
    ///
    /// # Errors
    /// [`RouteError::DuplicateRouteId`], then [`RouteError::Order`], then [`RouteError::Overlap`].
    pub fn from_sorted(routes: Vec<Arc<R>>) -> Result<Self, RouteError> {
        check_routes(routes.iter().map(Arc::as_ref))?;
        let mut by_id = HashTrieMapSync::new_sync();
        for route in routes.iter().filter(|route| has_id(route.as_ref())) {
            by_id.insert_mut(route.id(), Arc::clone(route));
        }
        Ok(Self { chunks: Arc::new(Chunks::from_sorted(&routes)), by_id })
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Number of ephemeral routes.
    pub fn ephemeral_count(&self) -> usize {
        self.len() - self.by_id.size()
    }

    /// Returns whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All routes, in order of their starts.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<R>> {
        self.chunks.iter_from(0)
    }

    /// Returns the route with this id.
    pub fn with_id(&self, id: RegionId) -> Option<&Arc<R>> {
        self.by_id.get(&id)
    }

    /// Returns the route that contains a key.
    pub fn get(&self, key: GlobalKey<'_>) -> Option<&Arc<R>> {
        self.chunks.containing(key)
    }

    /// Returns the routes that have keys from `start` to `end` (exclusive; `None`: unbounded), in order.
    pub fn intersecting<'a>(
        &'a self,
        start: GlobalKey<'a>,
        end: Option<GlobalKey<'a>>,
    ) -> impl Iterator<Item = &'a Arc<R>> {
        self.chunks
            .iter_around(start)
            .skip_while(move |route| !route.reaches(start))
            .take_while(move |route| end.is_none_or(|end| route.start() < end))
    }

    /// Adds a route.
    ///
    /// # Errors
    /// [`RouteError::DuplicateRouteId`] or [`RouteError::Overlap`]; the map is unchanged.
    pub fn insert(&mut self, route: Arc<R>) -> Result<(), RouteError> {
        self.check_insert(route.as_ref())?;
        if has_id(route.as_ref()) {
            self.by_id.insert_mut(route.id(), Arc::clone(&route));
        }
        Arc::make_mut(&mut self.chunks).insert(route);
        Ok(())
    }

    fn check_insert(&self, route: &R) -> Result<(), RouteError> {
        if has_id(route) && self.by_id.contains_key(&route.id()) {
            return Err(RouteError::DuplicateRouteId(route.id()));
        }
        // The routes do not overlap so far, so only the neighbours can overlap this one.
        let mut around = self.chunks.iter_around(route.start());
        let mut after = around.next();
        if let Some(before) = after.filter(|found| found.start() <= route.start()) {
            if before.reaches(route.start()) {
                return Err(RouteError::Overlap(before.id(), route.id()));
            }
            after = around.next();
        }
        match after.filter(|after| route.reaches(after.start())) {
            Some(after) => Err(RouteError::Overlap(route.id(), after.id())),
            None => Ok(()),
        }
    }

    /// Removes and returns the route with this id.
    pub fn remove(&mut self, id: RegionId) -> Option<Arc<R>> {
        let route = self.by_id.get(&id).cloned()?;
        self.remove_at(route.start())
    }

    /// Removes and returns the route with this start.
    pub fn remove_at(&mut self, start: GlobalKey<'_>) -> Option<Arc<R>> {
        let route = self.chunks.last_up_to(start).filter(|found| found.start() == start)?;
        let route = Arc::clone(route);
        Arc::make_mut(&mut self.chunks).remove_last_up_to(start);
        self.by_id.remove_mut(&route.id());
        Some(route)
    }

    /// Deletes and replaces routes: the deletes first, then all old routes of the upserts, since a route may get
    /// the start of one that shrinks, then the upserts.
    ///
    /// # Errors
    /// As [`RouteMap::insert`]; then the map is unusable, so callers change a clone.
    pub fn apply(
        &mut self,
        deletes: impl IntoIterator<Item = RegionId>,
        upserts: Vec<Arc<R>>,
    ) -> Result<(), RouteError> {
        for id in deletes.into_iter().chain(upserts.iter().map(|route| route.id())) {
            self.remove(id);
        }
        upserts.into_iter().try_for_each(|route| self.insert(route))
    }
}

fn has_id(route: &impl KeyedRoute) -> bool {
    route.id() != RegionId(0)
}

/// Checks that routes have different ids, then that they are sorted by start, then that they do not overlap.
pub(crate) fn check_routes<'a, R: KeyedRoute + 'a>(
    routes: impl Iterator<Item = &'a R> + Clone,
) -> Result<(), RouteError> {
    let mut ids = HashSet::new();
    for route in routes.clone().filter(|route| has_id(*route)) {
        if !ids.insert(route.id()) {
            return Err(RouteError::DuplicateRouteId(route.id()));
        }
    }
    let pairs = routes.clone().zip(routes.skip(1));
    for (left, right) in pairs.clone() {
        if left.start() >= right.start() || left.end().is_none() {
            return Err(RouteError::Order(left.id(), right.id()));
        }
    }
    for (left, right) in pairs {
        if left.reaches(right.start()) {
            return Err(RouteError::Overlap(left.id(), right.id()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
