//! Errors of this crate. *Failed* and *unknown* are different variants: only after the former may a
//! caller retry by itself.

use std::fmt;
use std::time::Duration;

use tidewater_common::ids::{ClusterId, NodeId, RegionId};
use tidewater_common::keys::KeyError;
use tidewater_common::refusal::Refusal;
use tidewater_common::rows::RowsError;

use crate::catalog::CatalogError;
use crate::predicate::PredicateError;

/// Error of an operation.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No meta node could be reached.
    #[error(
        "no meta node can be reached: {}; is the cluster running, and is --meta right?",
        Tried(tried)
    )]
    NoMetaReachable {
        /// Every called address, with the reason of its failure.
        tried: Vec<(String, String)>,
    },
    /// The cluster rejected the operation. Nothing was changed.
    #[error("{what}: {refusal}")]
    Refused {
        /// Operation and its object.
        what: String,
        /// The RPC error.
        refusal: Box<Refusal>,
    },
    /// Every attempt was refused until the deadline. Nothing was changed.
    #[error("{what}: failed after {attempts} attempts in {elapsed:?}: {cause}")]
    RetriesExhausted {
        /// Operation and its object.
        what: String,
        /// Attempts made.
        attempts: u32,
        /// Time spent.
        elapsed: Duration,
        /// The last RPC error.
        cause: Box<Refusal>,
    },
    /// The operation was still in progress at its deadline. Nothing was changed.
    #[error("{what}: not completed within {limit:?}; raise the time limit (--timeout)")]
    TimedOut {
        /// Operation and its object.
        what: String,
        /// Time limit of the operation.
        limit: Duration,
    },
    /// The operation may have taken effect, or may still do so.
    #[error("{what}: the outcome is unknown after {attempts} attempts in {elapsed:?}: {cause}")]
    OutcomeUnknown {
        /// Operation and its object.
        what: String,
        /// Attempts made.
        attempts: u32,
        /// Time spent.
        elapsed: Duration,
        /// The last RPC error.
        cause: Box<Refusal>,
    },
    /// No row of a write has taken effect, and none will.
    #[error("table {table:?}: {rows} rows were not written: {cause}")]
    Failed {
        /// Name of the table.
        table: String,
        /// Rows of the write.
        rows: u64,
        /// The last RPC error of the first part that failed.
        cause: Box<Refusal>,
    },
    /// Some rows of a write may have taken effect, or may still do so.
    #[error(
        "table {table:?}: the outcome of {unknown} rows is unknown \
         ({acknowledged} were written, {failed} were not): {cause}"
    )]
    Unknown {
        /// Name of the table.
        table: String,
        /// Rows that were written.
        acknowledged: u64,
        /// Rows that were not written and never will be.
        failed: u64,
        /// Rows with an unknown outcome.
        unknown: u64,
        /// The last RPC error of the first part with an unknown outcome.
        cause: Box<Refusal>,
    },
    /// Some rows of a write were written, the others were not; no outcome is unknown.
    #[error("table {table:?}: {acknowledged} rows were written and {failed} were not: {cause}")]
    Partial {
        /// Name of the table.
        table: String,
        /// Rows that were written.
        acknowledged: u64,
        /// Rows that were not written.
        failed: u64,
        /// The last RPC error of the first part that failed.
        cause: Box<Refusal>,
    },
    /// The table does not exist.
    #[error("there is no table {0:?}; `tidewater table list` shows those that exist")]
    TableNotFound(String),
    /// The table does not have the column.
    #[error("table {table:?} has no column {column:?}; its columns are {}", .columns.join(", "))]
    ColumnNotFound {
        /// Name of the table.
        table: String,
        /// Name of the requested column.
        column: String,
        /// Names of the table's columns.
        columns: Vec<String>,
    },
    /// A key of the range has no route. This resolves itself while a table is being created.
    #[error("table {0:?} has no route for some of its keys yet; is it still being created?")]
    NoRoute(String),
    /// The region does not exist.
    #[error("there is no region {0}; `tidewater region list` shows those that exist")]
    RegionNotFound(RegionId),
    /// The node does not exist.
    #[error("there is no node {0}; `tidewater node list` shows those that exist")]
    NodeNotFound(NodeId),
    /// Invalid rows, keys or options.
    #[error("{0}")]
    BadInput(String),
    /// An invalid condition.
    #[error(transparent)]
    Predicate(#[from] PredicateError),
    /// Rows whose keys cannot be built.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A scan ended after it had yielded rows. The yielded rows are incomplete: start the scan again.
    #[error(
        "the scan of table {table:?} was interrupted in region {region} after {rows} rows; \
         the result is incomplete: {cause}"
    )]
    ScanInterrupted {
        /// Name of the table.
        table: String,
        /// Region in which the scan ended.
        region: RegionId,
        /// Rows yielded before.
        rows: u64,
        /// Cause of the interruption.
        cause: Box<Refusal>,
    },
    /// Received rows cannot be decoded.
    #[error("{what}: received rows that cannot be decoded: {source}")]
    Damaged {
        /// Operation and its object.
        what: String,
        /// Error of the decoder.
        source: RowsError,
    },
    /// The addresses now belong to another cluster.
    #[error("the configured addresses now belong to cluster {is}, no longer to cluster {was}")]
    ClusterChanged {
        /// Cluster to which the client connected.
        was: ClusterId,
        /// Cluster that responds now.
        is: ClusterId,
    },
    /// An invalid catalog.
    #[error("invalid catalog: {0}")]
    Catalog(#[from] CatalogError),
    /// The task of a writer or a scan ended, and its unreported results are lost.
    #[error("the background task for table {0:?} ended unexpectedly")]
    Closed(String),
}

