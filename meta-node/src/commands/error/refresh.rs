//! Errors of commands on refreshable tables.

use tidewater_common::ids::{Epoch, Generation, SourceId};
use tidewater_common::quote::quoted;

/// Error of a rejected command; the state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshCommandError {
    /// The table is written by clients.
    #[error("table {name} is not refreshable: `tidewater refresh create` creates one", name = quoted(.0))]
    NotRefreshable(String),
    /// The table is written by refreshes.
    #[error(
        "table {name} is refreshable and cannot be {operation}: change its source, then `tidewater refresh start`",
        name = quoted(.table)
    )]
    Refreshable {
        /// Name of the table.
        table: String,
        /// Past participle of the operation.
        operation: &'static str,
    },
    /// A refresh of the table is in progress.
    #[error("refresh {generation} of table {name} is in progress", name = quoted(.table))]
    AlreadyRefreshing {
        /// Name of the table.
        table: String,
        /// The refresh in progress.
        generation: Generation,
    },
    /// The request names another source.
    #[error("table {name} has source {expected}, not {named}", name = quoted(.table))]
    SourceMismatch {
        /// Name of the table.
        table: String,
        /// Source of the table.
        expected: SourceId,
        /// Source of the request.
        named: SourceId,
    },
    /// The refreshes of the table are paused.
    #[error("the refreshes of table {name} are paused: `tidewater refresh resume` permits them again", name = quoted(.0))]
    Paused(String),
    /// The source is empty, or much smaller than before.
    #[error(
        "the source has {rows} rows, less than {percent} % of the {before} rows of the last refresh: check the source, then \
         `tidewater refresh start --force`"
    )]
    SourceShrunk {
        /// Rows of the source.
        rows: u64,
        /// Rows at the last published refresh.
        before: u64,
        /// Least share, in percent.
        percent: u32,
    },
    /// Readers have seen the table as of the epoch of a publication.
    #[error("table {name} is complete at epoch {complete}, and cannot be published at {epoch}: the leader chooses a later epoch", name = quoted(.table))]
    EpochComplete {
        /// Name of the table.
        table: String,
        /// Epoch of the publication.
        epoch: Epoch,
        /// Complete epoch of the table.
        complete: Epoch,
    },
    /// A setting that is out of range.
    #[error("{0}")]
    BadSetting(&'static str),
}
