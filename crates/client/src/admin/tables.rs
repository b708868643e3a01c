//! Calls that create, clone, alter, truncate and drop tables.

use std::time::Duration;

use tidewater_common::ids::TableId;
use tidewater_common::quote::quoted;
use tidewater_common::schema::WriteMode;
use tidewater_proto::v1;

use crate::client::Client;
use crate::error::ClientError;

/// Parameters of a new column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewColumn {
    /// Name of the column.
    pub name: String,
    /// Data type in canonical text.
    pub data_type: String,
    /// Accepts null values.
    pub nullable: bool,
    /// Value of rows written without the column, in the canonical text of its type.
    pub default: Option<String>,
}

impl NewColumn {
    /// Returns a column without a default.
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
    /// Appends a column.
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlterTable {
    /// Changes of columns, applied in order.
    pub columns: Vec<ColumnChange>,
    /// New time to live in milliseconds. `None`: unchanged; `Some(None)`: rows no longer expire.
    pub ttl_ms: Option<Option<u64>>,
    /// New length of compaction windows: whole seconds, at least a minute. `None`: unchanged; `Some(None)`: the length
    /// follows from the files.
    pub compaction_window: Option<Option<Duration>>,
    /// The caller is a node that adds columns of its events, not an administrator: the call is not recorded.
    pub by_node: bool,
}

/// Parameters of a new table.
#[derive(Debug, Clone)]
pub struct NewTable {
    /// Name of the table.
    pub name: String,
    /// Columns in the order of a row.
    pub columns: Vec<NewColumn>,
    /// Names of the key columns, in key order.
    pub primary_key: Vec<String>,
    /// Name of the column with the time of a row's event.
    pub time_column: Option<String>,
    /// Write mode: upsert or append-only.
    pub write_mode: WriteMode,
    /// Key columns whose hash distributes the rows; empty: rows are distributed by key range.
    pub hash_columns: Vec<String>,
    /// Number of vnodes; 0: default.
    pub vnode_count: u32,
    /// Number of initial regions; 0: default.
    pub regions: u32,
    /// Time to live of a row by its time column, in milliseconds; `None`: rows do not expire.
    pub ttl_ms: Option<u64>,
    /// Length of the windows of time whose rows are compacted together: whole seconds, at least a minute. `None`: the
    /// length follows from the files.
    pub compaction_window: Option<Duration>,
    /// The table is made for events: nodes record no events about it.
    pub holds_events: bool,
    /// Source that the table mirrors; `None`: clients write its rows.
    pub refresh: Option<v1::RefreshDefinition>,
}

impl NewTable {
    /// Returns an upsert table whose rows are distributed by key range and do not expire, with the default number of regions.
    pub fn upsert(name: &str, columns: Vec<NewColumn>, primary_key: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            columns,
            primary_key: primary_key.iter().map(|name| (*name).to_owned()).collect(),
            time_column: None,
            write_mode: WriteMode::Upsert,
            hash_columns: Vec::new(),
            vnode_count: 0,
            regions: 0,
            ttl_ms: None,
            compaction_window: None,
            holds_events: false,
            refresh: None,
        }
    }
}

