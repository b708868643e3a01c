//! The catalog as its watcher publishes it.

use std::sync::Arc;

use tidewater_common::ids::ClusterId;

use crate::Catalog;

/// State that a [`CatalogWatcher`](crate::CatalogWatcher) publishes.
#[derive(Debug, Clone)]
pub struct PublishedCatalog {
    /// The catalog as last received.
    pub catalog: Arc<Catalog>,
    /// Number of the newest request for a refresh that was served.
    pub served: u64,
    /// The expected and the actual cluster, once another cluster answers. Final.
    pub other: Option<(ClusterId, ClusterId)>,
}

impl PublishedCatalog {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self { catalog: Arc::new(catalog), served: 0, other: None }
    }
}
