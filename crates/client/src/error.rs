//! Error type of this crate. *Failed* and *unknown* are different variants: a caller may retry on its own
//! only after the first.

use std::fmt;
use std::time::Duration;

use tidewater_common::ids::{ClusterId, NodeId, RegionId};
use tidewater_common::keys::KeyError;
use tidewater_common::quote::quoted;
use tidewater_common::refusal::Refusal;
use tidewater_common::rows::RowsError;
use tidewater_proto::v1::Reason;

use crate::catalog::{CatalogError, EpochNotPublished};
use crate::predicate::PredicateError;
use crate::suggestion::hint;

/// Number of attempts in a message.
struct Attempts(u32);

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 attempt"),
            number => write!(f, "{number} attempts"),
        }
    }
}

/// Error of an operation of the client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No meta node could be reached.
    #[error(
        "cannot reach any meta node: {}; check that the cluster is running and that --meta is correct",
        Tried(tried)
    )]
    NoMetaReachable {
        /// Addresses that were tried, each with its last error.
        tried: Vec<(String, String)>,
    },
    /// A node answered with a definite error. The operation had no effect.
    #[error("{what}: {refusal}")]
    Refused {
        /// Operation and its object.
        what: String,
        /// Error of the node.
        refusal: Box<Refusal>,
    },
    /// All attempts failed until the limits of the operation. The operation had no effect.
    #[error("{what}: failed after {} in {elapsed:?}: {cause}", Attempts(*attempts))]
    RetriesExhausted {
        /// Operation and its object.
        what: String,
        /// Number of attempts.
        attempts: u32,
        /// Time since the start of the operation.
        elapsed: Duration,
        /// Error of the last attempt.
        cause: Box<Refusal>,
    },
    /// The operation was in progress at its deadline. It had no effect.
    #[error("{what}: timed out after {limit:?}; increase --timeout")]
    TimedOut {
        /// Operation and its object.
        what: String,
        /// Deadline, from the start of the operation.
        limit: Duration,
    },
    /// The operation may have taken effect, or may still do so.
    #[error("{what}: outcome unknown after {} in {elapsed:?}: {cause}", Attempts(*attempts))]
    OutcomeUnknown {
        /// Operation and its object.
        what: String,
        /// Number of attempts.
        attempts: u32,
        /// Time since the start of the operation.
        elapsed: Duration,
        /// Error of the last attempt.
        cause: Box<Refusal>,
    },
    /// No row of a write has taken effect, and none will.
    #[error("table {table:?}: {rows} rows were not written: {cause}")]
    Failed {
        /// Name of the table.
        table: String,
        /// Number of rows of the write.
        rows: u64,
        /// Last error of the first piece that failed.
        cause: Box<Refusal>,
    },
    /// Some rows of a write may have taken effect, or may still do so.
    #[error(
        "table {table:?}: the outcome of {unknown} rows is unknown \
         ({acknowledged} rows written, {failed} rows not written): {cause}"
    )]
    Unknown {
        /// Name of the table.
        table: String,
        /// Number of rows that took effect.
        acknowledged: u64,
        /// Number of rows that have not taken effect and never will.
        failed: u64,
        /// Number of rows with unknown outcome.
        unknown: u64,
        /// Last error of the first piece that was not acknowledged.
        cause: Box<Refusal>,
    },
    /// Some rows of a write took effect, and the others never will.
    #[error("table {table:?}: {acknowledged} rows were written, {failed} rows were not: {cause}")]
    Partial {
        /// Name of the table.
        table: String,
        /// Number of rows that took effect.
        acknowledged: u64,
        /// Number of rows that have not taken effect and never will.
        failed: u64,
        /// Last error of the first piece that failed.
        cause: Box<Refusal>,
    },
    /// The table does not exist.
    #[error("there is no table {name}; `tidewater table list` shows those that exist", name = quoted(.0))]
    TableNotFound(String),
    /// The owner of a region did not report.
    #[error("the regions of table {table} are not all reported: {reason}; `tidewater cluster status` shows the cause", table = quoted(.table))]
    RegionsUnreported {
        /// Name of the table.
        table: String,
        /// First region without a report, and the reason.
        reason: String,
    },
    /// The table has no such column.
    #[error(
        "table {table:?} has no column {column:?}{}; its columns are {}",
        hint(column, columns),
        .columns.join(", ")
    )]
    ColumnNotFound {
        /// Name of the table.
        table: String,
        /// Name of the requested column.
        column: String,
        /// Names of the table's columns.
        columns: Vec<String>,
    },
    /// A key has no route. Temporary while a table is being created.
    #[error("table {0:?} has no route for some of its keys yet; is it still being created?")]
    NoRoute(String),
    /// The region does not exist.
    #[error("there is no region {0}; `tidewater region list` shows those that exist")]
    RegionNotFound(RegionId),
    /// The node does not exist.
    #[error("there is no node {0}; `tidewater node list` shows those that exist")]
    NodeNotFound(NodeId),
    /// Rows, keys or options are invalid.
    #[error("{0}")]
    BadInput(String),
    /// An epoch at which a refreshable table is not read.
    #[error(transparent)]
    Epoch(#[from] EpochNotPublished),
    /// A predicate is invalid.
    #[error(transparent)]
    Predicate(#[from] PredicateError),
    /// The keys of rows cannot be built.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A scan ended after it had yielded rows. The result is incomplete: scan again.
    #[error(
        "scan of table {table:?} was interrupted in region {region} after {rows} rows; \
         the result is incomplete: {cause}"
    )]
    ScanInterrupted {
        /// Name of the table.
        table: String,
        /// Region in which the scan ended.
        region: RegionId,
        /// Number of rows yielded before.
        rows: u64,
        /// Error of the last attempt.
        cause: Box<Refusal>,
    },
    /// Received rows cannot be decoded.
    #[error("{what}: received rows cannot be decoded: {source}")]
    Damaged {
        /// Operation and its object.
        what: String,
        /// Decoding error.
        source: RowsError,
    },
    /// The meta addresses now belong to another cluster.
    #[error("the meta addresses now belong to cluster {is}, not to cluster {was}")]
    OtherCluster {
        /// Id of the cluster that the client connected to.
        was: ClusterId,
        /// Id of the cluster that answers now.
        is: ClusterId,
    },
    /// The received catalog is invalid.
    #[error("invalid catalog: {0}")]
    Catalog(#[from] CatalogError),
    /// The task of a writer or scan ended unexpectedly; its unreported results are lost.
    #[error("the background task for table {0:?} ended unexpectedly")]
    Closed(String),
}

