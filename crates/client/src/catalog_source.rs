//! Calls by which the client's catalog watcher reads the catalog from the meta leader.

use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_proto::v1;
use tidewater_rpc::timed;
use tonic::Streaming;

use crate::catalog::{Catalog, CatalogSource};
use crate::outcome::FailedAttempt;
use crate::router::{Router, Search};

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

impl CatalogSource for Router {
    type Search = Search;
    type Events = Streaming<v1::WatchEvent>;

    fn search(&self) -> Search {
        Search::new(GroupId::META)
    }

    fn wait(&self, search: &mut Search, failure: &FailedAttempt) -> Duration {
        Router::wait(self, search, failure)
    }

    fn watch_wait(&self, broken: u32, failure: &FailedAttempt) -> Duration {
        let backoff = self.options.watch_backoff;
        backoff.wait(broken, failure.refusal.retry_after, self.options.ids.bits())
    }

    async fn watch(
        &self,
        known: &Catalog,
        search: &mut Search,
        request: v1::WatchRequest,
    ) -> Result<Self::Events, FailedAttempt> {
        self.attempt(Some(known), search, self.options.attempt_timeout, |channel| {
            let mut client = self.meta(channel);
            async move { client.watch(request).await }
        })
        .await
    }

    async fn read_snapshot(
        &self,
        known: &Catalog,
        search: &mut Search,
    ) -> Result<v1::CatalogSnapshot, FailedAttempt> {
        fetch(self, Some(known), search, self.options.attempt_timeout).await
    }

    async fn read_changes(
        &self,
        known: &Catalog,
        search: &mut Search,
        request: v1::GetCatalogChangesRequest,
    ) -> Result<v1::GetCatalogChangesResponse, FailedAttempt> {
        let timeout = self.options.attempt_timeout;
        self.attempt(Some(known), search, timeout, |channel| {
            let mut client = self.meta(channel);
            async move { client.get_catalog_changes(timed(request, timeout)).await }
        })
        .await
    }
}
