//! Parameters of a scan.

use tidewater_common::keys::KeyRange;
use tidewater_proto::v1;

/// Table, columns, range, conditions and limit of a scan.
#[derive(Debug, Clone)]
pub struct ScanSpec {
    /// Name of the table.
    pub table: String,
    /// Columns in the order of the result; `None`: all.
    pub columns: Option<Vec<String>>,
    /// Range of row keys to read.
    pub range: KeyRange,
    /// Conditions that must all hold; see [`crate::predicate::parse`].
    pub predicates: Vec<v1::Predicate>,
    /// Maximum number of rows.
    pub limit: Option<u64>,
}

impl ScanSpec {
    /// Selects all rows and columns of a table.
    pub fn all(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            columns: None,
            range: KeyRange::whole(),
            predicates: Vec::new(),
            limit: None,
        }
    }
}
