//! Refresh of the catalog: the changes that the watch has yet to deliver, or the whole catalog if the meta leader no
//! longer keeps them.

use std::time::Duration;

use tidewater_proto::v1::{self, Reason};
use tidewater_rpc::timed;
use tokio::time::Instant;

use super::Watcher;
use crate::catalog::{Catalog, Followed};
use crate::outcome::FailedAttempt;
use crate::router::{Router, Search};

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

impl Watcher {
    /// Refreshes the catalog unless all requests are served.
    pub(super) async fn serve_requests(&self, search: &mut Search) {
        let served = self.published.borrow().served;
        if self.requests.newest() > served {
            self.refresh(search).await;
        }
    }

    /// Refreshes the catalog; retries for about the time of an election, because callers wait for it. Returns
    /// `false` if no valid catalog was received.
    pub(super) async fn refresh(&self, search: &mut Search) -> bool {
        self.refresh_within(search, REFRESH_ATTEMPTS).await
    }

    /// Refreshes the catalog with one attempt, because the watch could not be opened: all clients of a cluster
    /// without a leader call it at the same time.
    pub(super) async fn refresh_between_watches(&self, search: &mut Search) {
        self.refresh_within(search, 1).await;
    }

    async fn refresh_within(&self, search: &mut Search, attempts: u32) -> bool {
        let router = &self.router;
        let newest_request = self.requests.newest();
        for made in 1..=attempts {
            let started = Instant::now();
            match self.refresh_once(search).await {
                Ok(true) => {
                    self.requests.record_current(started);
                    self.published.send_modify(|now| now.served = newest_request);
                    return true;
                }
                Ok(false) => return false,
                Err(failure) => {
                    tracing::debug!(cause = %failure.refusal, "catalog refresh failed");
                    let wait = router.wait(search, &failure);
                    if made < attempts {
                        tokio::time::sleep(wait).await;
                    }
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
}
