//! A table that one operator loads, truncates, alters and clones while faults happen, with a check of all rows
//! after each operation.
//!
//! Each operation that writes adds one *batch* of rows. The table is append-only, so that rows that are added twice
//! are visible. An operation with an unknown outcome may take effect at any later time: its batch may have any
//! number of rows from then on, but none twice, and none that a scan has returned disappears.

mod contents;
mod operator;
mod rows;

pub use self::operator::Operator;

/// Table of the batches: `(batch int64, number int64, note utf8)`, and columns that are added and dropped.
pub const BATCH_TABLE: &str = "batches";
