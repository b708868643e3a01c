//! Readers of CSV, NDJSON and Parquet files: convert files into batches of table rows, in bounded memory.
//!
//! # Layout
//!
//! - [`input`]: an input, which is a file or a member of a zip archive, and its format.
//! - [`bytes`]: opens an input: decompression, checksums, count of bytes read.
//! - `header`: matches the columns of a file with those of the table, by name.
//! - [`csv`] (over [`records`] and [`dialect`]), [`ndjson`] (over [`lines`]), [`parquet`] (over
//!   [`convert`]): the formats. [`delimiter`]: delimiter of CSV cells.
//! - [`value`]: values in text form.
//! - `row_limits`: sizes of rows and keys; `row_numbers`: lines of the rows of a batch.
//! - [`bad_rows`]: limit of bad rows to skip.
//! - [`pipeline`]: reads all inputs in turn on a dedicated thread.
//! - [`error`]: errors of files and rows, each with a remedy.

pub mod bad_rows;
pub mod bytes;
pub mod convert;
pub mod csv;
pub mod delimiter;
pub mod dialect;
pub mod error;
mod header;
pub mod input;
pub mod lines;
pub mod ndjson;
pub mod parquet;
pub mod pipeline;
pub mod records;
mod row_limits;
mod row_numbers;
pub mod value;

use std::sync::Arc;

use arrow::array::RecordBatch;
use tidewater_common::keys::KeyCodec;
use tidewater_common::schema::TableSchema;

use self::bad_rows::BadRows;
use self::delimiter::Delimiter;
use self::error::{LoadError, RowPosition};

/// Options of all readers.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Columns of the table.
    pub table: Arc<TableSchema>,
    /// Codec of the table's keys.
    pub codec: KeyCodec,
    /// Texts that represent a missing value, in addition to the empty text.
    pub nulls: Arc<[String]>,
    /// Rows per batch; at least 1.
    pub batch_rows: usize,
    /// Delimiter of CSV cells.
    pub delimiter: Delimiter,
}

/// An open input whose columns match the table.
pub trait RowSource: Send {
    /// Returns the next rows, at least one; `None` at the end.
    ///
    /// # Errors
    /// [`LoadError`], for a bad row above the limit of `bad` too.
    fn next_batch(&mut self, bad: &mut BadRows) -> Result<Option<RecordBatch>, LoadError>;

    /// Returns the position of a row of the last batch, counted from 0.
    fn position(&self, row: usize) -> RowPosition;
}
