//! Calls to the meta leader without a catalog: they cost their caller nothing but the call.
//!
//! The client library fetches the whole catalog after each table that it creates.

use std::time::Duration;

use parking_lot::Mutex;
use tidewater_proto::v1::admin_client::AdminClient;
use tidewater_proto::v1::hook_admin_client::HookAdminClient;
use tidewater_proto::v1::meta_client::MetaClient;
use tidewater_proto::v1::{
    AddHookRequest, AlterTableRequest, BenchCommandRequest, CatalogSnapshot, ClusterStatusRequest,
    ClusterStatusResponse, ColumnChange, CreateTableRequest, GetCatalogChangesRequest,
    GetCatalogRequest, NewColumn, RemoveHookRequest, WriteMode, column_change,
};
use tidewater_rpc::{Channels, ConnectPolicy, FailedAttempt, MESSAGE_BYTES, attempt, timed};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};
use uuid::Uuid;

use super::heads::{self, SnapshotHead};
use super::meta_search::MetaSearch;
use crate::{HarnessError, Result};

/// Timeout of an attempt to change the catalog, as in the client library.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of an attempt to read: short, since a killed leader does not answer.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait between attempts, unless a leader is named.
const RETRY_DELAY: Duration = Duration::from_millis(20);
/// Limit of a call with all its attempts.
const CALL_WITHIN: Duration = Duration::from_secs(120);

/// Caller of the meta leader. All calls share one connection to each meta node.
#[derive(Debug)]
pub struct MetaCalls {
    channels: Channels,
    search: Mutex<MetaSearch>,
}

impl MetaCalls {
    /// Creates a caller of these meta nodes.
    pub fn new(metas: &[String]) -> Self {
        Self {
            channels: Channels::new(ConnectPolicy::CLIENT),
            search: Mutex::new(MetaSearch::new(metas, 0)),
        }
    }

    /// Position of the leader's catalog. The whole catalog is sent, and not decoded.
    ///
    /// # Errors
    /// If no leader answers in time.
    pub async fn head(&self) -> Result<SnapshotHead> {
        self.call("catalog position", READ_TIMEOUT, |channel| async move {
            heads::get_catalog(channel, timed(GetCatalogRequest {}, READ_TIMEOUT)).await
        })
        .await
    }

    /// Revision of the leader's catalog, linearizably. The catalog is not sent.
    ///
    /// # Errors
    /// If no leader answers in time.
    pub async fn revision(&self) -> Result<u64> {
        self.call("catalog revision", READ_TIMEOUT, |channel| async move {
            // Changes since no revision: there are none.
            let request = timed(GetCatalogChangesRequest::default(), READ_TIMEOUT);
            MetaClient::new(channel).get_catalog_changes(request).await
        })
        .await
        .map(|changes| changes.revision)
    }

    /// The leader's catalog.
    ///
    /// # Errors
    /// If no leader answers in time.
    pub async fn catalog(&self) -> Result<CatalogSnapshot> {
        self.call("catalog", CHANGE_TIMEOUT, |channel| async move {
            let mut client = MetaClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
            client.get_catalog(timed(GetCatalogRequest {}, CHANGE_TIMEOUT)).await
        })
        .await
    }

    /// Status of the cluster.
    ///
    /// # Errors
    /// If no leader answers in time.
    pub async fn status(&self) -> Result<ClusterStatusResponse> {
        self.call("cluster status", READ_TIMEOUT, |channel| async move {
            let mut client = AdminClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
            client.cluster_status(timed(ClusterStatusRequest {}, READ_TIMEOUT)).await
        })
        .await
    }

    /// Proposes a catalog command without effect.
    ///
    /// # Errors
    /// If it is not committed in time.
    pub async fn command(&self) -> Result<()> {
        self.call("catalog command", READ_TIMEOUT, |channel| async move {
            let request = timed(BenchCommandRequest::default(), READ_TIMEOUT);
            AdminClient::new(channel).bench_command(request).await
        })
        .await
        .map(drop)
    }

