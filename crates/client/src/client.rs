//! The client: connecting, and the catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Effect;
use tidewater_proto::v1;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::watch::{CatalogWatcher, PublishedCatalog, fetch};
use crate::catalog::{Catalog, RouteInfo, TableInfo};
use crate::core::Core;
use crate::error::ClientError;
use crate::options::ClientOptions;
use crate::outcome::RetryAction;
use crate::router::{LeaderSearch, OperationLimits, Router};

/// A connection to a cluster. Clones share everything; dropping the last one stops the background
/// task.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) core: Arc<Core>,
    _watch: Arc<AbortOnDropHandle<()>>,
}

impl Client {
    /// Connects to any of the given meta nodes and fetches the catalog.
    ///
    /// # Errors
    /// [`ClientError::NoMetaReachable`] when no meta node could be reached; others when a meta node
    /// responded with an error.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let router = Router::new(options);
        let catalog = Catalog::from_snapshot(&first_catalog(&router).await?)?;
        let (sender, published) = watch::channel(PublishedCatalog::new(catalog));
        let refresh = Arc::new(Notify::new());
        let core = Arc::new(Core { router, published, refresh: refresh.clone() });
        let watcher = CatalogWatcher { core: core.clone(), published: sender, refresh };
        let task = AbortOnDropHandle::new(tokio::spawn(watcher.run()));
        Ok(Self { core, _watch: Arc::new(task) })
    }

    /// Returns the latest known catalog.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.core.catalog()
    }

    /// Returns the table with this name.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`].
    pub async fn table(&self, name: &str) -> Result<Arc<TableInfo>, ClientError> {
        self.core.table(name).await
    }

    /// Returns the route of a region.
    ///
    /// # Errors
    /// [`ClientError::RegionNotFound`].
    pub async fn route(&self, region: RegionId) -> Result<Arc<RouteInfo>, ClientError> {
        self.core.route(region).await
    }

    /// Returns the options of the client.
    pub fn options(&self) -> &ClientOptions {
        &self.core.router.options
    }
}

/// Calls one address after the other, following redirects, until one returns the catalog.
async fn first_catalog(router: &Router) -> Result<v1::CatalogSnapshot, ClientError> {
    let options = &router.options;
    let limits = OperationLimits::of(options);
    let mut search = LeaderSearch::new(GroupId::META);
    let mut tried = BTreeMap::new();
    let mut any_response = false;
    let mut made: u32 = 0;
    loop {
        let timeout = limits.attempt(options.attempt_timeout);
        let failure = match fetch(router, None, &mut search, timeout).await {
            Ok(snapshot) => return Ok(snapshot),
            Err(failure) => failure,
        };
        made = made.saturating_add(1);
        any_response |= !failure.unanswered;
        if let Some(address) = &search.called {
            tried.insert(address.clone(), failure.refusal.message.clone());
        }
        let wait = router.wait(&mut search, &failure);
        let all_tried = options.meta.iter().all(|address| tried.contains_key(address));
        let patience = if any_response { options.deadline } else { options.connect_retry_time };
        let hopeless = match failure.retry_action() {
            RetryAction::Retry | RetryAction::RetryFew | RetryAction::FindLeader => false,
            RetryAction::RefreshCatalog | RetryAction::NewProducer | RetryAction::Stop => true,
        };
        let over = limits.elapsed() + wait >= patience || made >= options.max_attempts;
        if (all_tried && over) || limits.exhausted(made, wait) || (hopeless && !failure.unanswered)
        {
            return Err(if any_response {
                let what = "connecting".to_owned();
                let cause = Box::new(failure.refusal);
                match (hopeless, failure.effect) {
                    (true, Effect::None) => ClientError::Refused { what, refusal: cause },
                    _ => ClientError::RetriesExhausted {
                        what,
                        attempts: made,
                        elapsed: limits.elapsed(),
                        cause,
                    },
                }
            } else {
                ClientError::NoMetaReachable { tried: tried.into_iter().collect() }
            });
        }
        tokio::time::sleep(wait).await;
    }
}

/// Returns the column ids and the Arrow schema of a column list.
pub(crate) fn projection(
    table: &TableInfo,
    columns: Option<&[String]>,
) -> Result<(Vec<u32>, arrow::datatypes::SchemaRef), ClientError> {
    let all = table.schema.columns();
    let positions: Vec<usize> = match columns {
        None => (0..all.len()).collect(),
        Some(names) => names
            .iter()
            .map(|name| {
                all.iter().position(|column| column.name == *name).ok_or_else(|| {
                    ClientError::ColumnNotFound {
                        table: table.name.clone(),
                        column: name.clone(),
                        columns: all.iter().map(|column| column.name.clone()).collect(),
                    }
                })
            })
            .collect::<Result<_, _>>()?,
    };
    let ids = positions.iter().map(|position| all[*position].id.get()).collect();
    let schema = table
        .schema
        .arrow()
        .project(&positions)
        .map_err(|error| ClientError::BadInput(error.to_string()))?;
    Ok((ids, Arc::new(schema)))
}

#[cfg(test)]
mod tests;
