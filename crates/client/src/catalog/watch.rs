//! The background task that keeps the catalog up to date: a stream from the meta leader, or polling
//! while no stream can be opened.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{ClusterId, GroupId};
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{self, Reason, watch_event::Event};
use tokio::sync::{Notify, watch};
use tonic::Streaming;

use super::{Catalog, CatalogError, SnapshotRelation};
use crate::core::Core;
use crate::outcome::FailedAttempt;
use crate::pool::failed_attempt;
use crate::router::{LeaderSearch, Router, timed};

/// Timeout of the watch stream: the server sends messages more often.
const WATCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of consecutive broken streams after which the catalog is polled.
const BROKEN_STREAMS: u32 = 3;

/// Attempts to fetch the catalog when a caller waits for it. With the waits between them they take
/// about as long as an election.
const POLL_ATTEMPTS: u32 = 12;

/// State published by the background task.
#[derive(Debug, Clone)]
pub(crate) struct PublishedCatalog {
    pub(crate) catalog: Arc<Catalog>,
    /// Number of fetches of a whole catalog.
    pub(crate) fetches: u64,
    /// Set once another cluster responds (was, is). Final.
    pub(crate) other: Option<(ClusterId, ClusterId)>,
}

impl PublishedCatalog {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self { catalog: Arc::new(catalog), fetches: 1, other: None }
    }
}

/// Fetches the whole catalog from the meta leader, in one attempt.
pub(crate) async fn fetch(
    router: &Router,
    known: Option<&Catalog>,
    search: &mut LeaderSearch,
    timeout: Duration,
) -> Result<v1::CatalogSnapshot, FailedAttempt> {
    router
        .attempt(known, search, timeout, |channel| {
            let mut client = router.meta(channel);
            async move { client.get_catalog(timed(v1::GetCatalogRequest {}, timeout)).await }
        })
        .await
}

/// The background task. It ends only when it is dropped, or when another cluster responds.
pub(crate) struct CatalogWatcher {
    pub(crate) core: Arc<Core>,
    pub(crate) published: watch::Sender<PublishedCatalog>,
    pub(crate) refresh: Arc<Notify>,
}

impl CatalogWatcher {
    pub(crate) async fn run(self) {
        let router = &self.core.router;
        let mut search = LeaderSearch::new(GroupId::META);
        let mut failures: u32 = 0;
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
                tracing::warn!(cause = %broken.refusal, "the catalog watch keeps breaking; polling");
            }
            let options = &router.options;
            let wait = options.watch_backoff.wait(
                failures,
                broken.refusal.retry_after,
                options.ids.bits(),
            );
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.refresh.notified() => { self.poll(&mut search).await; }
            }
            if failures >= BROKEN_STREAMS {
                self.poll(&mut search).await;
            }
        }
    }

    async fn open(
        &self,
        search: &mut LeaderSearch,
    ) -> Result<Streaming<v1::WatchEvent>, FailedAttempt> {
        let router = &self.core.router;
        let known = self.published.borrow().catalog.clone();
        let request = v1::WatchRequest {
            from_revision: known.revision().get(),
            incarnation: known.incarnation().get(),
        };
        router
            .attempt(Some(&known), search, router.options.attempt_timeout, |channel| {
                let mut client = router.meta(channel);
                async move { client.watch(request).await }
            })
            .await
    }

    /// Applies the events of the stream until it breaks.
    async fn follow(
        &self,
        mut stream: Streaming<v1::WatchEvent>,
        failures: &mut u32,
    ) -> FailedAttempt {
        let mut search = LeaderSearch::new(GroupId::META);
        loop {
            let event = tokio::select! {
                event = tokio::time::timeout(WATCH_TIMEOUT, stream.message()) => event,
                () = self.refresh.notified() => {
                    self.poll(&mut search).await;
                    continue;
                }
            };
            let event = match event {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => return broken("the meta node ended the catalog watch"),
                Ok(Err(status)) => return failed_attempt(&status),
                Err(_) => return broken("the catalog watch timed out"),
            };
            if !self.apply_event(event.event, &mut search).await {
                return broken("the catalog watch sent an invalid event");
            }
            *failures = 0;
        }
    }

    /// Applies an event. Returns whether the stream can be used further.
    async fn apply_event(&self, event: Option<Event>, search: &mut LeaderSearch) -> bool {
        match event {
            Some(Event::Snapshot(snapshot)) => self.apply_snapshot(&snapshot),
            Some(Event::Delta(delta)) => {
                let known = self.published.borrow().catalog.clone();
                if delta.revision <= known.revision().get() {
                    // A fetch was faster than the stream.
                    return true;
                }
                match known.with_delta(&delta) {
                    Ok(next) => {
                        self.publish(next, false);
                        true
                    }
                    // A snapshot fills the gap; later deltas follow it.
                    Err(error) => {
                        tracing::debug!(%error, "refetching the catalog");
                        self.poll(search).await
                    }
                }
            }
            Some(Event::CurrentRevision(_)) | None => true,
        }
    }

    /// Fetches the catalog, with several attempts since a caller waits for it.
    async fn poll(&self, search: &mut LeaderSearch) -> bool {
        let router = &self.core.router;
        for _ in 0..POLL_ATTEMPTS {
            let known = self.published.borrow().catalog.clone();
            let timeout = router.options.attempt_timeout;
            match fetch(router, Some(&known), search, timeout).await {
                Ok(snapshot) => return self.apply_snapshot(&snapshot),
                Err(failure) => {
                    tracing::debug!(cause = %failure.refusal, "failed to fetch the catalog");
                    let wait = router.wait(search, &failure);
                    tokio::time::sleep(wait).await;
                }
            }
        }
        false
    }

    fn apply_snapshot(&self, snapshot: &v1::CatalogSnapshot) -> bool {
        let known = self.published.borrow().catalog.clone();
        let step = Catalog::from_snapshot(snapshot)
            .and_then(|next| known.compare_to(&next).map(|step| (step, next)));
        match step {
            Ok((SnapshotRelation::Restored, next)) => {
                tracing::warn!(
                    was = %known.incarnation(), is = %next.incarnation(),
                    "the cluster was restored; starting over with its catalog"
                );
                self.publish(next, true);
                true
            }
            Ok((SnapshotRelation::Same | SnapshotRelation::Newer, next)) => {
                self.publish(next, true);
                true
            }
            // An older response that arrives after newer events still counts as a fetch.
            Err(CatalogError::Stale { .. }) => {
                self.published.send_modify(|now| now.fetches += 1);
                true
            }
            Err(CatalogError::ClusterChanged { was, is }) => {
                tracing::error!(%was, %is, "another cluster responds at the configured addresses");
                self.published.send_modify(|now| now.other = Some((was, is)));
                false
            }
            Err(error) => {
                tracing::warn!(%error, "received an invalid catalog");
                false
            }
        }
    }

    fn publish(&self, catalog: Catalog, fetched: bool) {
        self.published.send_modify(|now| {
            now.catalog = Arc::new(catalog);
            now.fetches += u64::from(fetched);
        });
    }
}

fn broken(cause: &str) -> FailedAttempt {
    FailedAttempt {
        refusal: Refusal::new(Reason::Unavailable, cause),
        effect: Effect::None,
        unanswered: true,
    }
}
