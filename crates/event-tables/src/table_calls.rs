//! Calls of a client for events tables.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tidewater_client::admin::{AlterTable, ColumnChange, NewColumn};
use tidewater_client::catalog::TableInfo;
use tidewater_client::{
    Client, ClientError, NewTable, NotedWrite, OnceOutcome, OnceWrite, OnceWriter, ResumeError,
};
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::ProducerId;

use crate::write::Sent;

/// Note from which a write cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotResumed<N> {
    /// It cannot be read.
    Damaged(String),
    /// Its table was dropped.
    OtherTable,
    /// The rows are not those of the note.
    OtherRows {
        /// Difference between the rows and the note.
        problem: String,
        /// The write, to be fenced.
        write: N,
    },
}

/// Calls for events tables.
#[async_trait]
pub(crate) trait TableCalls: Send + Sync {
    /// A write that can be sent.
    type Write: Send;
    /// A write whose rows are not known.
    type Noted: Send;

    /// Returns a table as it is now.
    async fn table(&self, name: &str) -> Result<Arc<TableInfo>, ClientError>;

    /// Returns the feature level of the cluster.
    async fn feature_level(&self) -> Result<FeatureLevel, ClientError>;

    /// Creates a table.
    async fn create_table(&self, new: NewTable) -> Result<(), ClientError>;

    /// Adds columns to a table.
    async fn add_columns(&self, table: &str, columns: Vec<NewColumn>) -> Result<(), ClientError>;

    /// Begins a write; returns it and its note. Sends no rows.
    async fn open(
        &self,
        table: Arc<TableInfo>,
        rows: RecordBatch,
    ) -> Result<(Self::Write, Vec<u8>), ClientError>;

    /// Restores a write from its note and its rows.
    fn resume(
        &self,
        table: Arc<TableInfo>,
        note: &[u8],
        rows: &RecordBatch,
    ) -> Result<Self::Write, NotResumed<Self::Noted>>;

    /// Sends a write. One that its regions have forgotten has no effect afterwards.
    async fn send(&self, write: Self::Write) -> Result<Sent, ClientError>;

    /// Ends a write: it has no effect afterwards.
    async fn fence(&self, write: Self::Noted) -> Result<(), ClientError>;

    /// Returns columns of the rows with these keys.
    async fn get(
        &self,
        table: &str,
        keys: &RecordBatch,
        columns: &[String],
    ) -> Result<RecordBatch, ClientError>;

    /// Writes one row that other processes write, too.
    async fn put_as(
        &self,
        table: Arc<TableInfo>,
        row: RecordBatch,
        producer: ProducerId,
    ) -> Result<(), ClientError>;
}

/// Calls of a client.
#[derive(Debug)]
pub(crate) struct ClientCalls {
    client: Client,
    once: OnceWriter,
}

impl ClientCalls {
    pub(crate) fn new(client: Client) -> Self {
        let once = client.once_writer();
        Self { client, once }
    }
}

#[async_trait]
impl TableCalls for ClientCalls {
    type Write = OnceWrite;
    type Noted = NotedWrite;

    async fn table(&self, name: &str) -> Result<Arc<TableInfo>, ClientError> {
        self.client.table(name).await
    }

    async fn feature_level(&self) -> Result<FeatureLevel, ClientError> {
        Ok(FeatureLevel::new(self.client.cluster_status().await?.feature_level))
    }

    async fn create_table(&self, new: NewTable) -> Result<(), ClientError> {
        self.client.create_table(new).await?;
        Ok(())
    }

    async fn add_columns(&self, table: &str, columns: Vec<NewColumn>) -> Result<(), ClientError> {
        let columns = columns.into_iter().map(ColumnChange::Add).collect();
        let change = AlterTable { columns, by_node: true, ..AlterTable::default() };
        self.client.alter_table(table, change).await?;
        Ok(())
    }

    async fn open(
        &self,
        table: Arc<TableInfo>,
        rows: RecordBatch,
    ) -> Result<(OnceWrite, Vec<u8>), ClientError> {
        let write = self.once.open(table, rows).await?;
        let note = write.note();
        Ok((write, note))
    }

    fn resume(
        &self,
        table: Arc<TableInfo>,
        note: &[u8],
        rows: &RecordBatch,
    ) -> Result<OnceWrite, NotResumed<NotedWrite>> {
        self.once.resume(table, note, rows).map_err(|error| match error {
            ResumeError::Damaged(problem) => NotResumed::Damaged(problem),
            ResumeError::OtherTable { .. } => NotResumed::OtherTable,
            ResumeError::OtherRows { problem, write, .. } => {
                NotResumed::OtherRows { problem, write }
            }
        })
    }

    async fn send(&self, write: OnceWrite) -> Result<Sent, ClientError> {
        match self.once.send(write).await? {
            OnceOutcome::Written(_) => Ok(Sent::Written),
            OnceOutcome::Forgotten(forgotten) => {
                // A late attempt must not take effect after the look-up.
                self.once.fence(&forgotten).await?;
                Ok(Sent::Forgotten)
            }
        }
    }

    async fn fence(&self, write: NotedWrite) -> Result<(), ClientError> {
        self.once.fence_noted(&write).await
    }

    async fn get(
        &self,
        table: &str,
        keys: &RecordBatch,
        columns: &[String],
    ) -> Result<RecordBatch, ClientError> {
        self.client.get(table, keys, Some(columns)).await
    }

    async fn put_as(
        &self,
        table: Arc<TableInfo>,
        row: RecordBatch,
        producer: ProducerId,
    ) -> Result<(), ClientError> {
        self.client.put_as(table, row, producer).await?;
        Ok(())
    }
}
