//! Tables: create, clone, alter, truncate, drop.

use std::time::Duration;

use tidewater_common::ids::{GroupId, TableId};
use tidewater_common::schema::WriteMode;
use tidewater_proto::v1;

use crate::client::Client;
use crate::core::RetryMode;
use crate::error::ClientError;
use crate::router::timed;

/// Timeout of table changes: the regions are placed on their groups before the call returns.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Parameters of a new column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewColumn {
    /// Name of the column.
    pub name: String,
    /// Type in canonical text.
    pub data_type: String,
    /// Allows null values.
    pub nullable: bool,
    /// Value for rows written without the column, in the canonical text of its type.
    pub default: Option<String>,
}

impl NewColumn {
    /// Creates a column without a default.
    pub fn new(name: &str, data_type: &str, nullable: bool) -> Self {
        Self { name: name.to_owned(), data_type: data_type.to_owned(), nullable, default: None }
    }
}

impl From<NewColumn> for v1::NewColumn {
    fn from(column: NewColumn) -> Self {
        Self {
            name: column.name,
            r#type: column.data_type,
            nullable: column.nullable,
            default: column.default,
        }
    }
}

/// A change of a table's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnChange {
    /// Adds a column at the end.
    Add(NewColumn),
    /// Drops a column with its values.
    Drop(String),
}

impl From<ColumnChange> for v1::ColumnChange {
    fn from(change: ColumnChange) -> Self {
        let change = match change {
            ColumnChange::Add(column) => v1::column_change::Change::Add(column.into()),
            ColumnChange::Drop(name) => v1::column_change::Change::Drop(name),
        };
        Self { change: Some(change) }
    }
}

/// Changes of a table that take effect together.
#[derive(Debug, Clone, Default)]
pub struct AlterTable {
    /// Column changes, applied in this order.
    pub columns: Vec<ColumnChange>,
    /// `None`: unchanged; `Some(None)`: rows no longer expire. Milliseconds.
    pub ttl_ms: Option<Option<u64>>,
}

/// Parameters of a new table.
#[derive(Debug, Clone)]
pub struct NewTable {
    /// Name of the table.
    pub name: String,
    /// Columns, in the order of rows.
    pub columns: Vec<NewColumn>,
    /// Names of the key columns, in key order.
    pub primary_key: Vec<String>,
    /// Column with the time of a row.
    pub time_column: Option<String>,
    /// Upsert or append-only.
    pub write_mode: WriteMode,
    /// Key columns for distribution by hash; empty: distribution by range.
    pub hash_columns: Vec<String>,
    /// Number of virtual nodes; 0: default.
    pub vnode_count: u32,
    /// Initial number of regions; 0: default.
    pub regions: u32,
    /// Age in milliseconds, by the time column, above which rows expire.
    pub ttl_ms: Option<u64>,
}

impl Client {
    /// Creates a table; returns when it is writable. Retries are idempotent: they carry one request
    /// id.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableExists`, `InvalidArgument` and others;
    /// [`ClientError::OutcomeUnknown`] when it may still be created.
    pub async fn create_table(&self, table: NewTable) -> Result<v1::Table, ClientError> {
        let what = format!("creating table {:?}", table.name);
        let request = v1::CreateTableRequest {
            request_id: self.options().ids.next().to_string(),
            name: table.name,
            columns: table.columns.into_iter().map(Into::into).collect(),
            primary_key: table.primary_key,
            time_column: table.time_column,
            write_mode: match table.write_mode {
                WriteMode::Upsert => v1::WriteMode::Upsert,
                WriteMode::AppendOnly => v1::WriteMode::AppendOnly,
            }
            .into(),
            hash_columns: table.hash_columns,
            vnode_count: table.vnode_count,
            regions: table.regions,
            ttl_ms: table.ttl_ms,
        };
        let router = &self.core.router;
        let answer = self
            .core
            .call(
                GroupId::META,
                &what,
                RetryMode::Idempotent,
                CHANGE_TIMEOUT,
                |channel, timeout| {
                    let mut client = router.admin(channel);
                    let request = request.clone();
                    async move { client.create_table(timed(request, timeout)).await }
                },
            )
            .await?;
        // Lets the caller's next call find the table.
        self.core.refreshed().await?;
        Ok(answer.table.unwrap_or_default())
    }

