//! Stored routes of the cluster: reads of every version, and saves of the routes of reserved tables.

mod position;

use std::collections::VecDeque;

use tidewater_common::ids::{CatalogVersion, GroupId, RegionId, Revision, TableId};
use tidewater_common::quote::quoted;
use tidewater_proto::v1::{self, Reason};
use tidewater_rpc::timed;

pub use self::position::{CatalogCursor, RouteChanges, StoredRoutes};
use super::NewTable;
use super::tables::definition;
use crate::catalog::{
    CatalogError, EngineError, RouteDelta, RouteDescriptor, RouteEngine, RouteSnapshot,
};
use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

/// Access to the stored routes.
#[derive(Debug, Clone)]
pub struct CatalogStore {
    client: Client,
}

impl Client {
    /// Returns the stored routes of the cluster.
    #[must_use]
    pub fn catalog_store(&self) -> CatalogStore {
        CatalogStore { client: self.clone() }
    }
}

impl CatalogStore {
    /// Returns the routes as the meta leader has them: with every change that was completed before the call.
    ///
    /// # Errors
    /// Those of finding the meta leader; [`ClientError::Catalog`] for routes that violate an invariant.
    pub async fn snapshot(&self) -> Result<StoredRoutes, ClientError> {
        let core = &self.client.core;
        let timeout = self.client.options().attempt_timeout;
        let snapshot = core
            .call(GroupId::META, "the catalog", Repeat::Read, timeout, |channel, timeout| {
                let mut client = core.router.meta(channel);
                async move { client.get_catalog(timed(v1::GetCatalogRequest {}, timeout)).await }
            })
            .await?;
        let mut routes = RouteSnapshot::try_from(&snapshot).map_err(CatalogError::from)?;
        routes.routes.sort_by(|left, right| left.start.cmp(&right.start));
        Ok(StoredRoutes {
            cursor: CatalogCursor {
                incarnation: routes.incarnation,
                revision: Revision(snapshot.revision),
                version: routes.version,
            },
            snapshot: routes,
            next_route_id: RegionId(snapshot.next_route_id),
        })
    }

    /// Returns the version of the routes.
    ///
    /// # Errors
    /// Those of finding the meta leader.
    pub async fn version(&self) -> Result<CatalogVersion, ClientError> {
        Ok(self.client.core.refresh_catalog().await?.version())
    }

    /// Returns the next route id: every id of a route that exists or has existed is smaller.
    ///
    /// # Errors
    /// As [`CatalogStore::snapshot`].
    pub async fn next_route_id(&self) -> Result<RegionId, ClientError> {
        Ok(self.snapshot().await?.next_route_id)
    }

    /// Returns the changes of routes after a cursor: at most `limit`, or the whole catalog if they are no longer kept.
    ///
    /// # Errors
    /// Those of finding the meta leader; [`ClientError::Catalog`] for changes that do not follow each other.
    pub async fn changes_since(
        &self,
        cursor: CatalogCursor,
        limit: usize,
    ) -> Result<RouteChanges, ClientError> {
        let core = &self.client.core;
        let timeout = self.client.options().attempt_timeout;
        let mut after = cursor;
        let mut deltas = Vec::new();
        loop {
            let request = v1::GetCatalogChangesRequest {
                cluster_id: core.catalog().cluster_id().to_string(),
                incarnation: cursor.incarnation.get(),
                revision: after.revision.get(),
            };
            let page = core
                .call(
                    GroupId::META,
                    "catalog changes",
                    Repeat::Read,
                    timeout,
                    |channel, timeout| {
                        let mut client = core.router.meta(channel);
                        let request = request.clone();
                        async move { client.get_catalog_changes(timed(request, timeout)).await }
                    },
                )
                .await?;
            if page.snapshot_needed {
                return Ok(RouteChanges::Snapshot(self.snapshot().await?));
            }
            let newest = Revision(page.revision);
            let mut page: VecDeque<_> = page.deltas.into();
            while deltas.len() < limit
                && let Some(delta) = page.pop_front()
            {
                let next = after.after(&delta)?;
                deltas.extend(RouteDelta::from_catalog(&delta).map_err(CatalogError::from)?);
                after = next;
            }
            if deltas.len() >= limit || after.revision >= newest {
                return Ok(RouteChanges::Deltas(deltas, after));
            }
        }
    }

    /// Reserves a name and an id for a table whose routes are saved before it is opened. The same definition
    /// returns the same id. `regions` of the definition must be 0.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableExists`, `InvalidArgument` and others.
    pub async fn reserve(&self, table: NewTable) -> Result<TableId, ClientError> {
        let what = format!("reserving table {}", quoted(&table.name));
        let request =
            v1::ReserveTableRequest { definition: Some(definition(table, String::new())) };
        let response = self
            .client
            .core
            .change(&what, request, |mut client, request| async move {
                client.reserve_table(request).await
            })
            .await?;
        Ok(TableId(response.table.unwrap_or_default().table_id))
    }

