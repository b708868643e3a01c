//! Parameters of a scan.

use tidewater_common::ids::Epoch;
use tidewater_common::keys::KeyRange;
use tidewater_proto::v1;

/// Parameters of a scan or count of one table.
#[derive(Debug, Clone)]
pub struct ScanSpec {
    /// Name of the table.
    pub table: String,
    /// Columns in output order; `None`: all columns.
    pub columns: Option<Vec<String>>,
    /// Range of row keys to read.
    pub range: KeyRange,
    /// Conditions that every returned row satisfies; see [`crate::predicate::parse`].
    pub predicates: Vec<v1::Predicate>,
    /// Maximum number of rows; `None`: unlimited.
    pub limit: Option<u64>,
    /// True if the rows may be in any order: time windows are then read one after the other instead
    /// of being merged. For aggregates.
    pub unordered: bool,
    /// Epoch whose rows are read, which must be complete; `None`: the newest rows. See
    /// [`Client::table_epochs`](crate::Client::table_epochs).
    pub as_of: Option<Epoch>,
}

impl ScanSpec {
    /// Returns a spec for all rows and columns of a table.
    pub fn all(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            columns: None,
            range: KeyRange::whole(),
            predicates: Vec::new(),
            limit: None,
            unordered: false,
            as_of: None,
        }
    }
}
