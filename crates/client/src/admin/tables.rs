//! Tables: create, alter, truncate, drop.

use std::time::Duration;

use tidewater_common::ids::{GroupId, TableId};
use tidewater_common::schema::WriteMode;
use tidewater_proto::v1;

use crate::client::Client;
use crate::core::Repeat;
use crate::error::ClientError;
use crate::router::timed;

/// A table's regions are put on their groups before the call returns.
const LONGEST: Duration = Duration::from_secs(30);

/// A column to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewColumn {
    /// Its name.
    pub name: String,
    /// Its type in canonical text.
    pub data_type: String,
    /// Whether it may be null.
    pub nullable: bool,
    /// What rows that are written without it show, in the canonical text of its type.
    pub default: Option<String>,
}

impl NewColumn {
    /// A column without a default.
    pub fn new(name: &str, data_type: &str, nullable: bool) -> Self {
        let (name, data_type) = (name.to_owned(), data_type.to_owned());
        Self { name, data_type, nullable, default: None }
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
    /// A new column at the end.
    Add(NewColumn),
    /// A column goes, with its values.
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
    /// One after the other.
    pub columns: Vec<ColumnChange>,
    /// `None`: as it is; `Some(None)`: rows do not expire any more. Milliseconds.
    pub ttl_ms: Option<Option<u64>>,
}

/// A table to be made.
#[derive(Debug, Clone)]
pub struct NewTable {
    /// Its name.
    pub name: String,
    /// In the order in which rows carry them.
    pub columns: Vec<NewColumn>,
    /// Names of the key columns, in key order.
    pub primary_key: Vec<String>,
    /// The column that says when a row happened.
    pub time_column: Option<String>,
    /// Upsert or append-only.
    pub write_mode: WriteMode,
    /// Key columns to distribute by a hash of; empty: by range.
    pub hash_columns: Vec<String>,
    /// 0: default.
    pub vnode_count: u32,
    /// Regions to begin with; 0: default.
    pub regions: u32,
    /// Rows older than this, by the time column, expire. Milliseconds.
    pub ttl_ms: Option<u64>,
}

impl Client {
    /// Makes a table; returns when it can be written to. Safe to lose the answer of: repeats carry
    /// one request id.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableExists`, `InvalidArgument` and others;
    /// [`ClientError::OutcomeUnknown`] when it may still be made.
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
            .call(GroupId::META, &what, Repeat::Idempotent, LONGEST, |channel, timeout| {
                let (mut client, request) = (router.admin(channel), request.clone());
                async move { client.create_table(timed(request, timeout)).await }
            })
            .await?;
        // So that the caller's next step finds the table.
        self.core.refresh_catalog().await?;
        Ok(answer.table.unwrap_or_default())
    }

    /// Makes a table with the columns, the options and the rows of another one: each region has the
    /// rows that its model had at one time during the call. No file is copied. Returns when it can be
    /// written to.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `TableExists`, `TableBusy` and others;
    /// [`ClientError::OutcomeUnknown`] when it may still be made.
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
            .call(GroupId::META, &what, Repeat::Idempotent, LONGEST, |channel, timeout| {
                let (mut client, request) = (router.admin(channel), request.clone());
                async move { client.clone_table(timed(request, timeout)).await }
            })
            .await?;
        self.core.refresh_catalog().await?;
        Ok(answer.table.unwrap_or_default())
    }

    /// Gives a table other columns or options; returns when all its regions have them.
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
            .call(GroupId::META, &what, Repeat::Idempotent, LONGEST, |channel, timeout| {
                let (mut client, request) = (router.admin(channel), request.clone());
                async move { client.alter_table(timed(request, timeout)).await }
            })
            .await?;
        self.core.refresh_catalog().await?;
        Ok(answer.table.unwrap_or_default())
    }

    /// Forgets all rows of a table; returns its id.
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
            .call(GroupId::META, &what, Repeat::Idempotent, LONGEST, |channel, timeout| {
                let (mut client, request) = (router.admin(channel), request.clone());
                async move { client.truncate_table(timed(request, timeout)).await }
            })
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
            .call(GroupId::META, &what, Repeat::Idempotent, LONGEST, |channel, timeout| {
                let (mut client, request) = (router.admin(channel), request.clone());
                async move { client.drop_table(timed(request, timeout)).await }
            })
            .await?;
        self.core.refresh_catalog().await?;
        Ok(TableId(answer.table_id))
    }
}
