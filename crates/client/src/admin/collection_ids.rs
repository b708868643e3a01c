//! Calls for collections by their ids.

use std::ops::Range;

use tidewater_common::ids::TableId;
use tidewater_proto::v1;

use super::storage_call::CHANGE_TIMEOUT;
use super::tables::{DroppedTable, NewTable, definition};
use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;

impl Client {
    /// Hands out `count` ids for collections, 1 to 1,000, which are never handed out again. A lost response is harmless, because
    /// retries carry the same request id. At most 100,000 ids are not used: [`drop_collections`](Self::drop_collections) takes back
    /// those that are not needed.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `InvalidArgument` and others; [`ClientError::OutcomeUnknown`] when ids may be handed out.
    pub async fn allocate_ids(&self, count: u32) -> Result<Range<u32>, ClientError> {
        let request_id = self.options().ids.next().to_string();
        let request = v1::AllocateIdsRequest { request_id, count };
        let longest = self.options().attempt_timeout;
        let response = self
            .core
            .storage(
                "allocating ids",
                Repeat::Idempotent,
                longest,
                request,
                |mut client, request| async move { client.allocate_ids(request).await },
            )
            .await?;
        Ok(response.first_id..response.first_id.saturating_add(count))
    }

    /// Creates tables with ids that were handed out, 1 to 100 tables, all or none; returns when they accept writes, in this order.
    /// Those that exist with the same description are returned.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `IdentifierMissing`, `IdentifierInvalid`, `IdentifierReused`, `TableExists`,
    /// `InvalidArgument` and others: none was created; [`ClientError::OutcomeUnknown`] when they may still be created.
    pub async fn create_collections(
        &self,
        collections: Vec<(TableId, NewTable)>,
    ) -> Result<Vec<v1::Table>, ClientError> {
        let describe = |(id, table): (TableId, NewTable)| v1::CollectionDescription {
            id: id.get(),
            definition: Some(definition(table, String::new())),
        };
        let collections = collections.into_iter().map(describe).collect();
        let response = self
            .core
            .storage(
                "creating collections",
                Repeat::Idempotent,
                CHANGE_TIMEOUT,
                v1::CreateCollectionsRequest { collections },
                |mut client, request| async move { client.create_collections(request).await },
            )
            .await?;
        self.core.refresh_catalog().await?;
        Ok(response.tables)
    }

    /// Drops tables by their ids, at most 100, one after the other, as [`drop_table`](Self::drop_table) does. Ids that were handed
    /// out and are not used are dropped before them, which makes room for others: no table is created with them, and they are never
    /// handed out again. Those that were dropped before count as dropped.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `IdentifierMissing`: an id was not handed out, and none was dropped; with the errors of
    /// `drop_table`: those before and the unused ids were dropped, and the call can be repeated.
    pub async fn drop_collections(
        &self,
        ids: &[TableId],
    ) -> Result<Vec<DroppedTable>, ClientError> {
        let request = v1::DropCollectionsRequest { ids: ids.iter().map(|id| id.get()).collect() };
        let response = self
            .core
            .storage(
                "dropping collections",
                Repeat::Idempotent,
                CHANGE_TIMEOUT,
                request,
                |mut client, request| async move { client.drop_collections(request).await },
            )
            .await?;
        self.core.refresh_catalog().await?;
        Ok(response.dropped.into_iter().map(Into::into).collect())
    }

    /// Lists the collections, by id, also those that are being created, and dropped ones whose rows are held.
    ///
    /// # Errors
    /// The meta service cannot be reached or has no leader.
    pub async fn active_collections(&self) -> Result<Vec<v1::ListedCollection>, ClientError> {
        let longest = self.options().attempt_timeout;
        let response = self
            .core
            .storage(
                "collections",
                Repeat::Read,
                longest,
                v1::ListCollectionsRequest {},
                |mut client, request| async move { client.list_collections(request).await },
            )
            .await?;
        Ok(response.collections)
    }
}

#[cfg(test)]
mod tests {
    use crate::fake::FakeCluster;

    #[tokio::test]
    async fn ids_are_the_same_after_a_lost_response() {
        let cluster = FakeCluster::start(&[], 1).await;
        let client = cluster.client().await;
        cluster.storage.lock().lose_response = true;
        assert_eq!(client.allocate_ids(3).await.unwrap(), 100..103);
        assert_eq!(cluster.storage.lock().allocations.len(), 1);
        assert_eq!(client.allocate_ids(1).await.unwrap(), 110..111);
    }
}
