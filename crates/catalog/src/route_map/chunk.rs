//! Chunks of adjacent routes: a list in two levels, each searched by a few bytes of the starts.

use std::cmp::Ordering;
use std::sync::Arc;

use super::KeyedRoute;
use super::prefixes::Prefixes;
use crate::GlobalKey;

/// Most routes of a chunk. A change copies one chunk and the list of chunks: with 512, these are about equal at
/// 200,000 routes.
pub(super) const MOST: usize = 512;
/// A chunk with fewer routes joins a neighbour that has room for them.
pub(super) const LEAST: usize = MOST / 4;
/// Routes of each chunk of a new list, which leaves room for inserts.
const FILLED: usize = MOST / 4 * 3;

/// Adjacent routes, in order of their starts; never empty.
#[derive(Debug)]
struct Chunk<R> {
    prefixes: Prefixes,
    /// First bytes of the ends, as [`Prefixes`] has those of the starts: a lookup reads no route.
    ends: Vec<u64>,
    routes: Vec<Arc<R>>,
}

/// All routes, in order of their starts.
#[derive(Debug)]
pub(super) struct Chunks<R> {
    /// Those of the first start of each chunk.
    prefixes: Prefixes,
    chunks: Vec<Arc<Chunk<R>>>,
    len: usize,
}

impl<R> Clone for Chunk<R> {
    fn clone(&self) -> Self {
        Self {
            prefixes: self.prefixes.clone(),
            ends: self.ends.clone(),
            routes: self.routes.clone(),
        }
    }
}

impl<R> Clone for Chunks<R> {
    fn clone(&self) -> Self {
        Self { prefixes: self.prefixes.clone(), chunks: self.chunks.clone(), len: self.len }
    }
}

impl<R> Default for Chunks<R> {
    fn default() -> Self {
        Self { prefixes: Prefixes::default(), chunks: Vec::new(), len: 0 }
    }
}

impl<R: KeyedRoute> Chunk<R> {
    fn new(routes: Vec<Arc<R>>) -> Self {
        let prefixes = Prefixes::of(routes.iter().map(|route| route.start()));
        let ends = routes.iter().map(|route| prefixes.number_of_end(route.end())).collect();
        Self { prefixes, ends, routes }
    }

    /// Returns the route that contains a key.
    fn containing(&self, key: GlobalKey<'_>) -> Option<&Arc<R>> {
        let at = self.count_up_to(key).checked_sub(1)?;
        let route = self.routes.get(at)?;
        let contains = match self.prefixes.compare_end(*self.ends.get(at)?, key) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal => route.reaches(key),
        };
        contains.then_some(route)
    }

    fn first(&self) -> Option<GlobalKey<'_>> {
        self.routes.first().map(|route| route.start())
    }

    /// Returns the number of routes that start up to a key.
    fn count_up_to(&self, key: GlobalKey<'_>) -> usize {
        self.prefixes.count_up_to(key, |at| Some(self.routes.get(at)?.start()))
    }

    fn insert(&mut self, at: usize, route: Arc<R>) {
        let is_covered = self.prefixes.insert(at, route.start());
        self.ends.insert(at, self.prefixes.number_of_end(route.end()));
        self.routes.insert(at, route);
        if !is_covered {
            *self = Self::new(std::mem::take(&mut self.routes));
        }
    }

    fn remove(&mut self, at: usize) {
        self.prefixes.remove(at);
        self.ends.remove(at);
        self.routes.remove(at);
    }

    /// Moves the second half of the routes to a new chunk.
    fn split(&mut self) -> Self {
        let mut first = std::mem::take(&mut self.routes);
        let second = first.split_off(first.len() / 2);
        *self = Self::new(first);
        Self::new(second)
    }
}

