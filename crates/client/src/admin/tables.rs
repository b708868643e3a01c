//! Tables: create, drop.

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

/// A table to be made.
#[derive(Debug, Clone)]
pub struct NewTable {
    /// Its name.
    pub name: String,
    /// Name, type in canonical text, nullable.
    pub columns: Vec<(String, String, bool)>,
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
            columns: table
                .columns
                .into_iter()
                .map(|(name, r#type, nullable)| v1::NewColumn { name, r#type, nullable })
                .collect(),
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
        self.core.refreshed().await?;
        Ok(answer.table.unwrap_or_default())
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
        self.core.refreshed().await?;
        Ok(TableId(answer.table_id))
    }
}
