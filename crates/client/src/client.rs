//! The client itself: connecting, and the catalog that it keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Effect;
use tidewater_proto::v1;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::watch::{Published, Watcher, fetch};
use crate::catalog::{Catalog, RouteInfo, TableInfo};
use crate::core::Core;
use crate::error::ClientError;
use crate::options::ClientOptions;
use crate::outcome::RetryAction;
use crate::router::{Limits, Router, Search};

/// A connection to a cluster. Clones share everything; the last one to go ends the background
/// task.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) core: Arc<Core>,
    _watch: Arc<AbortOnDropHandle<()>>,
}

impl Client {
    /// Connects by any of the meta nodes given and fetches the catalog.
    ///
    /// # Errors
    /// [`ClientError::NoMetaReachable`] when not one of them could be reached; others when they
    /// answered but would not serve.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let router = Router::new(options);
        let catalog = Catalog::from_snapshot(&first_catalog(&router).await?)?;
        let (sender, published) = watch::channel(Published::new(catalog));
        let refresh = Arc::new(Notify::new());
        let core = Arc::new(Core { router, published, refresh: refresh.clone() });
        let watcher = Watcher { core: core.clone(), published: sender, refresh };
        let task = AbortOnDropHandle::new(tokio::spawn(watcher.run()));
        Ok(Self { core, _watch: Arc::new(task) })
    }

    /// The catalog as last heard of.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.core.catalog()
    }

    /// The table of this name.
    ///
    /// # Errors
    /// [`ClientError::TableNotFound`].
    pub async fn table(&self, name: &str) -> Result<Arc<TableInfo>, ClientError> {
        self.core.table(name).await
    }

    /// The route of a region.
    ///
    /// # Errors
    /// [`ClientError::RegionNotFound`].
    pub async fn route(&self, region: RegionId) -> Result<Arc<RouteInfo>, ClientError> {
        self.core.route(region).await
    }

    /// The options that the client was connected with.
    pub fn options(&self) -> &ClientOptions {
        &self.core.router.options
    }
}

/// Asks one address after the other, following hints, until one answers with the catalog.
async fn first_catalog(router: &Router) -> Result<v1::CatalogSnapshot, ClientError> {
    let options = &router.options;
    let limits = Limits::of(options);
    let mut search = Search::new(GroupId::META);
    let mut tried = BTreeMap::new();
    let mut anyone_answered = false;
    let mut made: u32 = 0;
    loop {
        let timeout = limits.attempt(options.attempt_timeout);
        let miss = match fetch(router, None, &mut search, timeout).await {
            Ok(snapshot) => return Ok(snapshot),
            Err(miss) => miss,
        };
        made = made.saturating_add(1);
        anyone_answered |= !miss.silent;
        if let Some(address) = &search.asked {
            tried.insert(address.clone(), miss.refusal.message.clone());
        }
        let wait = router.wait(&mut search, &miss);
        let all_tried = options.meta.iter().all(|address| tried.contains_key(address));
        let patience = if anyone_answered { options.deadline } else { options.connect_deadline };
        let hopeless = match miss.retry_action() {
            RetryAction::Repeat | RetryAction::RepeatFew | RetryAction::FindLeader => false,
            RetryAction::RefreshCatalog | RetryAction::NewProducer | RetryAction::Stop => true,
        };
        let over = limits.elapsed() + wait >= patience || made >= options.max_attempts;
        if (all_tried && over) || limits.exhausted(made, wait) || (hopeless && !miss.silent) {
            return Err(if anyone_answered {
                let (what, cause) = ("connecting".to_owned(), Box::new(miss.refusal));
                match (hopeless, miss.effect) {
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

/// What a table looks like to the reader of one column list: positions and the Arrow schema.
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
