//! The engine of a watcher: it gets the same snapshots and deltas as the published catalog.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_proto::v1;
use tokio::time::Instant;

use super::CatalogWatcher;
use crate::{Catalog, CatalogSource, EngineError, RouteDelta, RouteEngine, RouteSnapshot};

/// Shortest time between two reads of the catalog for an engine that cannot follow: every change of a large cluster
/// would read the whole catalog otherwise.
const CATCH_UP_EVERY: Duration = Duration::from_secs(10);

/// An engine that follows the catalog.
#[derive(Debug)]
pub(super) struct EngineFeed {
    engine: Arc<RouteEngine>,
    /// Time from which the catalog may be read for the engine again.
    not_before: Mutex<Option<Instant>>,
}

impl EngineFeed {
    pub(super) fn new(engine: Arc<RouteEngine>) -> Self {
        Self { engine, not_before: Mutex::new(None) }
    }

    pub(super) fn apply_delta(&self, delta: &v1::CatalogDelta) -> Result<(), EngineError> {
        match RouteDelta::from_catalog(delta)? {
            Some(delta) => self.engine.apply_delta(delta),
            None => Ok(()),
        }
    }

    pub(super) fn apply_snapshot(&self, snapshot: &v1::CatalogSnapshot) -> Result<(), EngineError> {
        self.engine.apply_snapshot(RouteSnapshot::try_from(snapshot)?).map(drop)
    }

    fn is_behind(&self, catalog: &Catalog) -> bool {
        (self.engine.incarnation(), self.engine.version())
            != (catalog.incarnation(), catalog.version())
    }

    /// Returns whether the catalog is to be read now, and notes the time.
    fn begin_catch_up(&self, catalog: &Catalog) -> bool {
        let now = Instant::now();
        let mut not_before = self.not_before.lock();
        let is_due = self.is_behind(catalog) && not_before.is_none_or(|time| time <= now);
        if is_due {
            *not_before = Some(now + CATCH_UP_EVERY);
        }
        is_due
    }
}

impl<S: CatalogSource> CatalogWatcher<S> {
    /// Applies a change to the engine, if there is one. An engine that cannot apply it is behind, and catches up.
    pub(super) fn feed_engine(&self, apply: impl FnOnce(&EngineFeed) -> Result<(), EngineError>) {
        let Some(feed) = &self.engine else { return };
        match apply(feed) {
            Ok(()) => {}
            Err(error @ EngineError::DeltaVersionGap { .. }) => {
                tracing::debug!(%error, "route engine cannot apply a change of the catalog");
            }
            Err(error) => tracing::warn!(%error, "route engine cannot apply the catalog"),
        }
    }

    /// Reads the whole catalog if the engine has routes of another version.
    pub(super) async fn catch_up_engine(&self, search: &mut S::Search) {
        let known = self.published.borrow().catalog.clone();
        if !self.engine.as_ref().is_some_and(|feed| feed.begin_catch_up(&known)) {
            return;
        }
        self.requests.count_snapshot();
        match self.source.read_snapshot(&known, search).await {
            Ok(snapshot) => {
                self.apply_snapshot(&snapshot);
            }
            Err(failure) => {
                tracing::debug!(cause = %failure.refusal, "catalog for the route engine was not read");
            }
        }
    }
}