impl<R: KeyedRoute> Chunks<R> {
    pub(super) fn from_sorted(routes: &[Arc<R>]) -> Self {
        let chunk = |some: &[Arc<R>]| Arc::new(Chunk::new(some.to_vec()));
        let mut chunks = Self { len: routes.len(), ..Self::default() };
        chunks.chunks = routes.chunks(FILLED).map(chunk).collect();
        chunks.renew_prefixes();
        chunks
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the route that contains a key.
    pub(super) fn containing(&self, key: GlobalKey<'_>) -> Option<&Arc<R>> {
        self.chunks.get(self.chunk_up_to(key)?)?.containing(key)
    }

    /// Returns the last route that starts at a key or before it.
    pub(super) fn last_up_to(&self, key: GlobalKey<'_>) -> Option<&Arc<R>> {
        let chunk = self.chunks.get(self.chunk_up_to(key)?)?;
        chunk.routes.get(chunk.count_up_to(key).checked_sub(1)?)
    }

    /// Returns the routes from the last one that starts at a key or before it, or else all routes.
    pub(super) fn iter_around(&self, key: GlobalKey<'_>) -> impl Iterator<Item = &Arc<R>> {
        let at = self.chunk_up_to(key).unwrap_or(0);
        let before = self.chunks.get(at).map_or(0, |chunk| chunk.count_up_to(key));
        self.iter_from(at).skip(before.saturating_sub(1))
    }

    /// Returns the routes of this chunk and the following ones.
    pub(super) fn iter_from(&self, chunk: usize) -> impl Iterator<Item = &Arc<R>> {
        let chunks = self.chunks.get(chunk..).unwrap_or_default();
        chunks.iter().flat_map(|chunk| &chunk.routes)
    }

    /// Adds a route, whose start no other route has.
    pub(super) fn insert(&mut self, route: Arc<R>) {
        let at = self.chunk_up_to(route.start()).unwrap_or(0);
        let Some(chunk) = self.chunks.get_mut(at).map(Arc::make_mut) else {
            *self = Self::from_sorted(&[route]);
            return;
        };
        chunk.insert(chunk.count_up_to(route.start()), route);
        let second = (chunk.routes.len() > MOST).then(|| Arc::new(chunk.split()));
        self.len += 1;
        self.renew_first(at);
        if let Some(second) = second {
            self.chunks.insert(at + 1, second);
            self.renew_prefixes();
        }
    }

    /// Removes the last route that starts at a key or before it.
    pub(super) fn remove_last_up_to(&mut self, key: GlobalKey<'_>) {
        let Some(at) = self.chunk_up_to(key) else { return };
        let Some(chunk) = self.chunks.get_mut(at).map(Arc::make_mut) else { return };
        let Some(position) = chunk.count_up_to(key).checked_sub(1) else { return };
        chunk.remove(position);
        let left = chunk.routes.len();
        self.len -= 1;
        if left == 0 {
            self.chunks.remove(at);
            self.prefixes.remove(at);
            return;
        }
        self.renew_first(at);
        if left < LEAST {
            self.join(at.saturating_sub(1));
        }
    }

    /// Joins a chunk with the next one if they leave room for inserts.
    fn join(&mut self, at: usize) {
        let (Some(chunk), Some(next)) = (self.chunks.get(at), self.chunks.get(at + 1)) else {
            return;
        };
        if chunk.routes.len() + next.routes.len() <= FILLED {
            let joined = Chunk::new([chunk.routes.as_slice(), &next.routes].concat());
            self.chunks.splice(at..=at + 1, [Arc::new(joined)]);
            self.renew_prefixes();
        }
    }

    /// Notes the first start of a chunk, which may have changed.
    fn renew_first(&mut self, at: usize) {
        let first = self.chunks.get(at).and_then(|chunk| chunk.first());
        if first.is_some_and(|first| !self.prefixes.replace(at, first)) {
            self.renew_prefixes();
        }
    }

    fn renew_prefixes(&mut self) {
        self.prefixes = Prefixes::of(self.chunks.iter().filter_map(|chunk| chunk.first()));
    }

    /// Returns the chunk of the last route that starts at a key or before it.
    fn chunk_up_to(&self, key: GlobalKey<'_>) -> Option<usize> {
        let first = |at: usize| self.chunks.get(at)?.first();
        self.prefixes.count_up_to(key, first).checked_sub(1)
    }
}

#[cfg(test)]
impl<R: KeyedRoute> Chunks<R> {
    /// Checks the invariants between the levels, and that each route is found by its start.
    pub(super) fn assert_valid(&self) {
        let sizes: Vec<usize> = self.chunks.iter().map(|chunk| chunk.routes.len()).collect();
        assert!(sizes.iter().all(|size| (1..=MOST).contains(size)), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), self.len);
        for route in self.iter_from(0) {
            let found = self.last_up_to(route.start());
            assert!(found.is_some_and(|found| Arc::ptr_eq(found, route)));
            let containing = self.containing(route.start());
            assert!(containing.is_some_and(|found| Arc::ptr_eq(found, route)));
        }
    }

    /// Number of chunks.
    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }
}