struct Tried<'a>(&'a [(String, String)]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no address was given");
        }
        for (index, (address, error)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {error}")?;
        }
        Ok(())
    }
}

impl ClientError {
    /// Returns the RPC error of the cluster, if there is one.
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
            | Self::RegionsUnreported { .. }
            | Self::RegionNotFound(_)
            | Self::NodeNotFound(_)
            | Self::BadInput(_)
            | Self::Epoch(_)
            | Self::Predicate(_)
            | Self::Key(_)
            | Self::Damaged { .. }
            | Self::OtherCluster { .. }
            | Self::Catalog(_)
            | Self::Closed(_) => None,
        }
    }

    /// Returns `true` if the region does not exist, or no longer: it may have been replaced by a split or merge.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let is_refused =
            self.refusal().is_some_and(|refusal| refusal.reason == Reason::RegionNotFound);
        is_refused || matches!(self, Self::RegionNotFound(_))
    }

    /// Returns `true` if the operation may have taken effect although it did not succeed.
    #[must_use]
    pub fn maybe_done(&self) -> bool {
        // No wildcard: a new variant compiles only after a decision.
        match self {
            Self::OutcomeUnknown { .. } | Self::Unknown { .. } | Self::Partial { .. } => true,
            // Rows of this call may have been sent. Earlier rows have their own results.
            Self::Closed(_) => true,
            Self::NoMetaReachable { .. }
            | Self::Refused { .. }
            | Self::RetriesExhausted { .. }
            | Self::TimedOut { .. }
            | Self::Failed { .. }
            | Self::TableNotFound(_)
            | Self::ColumnNotFound { .. }
            | Self::NoRoute(_)
            | Self::RegionsUnreported { .. }
            | Self::RegionNotFound(_)
            | Self::NodeNotFound(_)
            | Self::BadInput(_)
            | Self::Epoch(_)
            | Self::Predicate(_)
            | Self::Key(_)
            | Self::ScanInterrupted { .. }
            | Self::Damaged { .. }
            | Self::OtherCluster { .. }
            | Self::Catalog(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_every_address_that_was_tried() {
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
