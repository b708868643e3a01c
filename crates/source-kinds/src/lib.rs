//! Sources of refreshable tables, by kind, and targets of exports.
//!
//! - **Source kind**: a way to read rows from outside, by name. It lives as long as the process, which registers
//!   the built-in kinds and its own.
//! - **Source**: an opened configuration of a kind. It lives during one step of a refresh.
//! - **Listing**: the content of a source at one point, pinned, as splits. A refresh lists its source once.
//! - **Split**: a part of a listing that one data node reads. It is repeated from its begin after a failure.
//! - **Target**: directory or prefix below which an export writes objects ([`ExportTargets`]).
//!
//! Passwords and keys are in files on the nodes that use a source or a target, never in its configuration. Each is used
//! only for the servers that its file names.
//!
//! # Layout
//!
//! - `objects`: the kinds `parquet`, `csv` and `ndjson`: objects below a prefix.
//! - `postgres`: the result of a query.
//! - `targets`: targets of exports, in local directories and S3.
//! - `access`: files and hosts that the operator of a node grants to sources. `hosts`: hosts and their addresses.
//!   `config`: parser of configurations.
//! - `kinds`: the registry of kinds. `error`: errors of sources.

mod access;
mod config;
mod error;
mod hosts;
mod kinds;
mod objects;
mod postgres;
mod targets;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use serde_json::Value;
use tidewater_common::keys::KeyCodec;
use tidewater_common::schema::TableSchema;
use tokio::sync::mpsc;

pub use self::access::SourceAccess;
pub use self::error::{SourceError, SourceSetupError};
pub use self::hosts::{SourceHost, SourceHostError, SourceHosts};
pub use self::kinds::SourceKinds;
use self::objects::Objects;
use self::postgres::Postgres;
#[doc(hidden)]
pub use self::targets::testing;
pub use self::targets::{ExportTargets, ObjectWriter, Target, TargetError};

/// Maximum number of splits of a listing.
pub const MAX_SPLITS: usize = 10_000;

/// Maximum length of the pinned state of a split, in bytes.
pub const MAX_PIN_BYTES: usize = 4_096;

/// Returns the registry with the built-in kinds, whose sources read what `access` permits. Checks of a
/// configuration do not depend on it. `spool_dir`: directory of temporary files, which have no names; a read
/// of a remote object needs as much space as the object, in addition to the bytes that `access` leaves free.
pub fn builtin(access: SourceAccess, spool_dir: PathBuf) -> SourceKinds {
    let mut kinds = SourceKinds::default();
    for objects in Objects::all(&access, &spool_dir) {
        // The names of built-in kinds differ, so none is rejected.
        let _ = kinds.register(Arc::new(objects));
    }
    let _ = kinds.register(Arc::new(Postgres { access }));
    kinds
}

/// The table that a source is read for.
#[derive(Debug, Clone)]
pub struct SourceTable {
    /// Columns and keys of the table.
    pub schema: Arc<TableSchema>,
    /// Codec of its keys.
    pub codec: KeyCodec,
}

/// Content of a source at one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The pinned point, for people: `3 objects, 12.4 MiB` or the snapshot of a transaction.
    pub snapshot: String,
    /// Parts to read, at most [`MAX_SPLITS`]. A source without content has none.
    pub splits: Vec<Split>,
}

/// Part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Name for people: that of an object, or `query`.
    pub name: String,
    /// Pinned state of the content, in a form that its kind knows, at most [`MAX_PIN_BYTES`].
    pub pin: BTreeMap<String, String>,
    /// Size of the stored content in bytes; 0 if unknown.
    pub bytes: u64,
}

/// Rows of a split, as batches of the table's schema, in any order.
pub type RowSender = mpsc::Sender<RecordBatch>;

/// A way to read rows from outside.
#[async_trait]
pub trait SourceKind: Send + Sync {
    /// Name of the kind, at most 64 characters.
    fn kind(&self) -> &'static str;

