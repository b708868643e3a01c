//! The catalog as the background task publishes it to the parts of a client.

use std::sync::Arc;

use tidewater_common::ids::ClusterId;

use super::Catalog;

/// State that the background task publishes.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) catalog: Arc<Catalog>,
    /// Number of the newest request for a refresh that was served.
    pub(crate) served: u64,
    /// The expected and the actual cluster, once another cluster answers. Final.
    pub(crate) other: Option<(ClusterId, ClusterId)>,
}

impl Published {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self { catalog: Arc::new(catalog), served: 0, other: None }
    }
}
