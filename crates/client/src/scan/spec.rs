//! What to read.

use tidewater_common::keys::KeyRange;
use tidewater_proto::v1;

/// What to read of a table.
#[derive(Debug, Clone)]
pub struct ScanSpec {
    /// Name of the table.
    pub table: String,
    /// Columns in the order wanted; `None`: all.
    pub columns: Option<Vec<String>>,
    /// Row keys to read.
    pub range: KeyRange,
    /// Conditions that must all hold; see [`crate::predicate::parse`].
    pub predicates: Vec<v1::Predicate>,
    /// Most rows.
    pub limit: Option<u64>,
}

impl ScanSpec {
    /// All rows and columns of a table.
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