/// Returns the definition of a new table.
pub(super) fn definition(table: NewTable, request_id: String) -> v1::CreateTableRequest {
    let write_mode = match table.write_mode {
        WriteMode::Upsert => v1::WriteMode::Upsert,
        WriteMode::AppendOnly => v1::WriteMode::AppendOnly,
    };
    v1::CreateTableRequest {
        request_id,
        name: table.name,
        columns: table.columns.into_iter().map(Into::into).collect(),
        primary_key: table.primary_key,
        time_column: table.time_column,
        write_mode: write_mode.into(),
        hash_columns: table.hash_columns,
        vnode_count: table.vnode_count,
        regions: table.regions,
        ttl_ms: table.ttl_ms,
        refresh: table.refresh,
        compaction_window_ms: table.compaction_window.map(milliseconds),
        holds_events: table.holds_events,
    }
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Client {
    /// Creates a table; returns when it accepts writes. A lost response is harmless, because retries carry the
    /// same request id.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableExists`, `InvalidArgument` and others;
    /// [`ClientError::OutcomeUnknown`] when it may still be created.
    pub async fn create_table(&self, table: NewTable) -> Result<v1::Table, ClientError> {
        let what = format!("creating table {}", quoted(&table.name));
        let request = definition(table, self.options().ids.next().to_string());
        let response = self
            .core
            .change(&what, request, |mut client, request| async move {
                client.create_table(request).await
            })
            .await?;
        // The caller's next operation must find the table.
        self.core.refresh_catalog().await?;
        Ok(response.table.unwrap_or_default())
    }

    /// Creates a table with the columns, options and rows of another one. Each region has the rows that its
    /// source region had at one point in time during the call. No file is copied. Returns when the new table
    /// accepts writes.
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
        let what = format!("cloning table {}", quoted(name));
        let response = self
            .core
            .change(&what, request, |mut client, request| async move {
                client.clone_table(request).await
            })
            .await?;
        self.core.refresh_catalog().await?;
        Ok(response.table.unwrap_or_default())
    }

    /// Changes the columns or options of a table; returns when all its regions have applied the change.
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
            compaction_window_ms: change
                .compaction_window
                .map(|window| window.map(milliseconds).unwrap_or_default()),
            by_node: change.by_node,
            explicit_since: false,
        };
        let what = format!("altering table {}", quoted(name));
        let response = self
            .core
            .change(&what, request, |mut client, request| async move {
                client.alter_table(request).await
            })
            .await?;
        self.core.refresh_catalog().await?;
        Ok(response.table.unwrap_or_default())
    }

    /// Deletes all rows of a table; returns the table's id.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `TableBusy` and others.
    pub async fn truncate_table(&self, name: &str) -> Result<TableId, ClientError> {
        let request = v1::TruncateTableRequest {
            request_id: self.options().ids.next().to_string(),
            name: name.to_owned(),
        };
        let what = format!("truncating table {}", quoted(name));
        let response = self
            .core
            .change(&what, request, |mut client, request| async move {
                client.truncate_table(request).await
            })
            .await?;
        Ok(TableId(response.table_id))
    }

    /// Drops a table. Its name is free, and it can no longer be written. A held table keeps its rows until its last hold ends.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TableNotFound`, `Held` if the table is exported or has read capabilities, `TableBusy` while
    /// a held table is being changed, and others; [`ClientError::OutcomeUnknown`] when it may still be dropped.
    pub async fn drop_table(&self, name: &str) -> Result<DroppedTable, ClientError> {
        let request = v1::DropTableRequest {
            request_id: self.options().ids.next().to_string(),
            name: name.to_owned(),
            table_id: 0,
        };
        let what = format!("dropping table {}", quoted(name));
        let response = self
            .core
            .change(&what, request, |mut client, request| async move {
                client.drop_table(request).await
            })
            .await?;
        self.core.refresh_catalog().await?;
        Ok(response.into())
    }
}

/// A table that was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedTable {
    /// Id of the table.
    pub table: TableId,
    /// Holds keep its rows; `None`: they are removed.
    pub kept: Option<KeptRows>,
}

/// Rows of a dropped table that holds keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRows {
    /// Name under which they can be read at held epochs.
    pub name: String,
    /// Hold at the oldest epoch.
    pub hold: String,
    /// Number of holds.
    pub holds: u32,
}

impl From<v1::DropTableResponse> for DroppedTable {
    fn from(response: v1::DropTableResponse) -> Self {
        let v1::DropTableResponse { table_id, kept_by, holds, kept_as, .. } = response;
        let kept = KeptRows { name: kept_as, hold: kept_by, holds };
        Self { table: TableId(table_id), kept: (holds > 0).then_some(kept) }
    }
}
