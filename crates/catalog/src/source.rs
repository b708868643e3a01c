//! The meta service as a watcher reads it.

use std::time::Duration;

use futures::Stream;
use tidewater_proto::v1;
use tidewater_rpc::FailedAttempt;
use tonic::Status;

use crate::Catalog;

/// Reads of the catalog from the meta leader. Each call makes one attempt, with a deadline; the watcher repeats it.
///
/// `known` is the catalog as last received, which names the members of the meta group.
pub trait CatalogSource: Send + Sync + 'static {
    /// Search for the meta leader, over several attempts. A failed attempt advances it.
    type Search: Send;
    /// Events of a watch.
    type Events: Stream<Item = Result<v1::WatchEvent, Status>> + Send + Unpin;

    /// Begins a search.
    fn search(&self) -> Self::Search;

    /// Returns the wait before the attempt after a failed one.
    fn wait(&self, search: &mut Self::Search, failure: &FailedAttempt) -> Duration;

    /// Returns the wait before the next watch, after this number of watches in a row that broke.
    fn watch_wait(&self, broken: u32, failure: &FailedAttempt) -> Duration;

    /// Opens a watch.
    fn watch(
        &self,
        known: &Catalog,
        search: &mut Self::Search,
        request: v1::WatchRequest,
    ) -> impl Future<Output = Result<Self::Events, FailedAttempt>> + Send;

    /// Reads the whole catalog.
    fn read_snapshot(
        &self,
        known: &Catalog,
        search: &mut Self::Search,
    ) -> impl Future<Output = Result<v1::CatalogSnapshot, FailedAttempt>> + Send;

    /// Reads the changes since a revision.
    fn read_changes(
        &self,
        known: &Catalog,
        search: &mut Self::Search,
        request: v1::GetCatalogChangesRequest,
    ) -> impl Future<Output = Result<v1::GetCatalogChangesResponse, FailedAttempt>> + Send;
}