    /// Checks a configuration. No I/O; an error describes the problem for the user.
    ///
    /// # Errors
    /// The text of the problem.
    fn check(&self, config: &Value) -> Result<(), String>;

    /// Returns the server that a source reads from, as text without secrets: a node limits the loads that are open for
    /// one server. No I/O. Default: the name of the kind, as if all of its sources had one server.
    fn server(&self, _config: &Value) -> String {
        self.kind().to_owned()
    }

    /// Opens a source. Its configuration is checked.
    ///
    /// # Errors
    /// [`SourceError`].
    async fn open(
        &self,
        config: &Value,
        table: SourceTable,
    ) -> Result<Box<dyn Source>, SourceError>;
}

/// An opened source.
#[async_trait]
pub trait Source: Send + Sync {
    /// Lists the content and pins it.
    ///
    /// # Errors
    /// [`SourceError`].
    async fn list(&self) -> Result<Listing, SourceError>;

    /// Reads the rows of a split of an earlier listing, which another process may have made. Ends early without an error
    /// if the receiver is closed.
    ///
    /// # Errors
    /// [`SourceError::Changed`] if the pinned content no longer exists, and other [`SourceError`]s.
    async fn read(&self, split: &Split, rows: RowSender) -> Result<(), SourceError>;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(kind: &str, config: &Value) -> Result<(), String> {
        let kinds = builtin(SourceAccess::default(), PathBuf::from("/nowhere"));
        kinds.check(kind, config).map_err(|error| error.to_string())
    }

    #[test]
    fn valid_source_configurations_are_accepted() {
        for (kind, config) in [
            ("parquet", json!({ "url": "file:///srv/rows" })),
            ("csv", json!({ "url": "file:///srv/rows/", "delimiter": "tab", "nulls": ["NA"] })),
            ("ndjson", json!({ "url": "s3://bucket" })),
            ("parquet", json!({ "url": "s3://bucket/a/b", "region": "eu-central-1" })),
            ("parquet", json!({ "url": "s3://b/p", "endpoint": "https://127.0.0.1:9000" })),
            (
                "parquet",
                json!({ "url": "s3://b/p", "endpoint": "http://127.0.0.1:9000", "allow_http": true,
                        "credentials_file": "/etc/tidewater/keys" }),
            ),
            ("csv", json!({ "url": "gs://bucket/a" })),
            ("csv", json!({ "url": "gs://b", "endpoint": "http://h:1", "allow_http": true })),
            ("csv", json!({ "url": "az://container/a", "account": "store1" })),
            (
                "csv",
                json!({ "url": "az://c", "account": "store1",
                        "endpoint": "https://store1.blob.core.chinacloudapi.cn/" }),
            ),
        ] {
            check(kind, &config).unwrap_or_else(|error| panic!("{config}: {error}"));
        }
    }

    #[test]
    fn sources_of_one_server_have_one_name() {
        let kinds = builtin(SourceAccess::default(), PathBuf::from("/nowhere"));
        let endpoint = "https://h.example:9000/";
        let account = "store1";
        let postgres = |host: &str, port: u16, query: &str| json!({ "host": host, "port": port, "database": "d", "user": "u", "query": query });
        for (kind, config, expected) in [
            ("postgres", postgres("DB.example.org.", 5_432, "TABLE a"), "db.example.org:5432"),
            ("postgres", postgres("db.example.org", 5_432, "TABLE b"), "db.example.org:5432"),
            ("postgres", postgres("::1", 6_432, "TABLE a"), "[::1]:6432"),
            ("csv", json!({ "url": "s3://b/a", "endpoint": endpoint }), "https://h.example:9000"),
            ("ndjson", json!({ "url": "gs://c", "endpoint": endpoint }), "https://h.example:9000"),
            ("csv", json!({ "url": "s3://bucket/a" }), "s3://bucket"),
            ("csv", json!({ "url": "s3a://bucket/b" }), "s3://bucket"),
            ("csv", json!({ "url": "gs://bucket/b" }), "gs://bucket"),
            ("csv", json!({ "url": "az://container/b", "account": account }), "az://store1"),
            ("csv", json!({ "url": "file:///srv/rows/" }), "csv file:///srv/rows"),
            ("parquet", json!({ "url": "file:///srv/rows" }), "parquet file:///srv/rows"),
            // The error follows when the source is opened.
            ("csv", json!({}), "csv"),
            ("postgres", json!({}), "postgres"),
            ("unknown", json!({}), "unknown"),
        ] {
            assert_eq!(kinds.server(kind, &config), expected, "{kind} {config}");
        }
    }

