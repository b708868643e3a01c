//! The one error of this crate. *Failed* and *unknown* are different variants: a caller that retries
//! by hand may do so after the first only.

use std::fmt;
use std::time::Duration;

use tidewater_common::ids::{ClusterId, NodeId, RegionId};
use tidewater_common::keys::KeyError;
use tidewater_common::refusal::Refusal;
use tidewater_common::rows::RowsError;

use crate::catalog::CatalogError;
use crate::predicate::PredicateError;

/// Why an operation did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No meta node could be reached at all.
    #[error(
        "no meta node can be reached: {}; is the cluster running, and is --meta right?",
        Tried(tried)
    )]
    NoMetaReachable {
        /// Every address that was tried, and why it did not do.
        tried: Vec<(String, String)>,
    },
    /// The cluster answered with a definite no. Nothing was changed.
    #[error("{what}: {refusal}")]
    Refused {
        /// What was attempted on what.
        what: String,
        /// The answer.
        refusal: Box<Refusal>,
    },
    /// The operation kept being turned away until its deadline. Nothing was changed.
    #[error("{what}: gave up after {attempts} attempts in {elapsed:?}: {cause}")]
    RetriesExhausted {
        /// What was attempted on what.
        what: String,
        /// Attempts made.
        attempts: u32,
        /// Time spent.
        elapsed: Duration,
        /// The last answer.
        cause: Box<Refusal>,
    },
    /// It was still under way at its deadline. Nothing was changed.
    #[error("{what}: not done within {limit:?}: give it more time (--timeout)")]
    TimedOut {
        /// What was attempted on what.
        what: String,
        /// The time that it was given.
        limit: Duration,
    },
    /// It may have taken effect, or may still do so.
    #[error("{what}: the outcome is unknown after {attempts} attempts in {elapsed:?}: {cause}")]
    OutcomeUnknown {
        /// What was attempted on what.
        what: String,
        /// Attempts made.
        attempts: u32,
        /// Time spent.
        elapsed: Duration,
        /// The last answer.
        cause: Box<Refusal>,
    },
    /// No row of a write has taken effect, and none will.
    #[error("table {table:?}: {rows} rows were not written: {cause}")]
    Failed {
        /// The table.
        table: String,
        /// Rows that were to be written.
        rows: u64,
        /// The last answer for the first part that failed.
        cause: Box<Refusal>,
    },
    /// Some rows of a write may have taken effect, or may still do so.
    #[error(
        "table {table:?}: it is unknown whether {unknown} rows were written \
         ({acknowledged} were, {failed} were not): {cause}"
    )]
    Unknown {
        /// The table.
        table: String,
        /// Rows that were written for certain.
        acknowledged: u64,
        /// Rows that were not written for certain.
        failed: u64,
        /// Rows in doubt.
        unknown: u64,
        /// The last answer for the first part in doubt.
        cause: Box<Refusal>,
    },
    /// Some rows of a write were written, the others were not; none is in doubt.
    #[error("table {table:?}: {acknowledged} rows were written and {failed} were not: {cause}")]
    Partial {
        /// The table.
        table: String,
        /// Rows that were written.
        acknowledged: u64,
        /// Rows that were not.
        failed: u64,
        /// The last answer for the first part that failed.
        cause: Box<Refusal>,
    },
    /// No such table.
    #[error("there is no table {0:?}; `tidewater table list` shows those that exist")]
    TableNotFound(String),
    /// The table has no such column.
    #[error("table {table:?} has no column {column:?}; its columns are {}", .columns.join(", "))]
    ColumnNotFound {
        /// The table.
        table: String,
        /// The column asked for.
        column: String,
        /// The columns that there are.
        columns: Vec<String>,
    },
    /// Some key of the range has no route. It heals by itself while a table is being made.
    #[error("table {0:?} has no route for some of its keys yet; is it still being created?")]
    NoRoute(String),
    /// No such region.
    #[error("there is no region {0}; `tidewater region list` shows those that exist")]
    RegionNotFound(RegionId),
    /// No such node.
    #[error("there is no node {0}; `tidewater node list` shows those that exist")]
    NodeNotFound(NodeId),
    /// Rows, keys or settings that cannot be used.
    #[error("{0}")]
    BadInput(String),
    /// A condition that cannot be used.
    #[error(transparent)]
    Predicate(#[from] PredicateError),
    /// Rows whose keys cannot be built.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A scan ended after it had yielded rows. What was yielded is not the whole: start over.
    #[error(
        "the scan of table {table:?} was cut off in region {region} after {rows} rows, \
         which are not the whole: {cause}"
    )]
    ScanInterrupted {
        /// The table.
        table: String,
        /// Where it ended.
        region: RegionId,
        /// Rows yielded before.
        rows: u64,
        /// Why.
        cause: Box<Refusal>,
    },
    /// Rows that were received cannot be read.
    #[error("{what}: rows were received that cannot be read: {source}")]
    Damaged {
        /// What was attempted on what.
        what: String,
        /// What is wrong with them.
        source: RowsError,
    },
    /// The addresses now belong to another cluster.
    #[error("the addresses given now lead to cluster {is}, no longer to cluster {was}")]
    OtherCluster {
        /// To which the client connected.
        was: ClusterId,
        /// Which answers now.
        is: ClusterId,
    },
    /// A catalog that cannot be used.
    #[error("the catalog cannot be used: {0}")]
    Catalog(#[from] CatalogError),
    /// The task behind a writer or a scan is gone, and with it what it had not told yet.
    #[error("the task that works on table {0:?} has ended early")]
    Closed(String),
}

struct Tried<'a>(&'a [(String, String)]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no address was given");
        }
        for (index, (address, why)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {why}")?;
        }
        Ok(())
    }
}

impl ClientError {
    /// What the cluster answered, where it did.
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
            | Self::OtherCluster { .. }
            | Self::Catalog(_)
            | Self::Closed(_) => None,
        }
    }

    /// Whether the operation may have taken effect although it did not succeed.
    #[must_use]
    pub fn maybe_done(&self) -> bool {
        // No wildcard: a new variant compiles only once somebody has decided.
        match self {
            Self::OutcomeUnknown { .. } | Self::Unknown { .. } | Self::Partial { .. } => true,
            // The rows that were handed in before are spoken for by their own results.
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
            | Self::OtherCluster { .. }
            | Self::Catalog(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_tried_is_named() {
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
