//! Background task that keeps the catalog up to date.
//!
//! It follows a watch stream from the meta leader. A refresh reads the changes that the stream has yet to
//! deliver, and the whole catalog only if the meta leader no longer keeps them.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{self, Reason, watch_event::Event};
use tidewater_rpc::timed;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Streaming;

use crate::catalog::{Catalog, CatalogError, CatalogStep, Followed, Published};
use crate::catalog_refresh::RefreshRequests;
use crate::outcome::FailedAttempt;
use crate::router::{Router, Search};

/// Maximum time between two events. The server sends events more often than this, so a stream without
/// events for this time is treated as broken.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Consecutive broken streams before the task refreshes the catalog instead.
const BROKEN_STREAMS: u32 = 3;

/// Attempts of one refresh. Together with their backoff they last about as long as an election.
const REFRESH_ATTEMPTS: u32 = 12;

/// Pages of changes that one refresh reads before it reads the whole catalog.
const MAX_PAGES: u32 = 16;

/// Makes one attempt to fetch the whole catalog from the meta leader.
pub(crate) async fn fetch(
    router: &Router,
    known: Option<&Catalog>,
    search: &mut Search,
    timeout: Duration,
) -> Result<v1::CatalogSnapshot, FailedAttempt> {
    router
        .attempt(known, search, timeout, |channel| {
            let mut client = router.meta(channel);
            async move { client.get_catalog(timed(v1::GetCatalogRequest {}, timeout)).await }
        })
        .await
}

/// The background task. It ends when it is dropped or when another cluster answers.
pub(crate) struct Watcher {
    pub(crate) router: Arc<Router>,
    pub(crate) published: watch::Sender<Published>,
    pub(crate) requests: Arc<RefreshRequests>,
}