    /// Creates a table with the columns, options and rows of another one. Each region has the rows
    /// that its source region had at one point during the call. No file is copied. Returns when the
    /// new table is writable.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `TableExists`, `TableBusy` and others;
    /// [`ClientError::OutcomeUnknown`] when it may still be created.
    pub async fn clone_table(&self, name: &str, new_name: &str) -> Result<v1::Table, ClientError> {
        let request = v1::CloneTableRequest {
            request_id: self.options().ids.next().to_string(),
            name: name.to_owned(),
            new_name: new_name.to_owned(),
        };
        let router = &self.core.router;
        let what = format!("cloning table {name:?}");
        let answer = self
            .core
            .call(
                GroupId::META,
                &what,
                RetryMode::Idempotent,
                CHANGE_TIMEOUT,
                |channel, timeout| {
                    let mut client = router.admin(channel);
                    let request = request.clone();
                    async move { client.clone_table(timed(request, timeout)).await }
                },
            )
            .await?;
        self.core.refreshed().await?;
        Ok(answer.table.unwrap_or_default())
    }

    /// Changes columns or options of a table; returns when all its regions have applied the change.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `TableBusy`, `InvalidArgument` and others.
    pub async fn alter_table(
        &self,
        name: &str,
        change: AlterTable,
    ) -> Result<v1::Table, ClientError> {
        let request = v1::AlterTableRequest {
            request_id: self.options().ids.next().to_string(),
            name: name.to_owned(),
            columns: change.columns.into_iter().map(Into::into).collect(),
            ttl_ms: change.ttl_ms.map(Option::unwrap_or_default),
        };
        let router = &self.core.router;
        let what = format!("altering table {name:?}");
        let answer = self
            .core
            .call(
                GroupId::META,
                &what,
                RetryMode::Idempotent,
                CHANGE_TIMEOUT,
                |channel, timeout| {
                    let mut client = router.admin(channel);
                    let request = request.clone();
                    async move { client.alter_table(timed(request, timeout)).await }
                },
            )
            .await?;
        self.core.refreshed().await?;
        Ok(answer.table.unwrap_or_default())
    }

    /// Removes all rows of a table; returns its id.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `TableBusy` and others.
    pub async fn truncate_table(&self, name: &str) -> Result<TableId, ClientError> {
        let request = v1::TruncateTableRequest {
            request_id: self.options().ids.next().to_string(),
            name: name.to_owned(),
        };
        let router = &self.core.router;
        let what = format!("truncating table {name:?}");
        let answer = self
            .core
            .call(
                GroupId::META,
                &what,
                RetryMode::Idempotent,
                CHANGE_TIMEOUT,
                |channel, timeout| {
                    let mut client = router.admin(channel);
                    let request = request.clone();
                    async move { client.truncate_table(timed(request, timeout)).await }
                },
            )
            .await?;
        Ok(TableId(answer.table_id))
    }

    /// Drops a table; returns its id.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound` and others; [`ClientError::OutcomeUnknown`] when it
    /// may still be dropped.
    pub async fn drop_table(&self, name: &str) -> Result<TableId, ClientError> {
        let request = v1::DropTableRequest {
            request_id: self.options().ids.next().to_string(),
            name: name.to_owned(),
        };
        let router = &self.core.router;
        let what = format!("dropping table {name:?}");
        let answer = self
            .core
            .call(
                GroupId::META,
                &what,
                RetryMode::Idempotent,
                CHANGE_TIMEOUT,
                |channel, timeout| {
                    let mut client = router.admin(channel);
                    let request = request.clone();
                    async move { client.drop_table(timed(request, timeout)).await }
                },
            )
            .await?;
        self.core.refreshed().await?;
        Ok(TableId(answer.table_id))
    }
}
