//! Errors of commands on readable epochs: holds, policies, capabilities and exports.

use tidewater_collections::{CapabilityError, ChangeError, PolicyError};
use tidewater_common::ids::{Epoch, TableId};
use tidewater_common::quote::quoted;

/// Error of a rejected command; the state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectionCommandError {
    /// A hold keeps rows that the operation would take away.
    #[error(
        "table {table_text} is held by {hold_text} and cannot be {operation}: `tidewater hold release` releases it",
        table_text = quoted(.table),
        hold_text = quoted(.hold)
    )]
    Held {
        /// Name of the table.
        table: String,
        /// Name of its hold at the least epoch.
        hold: String,
        /// Past participle of the operation.
        operation: &'static str,
    },
    /// Capabilities keep rows that the operation would take away.
    #[error(
        "table {name} has read capabilities, which a program has set, and cannot be {operation}: the program takes them away \
         by UpdateReadCapabilities, or `tidewater collection capabilities --remove` if it has ended",
        name = quoted(.table)
    )]
    Capable {
        /// Name of the table.
        table: String,
        /// Past participle of the operation.
        operation: &'static str,
    },
    /// An export keeps rows that the operation would take away.
    #[error(
        "table {table_text} is exported by {export_text} and cannot be {operation}: `tidewater export drop` ends the export",
        table_text = quoted(.table),
        export_text = quoted(.export)
    )]
    Exported {
        /// Name of the table.
        table: String,
        /// Name of its export at the least epoch.
        export: String,
        /// Past participle of the operation.
        operation: &'static str,
    },
    /// No hold has this name.
    #[error("hold {name} does not exist: it was released, or its lease has expired", name = quoted(.0))]
    HoldNotFound(String),
    /// Another hold has this name.
    #[error("hold {name} already exists: release it, or use another name", name = quoted(.0))]
    HoldExists(String),
    /// A limit of the holds of a cluster is reached.
    #[error("the cluster has at most {limit} {of}: release holds that are not needed")]
    TooMany {
        /// Greatest number.
        limit: usize,
        /// Counted objects.
        of: &'static str,
    },
    /// The limit of ids that are handed out and not used is reached.
    #[error(
        "{0} ids were handed out and are not used: create collections with them, or drop those that are not needed by DropCollections"
    )]
    TooManyIds(usize),
    /// No export has this name.
    #[error("export {name} does not exist", name = quoted(.0))]
    ExportNotFound(String),
    /// Another export has this name.
    #[error("export {name} already exists: drop it, or use another name", name = quoted(.0))]
    ExportExists(String),
    /// The hold of a token does not exist.
    #[error(
        "token {token} is not valid: it was cancelled or used, or its lease has expired; prepare the export again",
        token = quoted(.0)
    )]
    ExportTokenExpired(String),
    /// The prefix is that of another export, or one of the two contains the other.
    #[error(
        "prefix {url_text} overlaps with that of export {export_text}: use another prefix",
        url_text = quoted(.url),
        export_text = quoted(.export)
    )]
    ExportPrefixInUse {
        /// URL of the prefix.
        url: String,
        /// Name of the other export.
        export: String,
    },
    /// The limit of the exports of a cluster is reached.
    #[error("the cluster has at most {0} exports: drop those that are not needed")]
    TooManyExports(usize),
    /// A field of a request that is out of range.
    #[error("{0}")]
    BadRequest(String),
    /// The epoch of a hold can no longer be read.
    #[error(
        "epoch {requested} of table {name} can no longer be read: it is below since {since} (upper is {upper})",
        name = quoted(.table)
    )]
    BelowSince {
        /// Name of the table.
        table: String,
        /// Epoch of the hold.
        requested: Epoch,
        /// Oldest readable epoch of the table.
        since: Epoch,
        /// Epoch of the last barrier.
        upper: Epoch,
    },
    /// The table has yet to be altered, so that its oldest readable epoch is its own.
    #[error("the oldest readable epoch of table {name} is not its own: retry", name = quoted(.0))]
    SinceNotOwn(String),
    /// The regions have to be asked for their oldest readable epoch.
    #[error("the oldest readable epoch of table {name} is not known: retry", name = quoted(.0))]
    SinceUnknown(String),
    /// The id of a collection was never handed out.
    #[error("id {0} was not handed out: AllocateIds hands out ids")]
    IdentifierMissing(TableId),
    /// The id, or the collection that had it, was dropped.
    #[error("id {0} was dropped and cannot be used again: AllocateIds hands out ids")]
    IdentifierInvalid(TableId),
    /// The collection with the id has another description.
    #[error("id {0} is that of a collection with another description")]
    IdReused(TableId),
    /// A table that is to be dropped since its read policy is empty has another one.
    #[error("the read policy of table {name} is not empty: drop the table by its name", name = quoted(.0))]
    PolicyNotEmpty(String),
    /// An invalid policy.
    #[error(transparent)]
    Policy(PolicyError),
    /// Changes of capabilities that cannot be joined.
    #[error(transparent)]
    Changes(ChangeError),
    /// A change of capabilities that is not possible.
    #[error("capabilities of table {name}: {error}", name = quoted(.table))]
    Capabilities {
        /// Name of the table.
        table: String,
        /// Cause.
        error: CapabilityError,
    },
}
