//! Background task that keeps the catalog up to date.
//!
//! It follows a watch stream from the meta leader. A refresh reads the changes that the stream has yet to
//! deliver, and the whole catalog only if the meta leader no longer keeps them. A [`RouteEngine`] may follow the same
//! catalog (`engine_feed`).

mod engine_feed;
mod refresh;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{self, Reason, watch_event::Event};
use tidewater_rpc::FailedAttempt;
use tokio::sync::watch;
use tokio::time::Instant;

use self::engine_feed::EngineFeed;
use crate::{
    Catalog, CatalogError, CatalogSource, CatalogStep, PublishedCatalog, RefreshRequests,
    RouteEngine,
};

/// Maximum time between two events. The server sends events more often than this, so a stream without
/// events for this time is treated as broken.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Consecutive broken streams before the task refreshes the catalog instead.
const BROKEN_STREAMS: u32 = 3;

/// The background task.
#[derive(Debug)]
pub struct CatalogWatcher<S> {
    source: Arc<S>,
    published: watch::Sender<PublishedCatalog>,
    requests: Arc<RefreshRequests>,
    engine: Option<EngineFeed>,
}

impl<S: CatalogSource> CatalogWatcher<S> {
    /// Creates the watcher of a catalog that was read from the source, and the receiver of its successors.
    pub fn new(
        source: Arc<S>,
        catalog: Catalog,
        requests: Arc<RefreshRequests>,
    ) -> (Self, watch::Receiver<PublishedCatalog>) {
        requests.count_snapshot();
        let (published, receiver) = watch::channel(PublishedCatalog::new(catalog));
        (Self { source, published, requests, engine: None }, receiver)
    }

    /// Keeps the routes of an engine at the version of the published catalog, too. The engine has a change before it is
    /// published. Its first routes are read from the source.
    #[must_use]
    pub fn with_engine(self, engine: Arc<RouteEngine>) -> Self {
        Self { engine: Some(EngineFeed::new(engine)), ..self }
    }

    /// Publishes every change of the catalog. Ends when it is dropped or when another cluster answers.
    pub async fn run(self) {
        let mut search = self.source.search();
        let mut failures: u32 = 0;
        self.catch_up_engine(&mut search).await;
        while self.published.borrow().other.is_none() {
            let broken = match self.open(&mut search).await {
                Ok(stream) => self.follow(stream, &mut failures).await,
                Err(failure) => failure,
            };
            if self.published.borrow().other.is_some() {
                break;
            }
            failures = failures.saturating_add(1);
            if failures == BROKEN_STREAMS {
                tracing::warn!(cause = %broken.refusal, "catalog watch failed repeatedly; refreshing the catalog");
            }
            let wait = self.source.watch_wait(failures, &broken);
            let mut pause = std::pin::pin!(tokio::time::sleep(wait));
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    () = self.requests.added() => self.serve_requests(&mut search).await,
                }
            }
            // After an answer of another cluster, a refresh decides.
            if failures >= BROKEN_STREAMS || broken.refusal.reason == Reason::WrongCluster {
                self.refresh_between_watches(&mut search).await;
            }
        }
    }

    async fn open(&self, search: &mut S::Search) -> Result<S::Events, FailedAttempt> {
        let known = self.published.borrow().catalog.clone();
        let request = v1::WatchRequest {
            from_revision: known.revision().get(),
            incarnation: known.incarnation().get(),
            cluster_id: known.cluster_id().to_string(),
            ..v1::WatchRequest::default()
        };
        self.source.watch(&known, search, request).await
    }

    /// Applies the events of the stream until it breaks; returns the cause.
    async fn follow(&self, mut stream: S::Events, failures: &mut u32) -> FailedAttempt {
        let mut search = self.source.search();
        loop {
            let event = tokio::select! {
                event = tokio::time::timeout(IDLE_TIMEOUT, stream.next()) => event,
                () = self.requests.added() => {
                    self.serve_requests(&mut search).await;
                    continue;
                }
            };
            let event = match event {
                Ok(Some(Ok(event))) => event,
                Ok(None) => return broken("the meta node ended the catalog watch"),
                Ok(Some(Err(status))) => return FailedAttempt::from_status(&status),
                Err(_) => {
                    return broken(&format!(
                        "the catalog watch sent no event for {IDLE_TIMEOUT:?}"
                    ));
                }
            };
            if !self.apply_event(event.event, &mut search).await {
                return broken("the catalog watch sent an invalid event");
            }
            self.catch_up_engine(&mut search).await;
            *failures = 0;
        }
    }

    /// Applies an event; returns false if the stream must be reopened.
    async fn apply_event(&self, event: Option<Event>, search: &mut S::Search) -> bool {
        match event {
            Some(Event::Snapshot(snapshot)) => self.apply_snapshot(&snapshot),
            Some(Event::Delta(delta)) => {
                let known = self.published.borrow().catalog.clone();
                if delta.revision <= known.revision().get() {
                    // A concurrent refresh already returned this revision.
                    return true;
                }
                match known.with_delta(&delta) {
                    Ok(next) => {
                        self.feed_engine(|feed| feed.apply_delta(&delta));
                        self.publish(next);
                        true
                    }
                    // The refreshed catalog contains the missing changes, and later deltas extend it.
                    Err(error) => {
                        tracing::debug!(%error, "catalog delta cannot be applied; refreshing the catalog");
                        self.refresh(search).await
                    }
                }
            }
            Some(Event::CurrentRevision(revision)) => {
                if revision <= self.published.borrow().catalog.revision().get() {
                    self.requests.record_current(Instant::now());
                }
                true
            }
            None => true,
        }
    }

    /// Publishes a snapshot unless it is invalid or stale; returns false if it is invalid.
    fn apply_snapshot(&self, snapshot: &v1::CatalogSnapshot) -> bool {
        let known = self.published.borrow().catalog.clone();
        let step = Catalog::from_snapshot(snapshot)
            .and_then(|next| known.step_to(&next).map(|step| (step, next)));
        match step {
            Ok((CatalogStep::Restored, next)) => {
                tracing::warn!(
                    was = %known.incarnation(), is = %next.incarnation(),
                    "cluster was restored; replacing the known catalog"
                );
                self.feed_engine(|feed| feed.apply_snapshot(snapshot));
                self.publish(next);
                true
            }
            Ok((CatalogStep::Same | CatalogStep::Newer, next)) => {
                self.feed_engine(|feed| feed.apply_snapshot(snapshot));
                self.publish(next);
                true
            }
            // The stream has already delivered a later revision.
            Err(CatalogError::Stale { .. }) => true,
            Err(CatalogError::OtherCluster { was, is }) => {
                tracing::error!(%was, %is, "another cluster answers at the configured addresses");
                self.published.send_modify(|now| now.other = Some((was, is)));
                false
            }
            Err(error) => {
                tracing::warn!(%error, "received an invalid catalog");
                false
            }
        }
    }

    fn publish(&self, catalog: Catalog) {
        self.published.send_modify(|now| now.catalog = Arc::new(catalog));
    }
}

fn broken(why: &str) -> FailedAttempt {
    FailedAttempt {
        refusal: Refusal::new(Reason::Unavailable, why),
        effect: Effect::None,
        silent: true,
    }
}

#[cfg(test)]
mod tests;
