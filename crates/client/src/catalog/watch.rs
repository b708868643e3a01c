//! Keeps the catalog up to date in the background: a stream from the meta leader, and polling
//! while no stream can be had.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{ClusterId, GroupId};
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{self, Reason, watch_event::Event};
use tokio::sync::{Notify, watch};
use tonic::Streaming;

use super::{Catalog, CatalogError, Step};
use crate::core::Core;
use crate::outcome::FailedAttempt;
use crate::pool::failed_attempt_of;
use crate::router::{Router, Search, timed};

/// A stream that says nothing for so long is taken for dead: the server speaks more often.
const SILENCE: Duration = Duration::from_secs(30);

/// Streams that may break in a row before the catalog is polled instead.
const BROKEN_STREAMS: u32 = 3;

/// Attempts to fetch the catalog when it is wanted at once; together with the waits between them
/// about an election's time.
const POLL_ATTEMPTS: u32 = 12;

/// What the background task has to show.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) catalog: Arc<Catalog>,
    /// Grows each time that a whole catalog was fetched.
    pub(crate) fetches: u64,
    /// The cluster that answers now, when it is another one (was, is). Final.
    pub(crate) other: Option<(ClusterId, ClusterId)>,
}

impl Published {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self { catalog: Arc::new(catalog), fetches: 1, other: None }
    }
}

/// Fetches the whole catalog from the meta leader, one attempt.
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

/// The task. It ends only when it is dropped, or when another cluster answers.
pub(crate) struct Watcher {
    pub(crate) core: Arc<Core>,
    pub(crate) published: watch::Sender<Published>,
    pub(crate) refresh: Arc<Notify>,
}

impl Watcher {
    pub(crate) async fn run(self) {
        let router = &self.core.router;
        let mut search = Search::new(GroupId::META);
        let mut failures: u32 = 0;
        while self.published.borrow().other.is_none() {
            let broken = match self.open(&mut search).await {
                Ok(stream) => self.follow(stream, &mut failures).await,
                Err(miss) => miss,
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

    async fn open(&self, search: &mut Search) -> Result<Streaming<v1::WatchEvent>, FailedAttempt> {
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

    /// Takes over what the stream brings until it breaks.
    async fn follow(
        &self,
        mut stream: Streaming<v1::WatchEvent>,
        failures: &mut u32,
    ) -> FailedAttempt {
        let mut search = Search::new(GroupId::META);
        loop {
            let event = tokio::select! {
                event = tokio::time::timeout(SILENCE, stream.message()) => event,
                () = self.refresh.notified() => {
                    self.poll(&mut search).await;
                    continue;
                }
            };
            let event = match event {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => return broken("the catalog watch was ended by the meta node"),
                Ok(Err(status)) => return failed_attempt_of(&status),
                Err(_) => return broken("the catalog watch has gone silent"),
            };
            if !self.take_event(event.event, &mut search).await {
                return broken("the catalog watch sent what cannot be used");
            }
            *failures = 0;
        }
    }

    /// Whether the stream is still good for more.
    async fn take_event(&self, event: Option<Event>, search: &mut Search) -> bool {
        match event {
            Some(Event::Snapshot(snapshot)) => self.take_snapshot(&snapshot),
            Some(Event::Delta(delta)) => {
                let known = self.published.borrow().catalog.clone();
                if delta.revision <= known.revision().get() {
                    // A fetch in between was faster than the stream.
                    return true;
                }
                match known.with_delta(&delta) {
                    Ok(next) => {
                        self.publish(next, false);
                        true
                    }
                    // What is missing comes with a snapshot; later deltas follow on it.
                    Err(error) => {
                        tracing::debug!(%error, "fetching the catalog anew");
                        self.poll(search).await
                    }
                }
            }
            Some(Event::CurrentRevision(_)) | None => true,
        }
    }

    /// Fetches the catalog; tries for a while, since somebody waits for it.
    async fn poll(&self, search: &mut Search) -> bool {
        let router = &self.core.router;
        for _ in 0..POLL_ATTEMPTS {
            let known = self.published.borrow().catalog.clone();
            let timeout = router.options.attempt_timeout;
            match fetch(router, Some(&known), search, timeout).await {
                Ok(snapshot) => return self.take_snapshot(&snapshot),
                Err(miss) => {
                    tracing::debug!(cause = %miss.refusal, "the catalog could not be fetched");
                    let wait = router.wait(search, &miss);
                    tokio::time::sleep(wait).await;
                }
            }
        }
        false
    }

    fn take_snapshot(&self, snapshot: &v1::CatalogSnapshot) -> bool {
        let known = self.published.borrow().catalog.clone();
        let step = Catalog::from_snapshot(snapshot)
            .and_then(|next| known.step_to(&next).map(|step| (step, next)));
        match step {
            Ok((Step::StartedOver, next)) => {
                tracing::warn!(
                    was = %known.incarnation(), is = %next.incarnation(),
                    "the cluster was restored; starting over with its catalog"
                );
                self.publish(next, true);
                true
            }
            Ok((Step::Same | Step::Newer, next)) => {
                self.publish(next, true);
                true
            }
            // An older answer overtaken by the stream is a fetch all the same.
            Err(CatalogError::Stale { .. }) => {
                self.published.send_modify(|now| now.fetches += 1);
                true
            }
            Err(CatalogError::OtherCluster { was, is }) => {
                tracing::error!(%was, %is, "another cluster answers at the addresses of this one");
                self.published.send_modify(|now| now.other = Some((was, is)));
                false
            }
            Err(error) => {
                tracing::warn!(%error, "a catalog was received that cannot be used");
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
