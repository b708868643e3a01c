//! Calls for collections by their ids: allocation, creation and drop of batches, and the list.

use tidewater_common::ids::TableId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, DataSource, ListedCollection, meta_command::Kind};
use uuid::Uuid;

use super::StorageService;
use crate::catalog::{MetaState, Table};
use crate::services::admin::table_of;

impl StorageService {
    pub(super) async fn allocate_ids(
        &self,
        request: v1::AllocateIdsRequest,
    ) -> Result<TableId, Refusal> {
        let running = self.slot.get()?;
        table_of(&running.propose_at_level(Kind::AllocateIds(request)).await?)
    }

    pub(super) async fn create_collections(
        &self,
        request: v1::CreateCollectionsRequest,
    ) -> Result<Vec<v1::Table>, Refusal> {
        for of in &request.collections {
            self.admin.check_definition(&of.definition.clone().unwrap_or_default())?;
        }
        let running = self.slot.get()?;
        let created: Vec<(TableId, String)> = request
            .collections
            .iter()
            .map(|of| {
                let name = of.definition.as_ref().map(|of| of.name.clone()).unwrap_or_default();
                (TableId(of.id), name)
            })
            .collect();
        running.propose_at_level(Kind::CreateCollections(request)).await?;
        let mut tables = Vec::with_capacity(created.len());
        for (id, name) in created {
            tables.push(self.admin.wait_until_created(&running, id, &name).await?.0);
        }
        Ok(tables)
    }

    pub(super) async fn drop_collections(
        &self,
        request: v1::DropCollectionsRequest,
    ) -> Result<Vec<v1::DropTableResponse>, Refusal> {
        let running = self.slot.get()?;
        let ids: Vec<TableId> = request.ids.iter().copied().map(TableId).collect();
        // Afterwards, none of the ids is unused: each collection that has one of them exists, or has been dropped.
        running.propose_at_level(Kind::DropCollections(request)).await?;
        let mut dropped = Vec::with_capacity(ids.len());
        for id in ids {
            let named = {
                let state = running.group.view.read();
                state.table(id).filter(|table| table.is_named()).map(|table| table.name.clone())
            };
            dropped.push(match named {
                Some(name) => {
                    let request_id = Uuid::now_v7().to_string();
                    let request = v1::DropTableRequest { request_id, name, table_id: id.get() };
                    self.admin.drop_table_of(request).await?
                }
                // The command has dropped the id, or an earlier request the collection.
                None => self.admin.wait_until_dropped(&running, id).await?,
            });
        }
        Ok(dropped)
    }

    pub(super) async fn list_collections(&self) -> Result<Vec<ListedCollection>, Refusal> {
        let running = self.slot.get()?;
        running.group.linearize().await?;
        Ok(listed(&running.group.view.read()))
    }
}

/// Lists the collections of a state, by id.
fn listed(state: &MetaState) -> Vec<ListedCollection> {
    let describe = |table: &Table| ListedCollection {
        id: table.id.get(),
        name: table.name.clone(),
        data_source: source(table).into(),
        state: table.state.into(),
        dropped_name: table.dropped.as_ref().map(|of| of.name.clone()).unwrap_or_default(),
    };
    state.tables().filter(|table| table.is_live()).map(|table| describe(table)).collect()
}

/// Returns the origin of the rows of a table.
fn source(table: &Table) -> DataSource {
    if table.options.refreshable {
        DataSource::Refresh
    } else if table.options.holds_events {
        DataSource::System
    } else {
        DataSource::Ingestion
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::procedures::testing::{complete, drop_named, with_tables};
    use crate::commands::testing::{directory, run};

    #[test]
    fn dropped_collections_and_unused_ids_are_not_listed() {
        let mut state = with_tables();
        let allocate = v1::AllocateIdsRequest { request_id: directory(9), count: 1 };
        run(&mut state, Kind::AllocateIds(allocate)).unwrap();
        run(&mut state, drop_named(10, "u")).unwrap();
        complete(&mut state, 10);
        let names: Vec<_> = listed(&state).into_iter().map(|of| (of.id, of.name)).collect();
        assert_eq!(names, [(1, "t".to_owned())]);
    }
}
