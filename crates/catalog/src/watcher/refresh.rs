//! Refresh of the catalog: the changes that the watch has yet to deliver, or the whole catalog if the meta leader no
//! longer keeps them.

use tidewater_proto::v1::{self, Reason};
use tidewater_rpc::FailedAttempt;
use tokio::time::Instant;

use super::CatalogWatcher;
use crate::CatalogSource;
use crate::catalog::Followed;

/// Attempts of one refresh. Together with their backoff they last about as long as an election.
const REFRESH_ATTEMPTS: u32 = 12;

/// Pages of changes that one refresh reads before it reads the whole catalog.
const MAX_PAGES: u32 = 16;

impl<S: CatalogSource> CatalogWatcher<S> {
    /// Refreshes the catalog unless all requests are served.
    pub(super) async fn serve_requests(&self, search: &mut S::Search) {
        let served = self.published.borrow().served;
        if self.requests.newest() > served {
            self.refresh(search).await;
        }
    }

    /// Refreshes the catalog; retries for about the time of an election, because callers wait for it. Returns
    /// `false` if no valid catalog was received.
    pub(super) async fn refresh(&self, search: &mut S::Search) -> bool {
        self.refresh_within(search, REFRESH_ATTEMPTS).await
    }

    /// Refreshes the catalog with one attempt, because the watch could not be opened: all clients of a cluster
    /// without a leader call it at the same time.
    pub(super) async fn refresh_between_watches(&self, search: &mut S::Search) {
        self.refresh_within(search, 1).await;
    }

    async fn refresh_within(&self, search: &mut S::Search, attempts: u32) -> bool {
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
                    let wait = self.source.wait(search, &failure);
                    if made < attempts {
                        tokio::time::sleep(wait).await;
                    }
                }
            }
        }
        false
    }

    /// Makes one attempt; returns `false` if the received catalog is invalid.
    async fn refresh_once(&self, search: &mut S::Search) -> Result<bool, FailedAttempt> {
        if self.read_changes(search).await? {
            return Ok(true);
        }
        let known = self.published.borrow().catalog.clone();
        self.requests.count_snapshot();
        let snapshot = self.source.read_snapshot(&known, search).await?;
        Ok(self.apply_snapshot(&snapshot))
    }

    /// Reads and publishes the changes since the known catalog; returns `false` if the whole catalog must be
    /// read.
    async fn read_changes(&self, search: &mut S::Search) -> Result<bool, FailedAttempt> {
        for _ in 0..MAX_PAGES {
            let known = self.published.borrow().catalog.clone();
            let request = v1::GetCatalogChangesRequest {
                cluster_id: known.cluster_id().to_string(),
                incarnation: known.incarnation().get(),
                revision: known.revision().get(),
            };
            self.requests.count_changes();
            let page = self.source.read_changes(&known, search, request).await;
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
            let (next, is_current) = match known.follow(&page) {
                Followed::Current(next) => (next, true),
                Followed::Behind(next) => (next, false),
                Followed::SnapshotNeeded => return Ok(false),
            };
            if next.revision() != known.revision() {
                let is_new = |delta: &&v1::CatalogDelta| delta.revision > known.revision().get();
                for delta in page.deltas.iter().filter(is_new) {
                    self.feed_engine(|feed| feed.apply_delta(delta));
                }
                self.publish(next);
            }
            if is_current {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
