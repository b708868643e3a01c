//! Background task that keeps the catalog up to date.
//!
//! It follows a watch stream from the meta leader, and polls the catalog while no stream is available.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{self, Reason, watch_event::Event};
use tidewater_rpc::timed;
use tokio::sync::{Notify, watch};
use tonic::Streaming;

use crate::catalog::{Catalog, CatalogError, CatalogStep, Published};
use crate::outcome::FailedAttempt;
use crate::router::{Router, Search};

/// Maximum time between two events. The server sends events more often than this, so a stream without
/// events for this time is treated as broken.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Consecutive broken streams before the task polls the catalog instead.
const BROKEN_STREAMS: u32 = 3;

/// Attempts of one poll. Together with their backoff they last about as long as an election.
const POLL_ATTEMPTS: u32 = 12;

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
    pub(crate) refresh: Arc<Notify>,
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
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.refresh.notified() => { self.poll(&mut search).await; }
            }
            // After an answer of another cluster, a poll decides.
            if failures >= BROKEN_STREAMS || broken.refusal.reason == Reason::WrongCluster {
                self.poll(&mut search).await;
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
                () = self.refresh.notified() => {
                    self.poll(&mut search).await;
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
                        self.publish(next, false);
                        true
                    }
                    // The snapshot contains the missing changes, and later deltas extend it.
                    Err(error) => {
                        tracing::debug!(%error, "catalog delta cannot be applied; fetching the catalog");
                        self.poll(search).await
                    }
                }
            }
            Some(Event::CurrentRevision(_)) | None => true,
        }
    }

    /// Fetches the catalog; retries for about the time of an election, because a caller waits for it.
    async fn poll(&self, search: &mut Search) -> bool {
        let router = &self.router;
        for _ in 0..POLL_ATTEMPTS {
            let known = self.published.borrow().catalog.clone();
            let timeout = router.options.attempt_timeout;
            match fetch(router, Some(&known), search, timeout).await {
                Ok(snapshot) => return self.apply_snapshot(&snapshot),
                Err(failure) => {
                    tracing::debug!(cause = %failure.refusal, "catalog fetch failed; retrying");
                    let wait = router.wait(search, &failure);
                    tokio::time::sleep(wait).await;
                }
            }
        }
        false
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
                self.publish(next, true);
                true
            }
            Ok((CatalogStep::Same | CatalogStep::Newer, next)) => {
                self.publish(next, true);
                true
            }
            // The stream already published a later revision: the fetch is complete.
            Err(CatalogError::Stale { .. }) => {
                self.published.send_modify(|now| now.fetches += 1);
                true
            }
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

    fn publish(&self, catalog: Catalog, fetched: bool) {
        self.published.send_modify(|now| {
            now.catalog = Arc::new(catalog);
            now.fetches += u64::from(fetched);
        });
    }
}

fn broken(why: &str) -> FailedAttempt {
    FailedAttempt {
        refusal: Refusal::new(Reason::Unavailable, why),
        effect: Effect::None,
        silent: true,
    }
}
