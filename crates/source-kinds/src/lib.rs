//! Sources of refreshable tables, by kind.
//!
//! - **Source kind**: a way to read rows from outside, by name. It lives as long as the process, which registers
//!   the built-in kinds and its own.
//! - **Source**: an opened configuration of a kind. It lives during one step of a refresh.
//! - **Listing**: the content of a source at one point, pinned, as splits. A refresh lists its source once.
//! - **Split**: a part of a listing that one data node reads. It is repeated from its begin after a failure.
//!
//! Passwords and keys are in files on the nodes that read a source, never in its configuration.

mod access;
mod error;
mod kinds;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use serde_json::Value;
use tidewater_common::keys::KeyCodec;
use tidewater_common::schema::TableSchema;
use tokio::sync::mpsc;

pub use self::access::SourceAccess;
pub use self::error::{SourceError, SourceSetupError};
pub use self::kinds::SourceKinds;

/// Maximum number of splits of a listing.
pub const MAX_SPLITS: usize = 10_000;

/// Maximum length of the pinned state of a split, in bytes.
pub const MAX_PIN_BYTES: usize = 4_096;

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
    /// What pins the content, in a form that its kind knows, at most [`MAX_PIN_BYTES`].
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
