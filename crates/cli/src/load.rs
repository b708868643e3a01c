//! Reading files into batches of rows of a table, in bounded memory.
//!
//! # Layout
//!
//! - [`input`]: one thing to read (a file, or a member of a zip archive) and what format it has.
//! - [`bytes`]: opening it: decompression, checksums, a count of what was read.
//! - [`header`]: matching a file's columns with the table's, by name.
//! - [`csv`] (over [`records`]), [`ndjson`], [`parquet`] (over [`convert`]): the formats.
//! - [`bad_rows`]: how many bad rows are passed over.
//! - [`pipeline`]: all inputs in turn, read on a thread of their own.
//! - [`error`]: what can be wrong with a file, each with what to do.

pub(crate) mod bad_rows;
pub(crate) mod bytes;
pub(crate) mod convert;
pub(crate) mod csv;
pub(crate) mod error;
pub(crate) mod header;
pub(crate) mod input;
pub(crate) mod ndjson;
pub(crate) mod parquet;
pub(crate) mod pipeline;
pub(crate) mod records;

use std::sync::Arc;

use arrow::array::RecordBatch;
use tidewater_common::schema::TableSchema;

use self::bad_rows::BadRows;
use self::error::LoadError;

/// What all readers need to know.
#[derive(Debug, Clone)]
pub(crate) struct ReadOptions {
    pub(crate) table: Arc<TableSchema>,
    /// Texts that stand for a missing value, besides the empty one.
    pub(crate) nulls: Arc<[String]>,
    /// Rows of a batch; at least 1.
    pub(crate) batch_rows: usize,
}

/// An input that was opened and whose columns fit the table.
pub(crate) trait RowSource: Send {
    /// The next rows, at least one; `None` at the end.
    fn next_batch(&mut self, bad: &mut BadRows) -> Result<Option<RecordBatch>, LoadError>;
}