    /// Replaces the routes of a reserved table if the catalog has a version. Routes with id 0 get new ids. Returns
    /// the routes of the table with their ids, sorted by start: those of a later save if there was one.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `CatalogVersionMismatch` if another version was reached; `RouteLive` for a table
    /// that is served; `TableBusy` for a table that `open` has begun to serve; `InvalidArgument` for invalid
    /// routes. The catalog is unchanged.
    pub async fn save(
        &self,
        expected: CatalogVersion,
        table: TableId,
        routes: &[RouteDescriptor],
    ) -> Result<Vec<RouteDescriptor>, ClientError> {
        let request = v1::SaveRoutesRequest {
            request_id: self.client.options().ids.next().to_string(),
            table_id: table.get(),
            expected_version: expected.get(),
            routes: routes.iter().map(Into::into).collect(),
        };
        let what = format!("saving routes of table {table}");
        let response = self
            .client
            .core
            .change(&what, request, |mut client, request| async move {
                client.save_routes(request).await
            })
            .await?;
        let routes = response.routes.iter().map(RouteDescriptor::try_from);
        Ok(routes.collect::<Result<_, _>>().map_err(CatalogError::from)?)
    }

    /// Opens the regions of a reserved table, whose routes must have all its keys. Returns when it accepts writes.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `InvalidArgument` for a table that is not reserved or has keys
    /// without a route, and others. [`ClientError::OutcomeUnknown`] when it may still be opened.
    pub async fn open(&self, name: &str) -> Result<v1::Table, ClientError> {
        let request = v1::OpenTableRequest {
            request_id: self.client.options().ids.next().to_string(),
            name: name.to_owned(),
        };
        let what = format!("opening table {}", quoted(name));
        let response = self
            .client
            .core
            .change(&what, request, |mut client, request| async move {
                client.open_table(request).await
            })
            .await?;
        self.client.core.refresh_catalog().await?;
        Ok(response.table.unwrap_or_default())
    }

    /// Makes the routes of an engine those of a table if the cluster has no routes yet: reserves the table and saves
    /// them as the first version. Then applies the stored routes to the engine, also those of another
    /// caller. Returns whether this call has saved its routes.
    ///
    /// For deployments that begin with known routes. The engine's routes are cut to the keys of the table. A caller that
    /// loses to one with another table keeps its empty reservation.
    ///
    /// # Errors
    /// Those of [`CatalogStore::reserve`] and [`CatalogStore::save`], apart from a version mismatch;
    /// [`ClientError::BadInput`] if the engine has no route for a key of the table, or has routes of another cluster.
    pub async fn ensure(&self, engine: &RouteEngine, table: NewTable) -> Result<bool, ClientError> {
        let mut stored = self.snapshot().await?;
        let mut has_saved = false;
        if stored.cursor.version == CatalogVersion(0) {
            let overtaken = match self.save_first(engine, table).await {
                Ok(()) => None,
                Err(error) if is_overtaken(&error) => Some(error),
                Err(error) => return Err(error),
            };
            stored = self.snapshot().await?;
            has_saved = match overtaken {
                Some(error) if stored.cursor.version == CatalogVersion(0) => return Err(error),
                overtaken => overtaken.is_none(),
            };
        }
        let applied = engine.apply_snapshot(stored.snapshot);
        match applied {
            // The engine follows the catalog and is ahead of the snapshot.
            Ok(_) | Err(EngineError::SnapshotVersionStale { .. }) => Ok(has_saved),
            Err(error) => Err(ClientError::BadInput(error.to_string())),
        }
    }

    /// Reserves a table and saves the engine's routes as the first version.
    async fn save_first(&self, engine: &RouteEngine, table: NewTable) -> Result<(), ClientError> {
        let id = self.reserve(table).await?;
        let routes = engine.routes_of_table(id);
        let routes = routes.map_err(|error| ClientError::BadInput(error.to_string()))?;
        self.save(CatalogVersion(0), id, &routes).await.map(drop)
    }
}

/// Returns whether another save, or the creation of a table, was first.
fn is_overtaken(error: &ClientError) -> bool {
    let overtaken =
        [Reason::CatalogVersionMismatch, Reason::RouteLive, Reason::TableBusy, Reason::TableExists];
    !error.maybe_done()
        && error.refusal().is_some_and(|refusal| overtaken.contains(&refusal.reason))
}