struct Tried<'a>(&'a [(String, String)]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no address is configured");
        }
        for (index, (address, cause)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {cause}")?;
        }
        Ok(())
    }
}

impl ClientError {
    /// Returns the RPC error, if the cluster returned one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::RetriesExhausted { cause, .. }
            | Self::OutcomeUnknown { cause, .. }
            | Self::Failed { cause, .. }
            | Self::Unknown { cause, .. }
            | Self::Partial { cause, .. }
            | Self::ScanInterrupted { cause, .. } => Some(cause),
            Self::NoMetaReachable { .. }
            | Self::TimedOut { .. }
            | Self::TableNotFound(_)
            | Self::ColumnNotFound { .. }
            | Self::NoRoute(_)
            | Self::RegionNotFound(_)
            | Self::NodeNotFound(_)
            | Self::BadInput(_)
            | Self::Predicate(_)
            | Self::Key(_)
            | Self::Damaged { .. }
            | Self::ClusterChanged { .. }
            | Self::Catalog(_)
            | Self::Closed(_) => None,
        }
    }

    /// Returns whether the operation may have taken effect although it did not succeed.
    #[must_use]
    pub fn may_have_taken_effect(&self) -> bool {
        // No wildcard: a new variant does not compile until its answer is decided.
        match self {
            Self::OutcomeUnknown { .. } | Self::Unknown { .. } | Self::Partial { .. } => true,
            // Rows of earlier batches have results of their own.
            Self::Closed(_) => true,
            Self::NoMetaReachable { .. }
            | Self::Refused { .. }
            | Self::RetriesExhausted { .. }
            | Self::TimedOut { .. }
            | Self::Failed { .. }
            | Self::TableNotFound(_)
            | Self::ColumnNotFound { .. }
            | Self::NoRoute(_)
            | Self::RegionNotFound(_)
            | Self::NodeNotFound(_)
            | Self::BadInput(_)
            | Self::Predicate(_)
            | Self::Key(_)
            | Self::ScanInterrupted { .. }
            | Self::Damaged { .. }
            | Self::ClusterChanged { .. }
            | Self::Catalog(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreachable_meta_error_names_every_address() {
        let error = ClientError::NoMetaReachable {
            tried: vec![
                ("127.0.0.1:1".into(), "connection refused".into()),
                ("127.0.0.1:2".into(), "no answer within 2000 ms".into()),
            ],
        };
        let text = error.to_string();
        assert!(text.contains("127.0.0.1:1: connection refused; 127.0.0.1:2: no answer"), "{text}");
    }
}
