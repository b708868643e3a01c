//! Client: connects to a cluster and keeps its catalog up to date.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::quote::quoted;
use tidewater_common::refusal::Effect;
use tidewater_common::schema::Column;
use tidewater_proto::v1;
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::{
    Catalog, CatalogReads, CatalogWatcher, RefreshRequests, RouteInfo, TableInfo,
};
use crate::catalog_source::fetch;
use crate::core::Core;
use crate::error::ClientError;
use crate::options::ClientOptions;
use crate::outcome::RetryAction;
use crate::router::{Limits, Router, Search};

/// Connection to a cluster. Clones share its state; dropping the last one ends the background task.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) core: Arc<Core>,
    _watch: Arc<AbortOnDropHandle<()>>,
}

impl Client {
    /// Connects through any of the given meta nodes and fetches the catalog.
    ///
    /// # Errors
    /// [`ClientError::NoMetaReachable`] when no meta node could be reached; other errors when a meta node
    /// answered with one.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let router = Arc::new(Router::new(options));
        let catalog = Catalog::from_snapshot(&first_catalog(&router).await?)?;
        let requests = Arc::new(RefreshRequests::default());
        let (watcher, published) = CatalogWatcher::new(router.clone(), catalog, requests.clone());
        let core = Arc::new(Core { router, published, requests });
        let task = AbortOnDropHandle::new(tokio::spawn(watcher.run()));
        Ok(Self { core, _watch: Arc::new(task) })
    }

    /// Returns the catalog as last received.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.core.catalog()
    }

    /// Waits until the catalog has another version of its routes than `known`, and returns it. Changes in quick
    /// succession may be received together.
    ///
    /// # Errors
    /// [`ClientError::OtherCluster`] once another cluster answers.
    pub async fn changed_catalog(&self, known: &Catalog) -> Result<Arc<Catalog>, ClientError> {
        self.core.changed_catalog(known).await
    }

    /// Returns the table of this name.
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

    /// Returns the number of reads of the catalog so far, apart from its watch.
    pub fn catalog_reads(&self) -> CatalogReads {
        self.core.requests.reads()
    }

    /// Returns the options that the client was connected with.
    pub fn options(&self) -> &ClientOptions {
        &self.core.router.options
    }
}

/// Fetches the catalog from each address in turn, and from the leaders that answers name, until one
/// returns it.
async fn first_catalog(router: &Router) -> Result<v1::CatalogSnapshot, ClientError> {
    let options = &router.options;
    let limits = Limits::of(options);
    let mut search = Search::new(GroupId::META);
    let mut tried = BTreeMap::new();
    let mut any_answer = false;
    let mut made: u32 = 0;
    loop {
        let timeout = limits.attempt(options.attempt_timeout);
        let failure = match fetch(router, None, &mut search, timeout).await {
            Ok(snapshot) => return Ok(snapshot),
            Err(failure) => failure,
        };
        made = made.saturating_add(1);
        any_answer |= !failure.silent;
        if let Some(address) = &search.last_address {
            tried.insert(address.clone(), failure.refusal.message.clone());
        }
        let wait = router.wait(&mut search, &failure);
        let all_tried = options.meta.iter().all(|address| tried.contains_key(address));
        let deadline = if any_answer { options.deadline } else { options.connect_deadline };
        let permanent = match failure.retry_action() {
            RetryAction::Repeat
            | RetryAction::RepeatIfAsked
            | RetryAction::RepeatFew
            | RetryAction::FindLeader => false,
            RetryAction::RefreshCatalog | RetryAction::NewProducer | RetryAction::Stop => true,
        };
        let over = limits.elapsed() + wait >= deadline || made >= options.max_attempts;
        if (all_tried && over) || limits.exhausted(made, wait) || (permanent && !failure.silent) {
            return Err(if any_answer {
                let what = "connecting".to_owned();
                let cause = Box::new(failure.refusal);
                if permanent && failure.effect == Effect::None {
                    ClientError::Refused { what, refusal: cause }
                } else {
                    ClientError::RetriesExhausted {
                        what,
                        attempts: made,
                        elapsed: limits.elapsed(),
                        cause,
                    }
                }
            } else {
                ClientError::NoMetaReachable { tried: tried.into_iter().collect() }
            });
        }
        tokio::time::sleep(wait).await;
    }
}

/// Returns a column of a table by its name.
///
/// # Errors
/// [`ClientError::ColumnNotFound`].
pub fn column<'a>(table: &'a TableInfo, name: &str) -> Result<&'a Column, ClientError> {
    let position = position(table, name)?;
    Ok(&table.schema.columns()[position])
}

/// Returns the position of a column by its name.
fn position(table: &TableInfo, name: &str) -> Result<usize, ClientError> {
    let all = table.schema.columns();
    all.iter().position(|column| column.name == name).ok_or_else(|| ClientError::ColumnNotFound {
        table: table.name.clone(),
        column: name.to_owned(),
        columns: all.iter().map(|column| column.name.clone()).collect(),
    })
}

/// Returns the ids and the Arrow schema of the given columns, or of all columns.
pub(crate) fn projection(
    table: &TableInfo,
    columns: Option<&[String]>,
) -> Result<(Vec<u32>, arrow::datatypes::SchemaRef), ClientError> {
    let all = table.schema.columns();
    let positions: Vec<usize> = match columns {
        None => (0..all.len()).collect(),
        Some(names) => names.iter().map(|name| position(table, name)).collect::<Result<_, _>>()?,
    };
    let mut seen = HashSet::new();
    if let Some(repeated) = positions.iter().find(|position| !seen.insert(**position)) {
        let name = quoted(&all[*repeated].name);
        return Err(ClientError::BadInput(format!(
            "column {name} is named twice: name each column once"
        )));
    }
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