    #[test]
    fn source_configuration_errors_name_the_problem() {
        let file = "file:///srv/rows";
        let many = vec!["x"; 101];
        for (kind, config, expected) in [
            ("files", json!({}), "unknown source kind \"files\"; known are csv, ndjson, parquet"),
            ("csv", json!([]), "configuration of a csv source: it must be a JSON object"),
            ("csv", json!({}), "missing field `url`"),
            ("csv", json!({ "url": file, "urls": "x" }), "unknown field `urls`"),
            ("csv", json!({ "url": "/srv/rows" }), "use file:///absolute/directory"),
            ("csv", json!({ "url": "file://srv/rows" }), "the directory must be absolute"),
            ("csv", json!({ "url": "file:///" }), "must not name the root directory"),
            ("csv", json!({ "url": "ftp://host/x" }), "unknown scheme \"ftp\""),
            ("csv", json!({ "url": "s3:///x" }), "names no bucket"),
            ("csv", json!({ "url": "s3://b/x?sig=s3cr3t" }), "must not have a query"),
            ("csv", json!({ "url": "s3://id:s3cr3t@b/x" }), "must not have a password: use cred"),
            ("csv", json!({ "url": file, "region": "x" }), "are for s3:// only"),
            ("csv", json!({ "url": file, "endpoint": "https://h" }), "are not for file://"),
            ("csv", json!({ "url": file, "allow_http": true }), "are not for file://"),
            ("csv", json!({ "url": file, "account": "store1" }), "account is for az:// only"),
            ("csv", json!({ "url": "gs://b", "region": "x" }), "are for s3:// only"),
            ("csv", json!({ "url": "gs://b", "credentials_file": "/k" }), "are for s3:// only"),
            ("csv", json!({ "url": "s3://b", "account": "store1" }), "account is for az:// only"),
            ("csv", json!({ "url": "s3://b", "region": "x.h/?" }), "region must have 1 to 64"),
            ("csv", json!({ "url": "az://c" }), "set account to the name of the storage account"),
            ("csv", json!({ "url": "az://c", "account": "h.org/" }), "account must have 3 to 24"),
            ("csv", json!({ "url": "az://c.d", "account": "store1" }), "names no container"),
            ("csv", json!({ "url": "s3://b", "endpoint": "http://h" }), "set allow_http to true"),
            ("csv", json!({ "url": "s3://b", "endpoint": "h:1" }), "endpoint must be https://"),
            ("csv", json!({ "url": "s3://b", "endpoint": "https://i:s3cr3t@h" }), "a password"),
            ("csv", json!({ "url": "s3://b", "credentials_file": "k" }), "must be absolute"),
            ("csv", json!({ "url": "s3://b", "secret_access_key": "s3cr3t" }), "is not permitted"),
            ("csv", json!({ "url": file, "delimiter": "ab" }), "delimiter \"ab\": expected one"),
            ("csv", json!({ "url": file, "nulls": many }), "nulls has 101 texts"),
            ("parquet", json!({ "url": file, "delimiter": ";" }), "are for csv sources only"),
            ("ndjson", json!({ "url": file, "nulls": ["NA"] }), "are for csv sources only"),
        ] {
            let error = check(kind, &config).expect_err(&config.to_string());
            assert!(error.contains(expected), "{config}: {error}");
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }
}