impl Watcher {
    pub(crate) async fn run(self) {
        let router = &self.router;
        let mut search = Search::new(GroupId::META);
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
                tracing::warn!(cause = %broken.refusal, "catalog watch failed repeatedly; polling the catalog");
            }
            let options = &router.options;
            let wait = options.watch_backoff.wait(
                failures,
                broken.refusal.retry_after,
                options.ids.bits(),
            );
            let mut pause = std::pin::pin!(tokio::time::sleep(wait));
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    () = self.requests.added() => self.serve_requests(&mut search).await,
                }
            }
            // After an answer of another cluster, a refresh decides.
            if failures >= BROKEN_STREAMS || broken.refusal.reason == Reason::WrongCluster {
                self.refresh(&mut search).await;
            }
        }
    }

    async fn open(&self, search: &mut Search) -> Result<Streaming<v1::WatchEvent>, FailedAttempt> {
        let router = &self.router;
        let known = self.published.borrow().catalog.clone();
        let request = v1::WatchRequest {
            from_revision: known.revision().get(),
            incarnation: known.incarnation().get(),
            cluster_id: known.cluster_id().to_string(),
            ..v1::WatchRequest::default()
        };
        router
            .attempt(Some(&known), search, router.options.attempt_timeout, |channel| {
                let mut client = router.meta(channel);
                async move { client.watch(request).await }
            })
            .await
    }

    /// Applies the events of the stream until it breaks; returns the cause.
    async fn follow(
        &self,
        mut stream: Streaming<v1::WatchEvent>,
        failures: &mut u32,
    ) -> FailedAttempt {
        let mut search = Search::new(GroupId::META);
        loop {
            let event = tokio::select! {
                event = tokio::time::timeout(IDLE_TIMEOUT, stream.message()) => event,
                () = self.requests.added() => {
                    self.serve_requests(&mut search).await;
                    continue;
                }
            };
            let event = match event {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => return broken("the meta node ended the catalog watch"),
                Ok(Err(status)) => return FailedAttempt::from_status(&status),
                Err(_) => {
                    return broken(&format!(
                        "the catalog watch sent no event for {IDLE_TIMEOUT:?}"
                    ));
                }
            };
            if !self.apply_event(event.event, &mut search).await {
                return broken("the catalog watch sent an invalid event");
            }
            *failures = 0;
        }
    }

    /// Applies an event; returns false if the stream must be reopened.
    async fn apply_event(&self, event: Option<Event>, search: &mut Search) -> bool {
        match event {
            Some(Event::Snapshot(snapshot)) => self.apply_snapshot(&snapshot),
            Some(Event::Delta(delta)) => {
                let known = self.published.borrow().catalog.clone();
                if delta.revision <= known.revision().get() {
                    // A concurrent fetch already returned this revision.
                    return true;
                }
                match known.with_delta(&delta) {
                    Ok(next) => {
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

    /// Refreshes the catalog unless all requests are served.
    async fn serve_requests(&self, search: &mut Search) {
        let served = self.published.borrow().served;
        if self.requests.newest() > served {
            self.refresh(search).await;
        }
    }

    /// Refreshes the catalog; retries for about the time of an election, because callers wait for it. Returns
    /// `false` if no valid catalog was received.
    async fn refresh(&self, search: &mut Search) -> bool {
        let router = &self.router;
        let newest_request = self.requests.newest();
        for _ in 0..REFRESH_ATTEMPTS {
            let started = Instant::now();
            match self.refresh_once(search).await {
                Ok(true) => {
                    self.requests.record_current(started);
                    self.published.send_modify(|now| now.served = newest_request);
                    return true;
                }
                Ok(false) => return false,
                Err(failure) => {
                    tracing::debug!(cause = %failure.refusal, "catalog refresh failed; retrying");
                    let wait = router.wait(search, &failure);
                    tokio::time::sleep(wait).await;
                }
            }
        }
        false
    }

    /// Makes one attempt; returns `false` if the received catalog is invalid.
    async fn refresh_once(&self, search: &mut Search) -> Result<bool, FailedAttempt> {
        if self.read_changes(search).await? {
            return Ok(true);
        }
        let known = self.published.borrow().catalog.clone();
        self.requests.count_snapshot();
        let timeout = self.router.options.attempt_timeout;
        let snapshot = fetch(&self.router, Some(&known), search, timeout).await?;
        Ok(self.apply_snapshot(&snapshot))
    }

    /// Reads and publishes the changes since the known catalog; returns `false` if the whole catalog must be
    /// read.
    async fn read_changes(&self, search: &mut Search) -> Result<bool, FailedAttempt> {
        let router = &self.router;
        let timeout = router.options.attempt_timeout;
        for _ in 0..MAX_PAGES {
            let known = self.published.borrow().catalog.clone();
            let request = v1::GetCatalogChangesRequest {
                cluster_id: known.cluster_id().to_string(),
                incarnation: known.incarnation().get(),
                revision: known.revision().get(),
            };
            self.requests.count_changes();
            let page = router
                .attempt(Some(&known), search, timeout, |channel| {
                    let mut client = router.meta(channel);
                    async move { client.get_catalog_changes(timed(request, timeout)).await }
                })
                .await;
            let page = match page {
                Ok(page) => page,
                // A meta node of an older release. The snapshot of another cluster names that cluster.
                Err(failure)
                    if matches!(
                        failure.refusal.reason,
                        Reason::Unsupported | Reason::WrongCluster
                    ) =>
                {
                    return Ok(false);
                }
                Err(failure) => return Err(failure),
            };
            match known.follow(&page) {
                Followed::Current(next) => {
                    if next.revision() != known.revision() {
                        self.publish(next);
                    }
                    return Ok(true);
                }
                Followed::Behind(next) => self.publish(next),
                Followed::SnapshotNeeded => return Ok(false),
            }
        }
        Ok(false)
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
                self.publish(next);
                true
            }
            Ok((CatalogStep::Same | CatalogStep::Newer, next)) => {
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
