//! Reader of input files: converts files into batches of table rows, in bounded memory.
//!
//! # Layout
//!
//! - [`input`]: an input, which is a file or a member of a zip archive, and its format.
//! - [`bytes`]: opens an input: decompression, checksums, count of bytes read.
//! - [`header`]: matches the columns of a file with those of the table, by name.
//! - [`csv`] (over [`records`] and [`dialect`]), [`ndjson`] (over [`lines`]), [`parquet`] (over
//!   [`convert`]): the formats.
//! - [`row_limits`]: sizes of rows and keys; [`row_numbers`]: lines of the rows of a batch.
//! - [`infer`]: infers the columns of a new table. [`verify`] (over [`keys`]): checks all rows and the
//!   uniqueness of their keys before the table is created.
//! - [`stdin`]: rows from standard input.
//! - [`bad_rows`]: limit of bad rows to skip.
//! - [`pipeline`]: reads all inputs in turn on a dedicated thread.
//! - [`error`]: errors of files and rows, each with a remedy.

pub(crate) mod bad_rows;
pub(crate) mod bytes;
pub(crate) mod convert;
pub(crate) mod csv;
pub(crate) mod dialect;
pub(crate) mod error;
pub(crate) mod header;
pub(crate) mod infer;
pub(crate) mod input;
pub(crate) mod keys;
pub(crate) mod lines;
pub(crate) mod ndjson;
pub(crate) mod parquet;
pub(crate) mod pipeline;
pub(crate) mod records;
pub(crate) mod row_limits;
pub(crate) mod row_numbers;
pub(crate) mod stdin;
pub(crate) mod verify;

use std::sync::Arc;

use arrow::array::RecordBatch;
use tidewater_common::keys::KeyCodec;
use tidewater_common::schema::TableSchema;

use self::bad_rows::BadRows;
use self::error::{LoadError, RowPosition};
use crate::text::delimiter::Delimiter;

/// Options of all readers.
#[derive(Debug, Clone)]
pub(crate) struct ReadOptions {
    pub(crate) table: Arc<TableSchema>,
    /// Codec of the table's keys.
    pub(crate) codec: KeyCodec,
    /// Texts that represent a missing value, in addition to the empty text.
    pub(crate) nulls: Arc<[String]>,
    /// Rows per batch; at least 1.
    pub(crate) batch_rows: usize,
    /// Delimiter of CSV cells.
    pub(crate) delimiter: Delimiter,
}

/// An open input whose columns match the table.
pub(crate) trait RowSource: Send {
    /// Returns the next rows, at least one; `None` at the end.
    fn next_batch(&mut self, bad: &mut BadRows) -> Result<Option<RecordBatch>, LoadError>;

    /// Returns the position of a row of the last batch, counted from 0.
    fn position(&self, row: usize) -> RowPosition;
}