    /// Creates a table (writer int64, serial int64, note utf8) with hashed regions.
    ///
    /// # Errors
    /// If it is not created in time.
    pub async fn create_table(&self, name: &str, regions: u32) -> Result<()> {
        let column = |name: &str, data_type: &str| NewColumn {
            name: name.to_owned(),
            r#type: data_type.to_owned(),
            ..Default::default()
        };
        let key = vec!["writer".to_owned(), "serial".to_owned()];
        let request = CreateTableRequest {
            request_id: Uuid::new_v4().to_string(),
            name: name.to_owned(),
            columns: vec![
                column("writer", "int64"),
                column("serial", "int64"),
                column("note", "utf8"),
            ],
            hash_columns: if regions > 1 { key.clone() } else { Vec::new() },
            primary_key: key,
            write_mode: WriteMode::AppendOnly.into(),
            regions,
            ..CreateTableRequest::default()
        };
        self.call(&format!("create table {name}"), CHANGE_TIMEOUT, |channel| {
            let request = timed(request.clone(), CHANGE_TIMEOUT);
            async move { AdminClient::new(channel).create_table(request).await }
        })
        .await
        .map(drop)
    }

    /// Adds a column to a table.
    ///
    /// # Errors
    /// If it is not added in time.
    pub async fn add_column(&self, table: &str, column: &str) -> Result<()> {
        let added = NewColumn {
            name: column.to_owned(),
            r#type: "int64".to_owned(),
            nullable: true,
            ..Default::default()
        };
        let change = column_change::Change::Add(added);
        let request = AlterTableRequest {
            request_id: Uuid::new_v4().to_string(),
            name: table.to_owned(),
            columns: vec![ColumnChange { change: Some(change) }],
            ..AlterTableRequest::default()
        };
        self.call(&format!("alter table {table}"), CHANGE_TIMEOUT, |channel| {
            let request = timed(request.clone(), CHANGE_TIMEOUT);
            async move { AdminClient::new(channel).alter_table(request).await }
        })
        .await
        .map(drop)
    }

    /// Adds a durable hook of kind `jsonl` on all tables.
    ///
    /// # Errors
    /// If it is not added in time.
    pub async fn add_durable_hook(&self, name: &str, path: &str) -> Result<()> {
        let request = AddHookRequest {
            request_id: Uuid::new_v4().to_string(),
            name: name.to_owned(),
            kind: "jsonl".to_owned(),
            config: serde_json::json!({ "path": path }).to_string(),
            durable: true,
            ..AddHookRequest::default()
        };
        self.call(&format!("add hook {name}"), CHANGE_TIMEOUT, |channel| {
            let request = timed(request.clone(), CHANGE_TIMEOUT);
            async move { HookAdminClient::new(channel).add_hook(request).await }
        })
        .await
        .map(drop)
    }

    /// Removes a hook.
    ///
    /// # Errors
    /// If it is not removed in time.
    pub async fn remove_hook(&self, name: &str) -> Result<()> {
        let request_id = Uuid::new_v4().to_string();
        let request = RemoveHookRequest { request_id, name: name.to_owned() };
        self.call(&format!("remove hook {name}"), CHANGE_TIMEOUT, |channel| {
            let request = timed(request.clone(), CHANGE_TIMEOUT);
            async move { HookAdminClient::new(channel).remove_hook(request).await }
        })
        .await
        .map(drop)
    }

    /// Calls the leader until a call succeeds. Every call is idempotent, by its request id or as a read.
    async fn call<T, F>(
        &self,
        what: &str,
        limit: Duration,
        call: impl Fn(Channel) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + CALL_WITHIN;
        loop {
            let address = self.search.lock().next();
            let answer = match self.channels.to(&address) {
                Ok(channel) => attempt(&address, limit, call(channel)).await,
                Err(refusal) => Err(FailedAttempt::not_sent(refusal)),
            };
            let failure = match answer {
                Ok(answer) => {
                    self.search.lock().record_success(&address);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let is_final = !failure.silent && !may_succeed_later(&failure);
            if is_final || Instant::now() >= deadline {
                return Err(HarnessError::Refused {
                    what: what.to_owned(),
                    refusal: failure.refusal,
                });
            }
            let named = failure.refusal.leader.as_ref().map(|leader| leader.address.as_str());
            if !self.search.lock().record_failure(&address, named) {
                tokio::time::sleep(failure.refusal.retry_after.unwrap_or(RETRY_DELAY)).await;
            }
        }
    }
}

/// Returns whether the answer of a node lets a repeated call succeed.
fn may_succeed_later(failure: &FailedAttempt) -> bool {
    use tidewater_common::reason::RetryAction;
    !matches!(failure.retry_action(), RetryAction::Stop | RetryAction::NewProducer)
}
