//! Errors of input files and their rows, each with a remedy.

use std::fmt;
use std::io;

use arrow::error::ArrowError;
use tidewater_common::keys::KeyError;
use tidewater_common::rows::RowTooLarge;

use crate::text::delimiter::Delimiter;
use crate::value::rows::CellProblem;

/// Position of a row in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowPosition {
    /// Line number, from 1.
    Line(u64),
    /// Row number, from 1, in formats without lines.
    Row(u64),
}

impl fmt::Display for RowPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row}"),
        }
    }
}

/// A row that cannot be loaded; other rows of the file may be fine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowError {
    pub(crate) file: String,
    pub(crate) position: RowPosition,
    pub(crate) fault: RowFault,
}

/// Reason why a row cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RowFault {
    Cell(CellProblem),
    /// More or fewer values than the header has columns.
    CellCount {
        found: usize,
        expected: usize,
    },
    /// The line is not a JSON object.
    Json(String),
    /// Columns that the table lacks (NDJSON).
    UnknownColumns(Vec<String>),
    /// A row or a key that no write may have.
    TooLarge(RowTooLarge),
    /// A column that occurs twice in one object (NDJSON).
    DuplicateColumn(String),
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.position)?;
        match &self.fault {
            RowFault::Cell(CellProblem { column, problem }) => {
                write!(f, ", column `{column}`: {problem}")
            }
            RowFault::CellCount { found, expected } => {
                write!(f, ": found {found} values, but the header names {expected} columns")
            }
            RowFault::Json(message) => write!(f, ": not a JSON object: {message}"),
            RowFault::UnknownColumns(names) => {
                write!(f, ": the table has no column {}", listed(names))
            }
            RowFault::TooLarge(problem) => write!(f, ": {problem}"),
            RowFault::DuplicateColumn(name) => write!(f, ": `{name}` occurs twice"),
        }
    }
}

impl std::error::Error for RowError {}

/// Joins names with commas, each in backquotes.
pub(crate) fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Error that ends the load of a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{file}: no such file: check the path")]
    NotFound { file: String },
    #[error("{file}: is a directory: name the files in it")]
    Directory { file: String },
    #[error("{file}: read failed: {source}")]
    Read { file: String, source: io::Error },
    #[error("{file}: the file is empty: nothing to load")]
    Empty { file: String },
    #[error(
        "{file}: no header: the first line must name the columns, but none of `{first_line}` is a \
         column of the table ({columns})"
    )]
    NoHeader { file: String, first_line: String, columns: String },
    #[error(
        "{file}: lacks column {} of the table, which is not null: add it to the file",
        listed(names)
    )]
    MissingColumns { file: String, names: Vec<String> },
    #[error(
        "{file}: the table has no column {}: remove it from the file, or create the table with it{hint}",
        listed(names)
    )]
    ExtraColumns { file: String, names: Vec<String>, hint: String },
    #[error("{file}: the header names column `{name}` twice: rename one of them")]
    DuplicateColumn { file: String, name: String },
    #[error("{file}: the header is not valid UTF-8: save the file as UTF-8")]
    HeaderNotUtf8 { file: String },
    #[error("{file}: the first line names {found} columns: check the delimiter and the header")]
    TooManyCells { file: String, found: usize },
    #[error("{file}: {position}: longer than {limit} bytes: check for an unclosed quote")]
    RecordTooLong { file: String, position: RowPosition, limit: usize },
    #[error(
        "{file}: the row that begins on {position} has a quoted value that does not end: add the \
         closing quote"
    )]
    UnclosedQuote { file: String, position: RowPosition },
    #[error(
        "{file}: the header is one column, `{header}`, which contains `{suggested}`: give the \
         delimiter of the file with --delimiter '{suggested}'"
    )]
    Dialect { file: String, header: String, suggested: Delimiter },
    #[error("{file}: not a complete zip archive ({reason}): it may be truncated; copy it again")]
    BadZip { file: String, reason: String },
    #[error("{file}: the zip archive contains no file")]
    EmptyZip { file: String },
    #[error("{file}: {reason}: unpack it first")]
    UnsupportedMember { file: String, reason: String },
    #[error("{file}: the compressed data is damaged or truncated ({reason}): copy the file again")]
    BadCompression { file: String, reason: String },
    #[error("{file}: not a complete Parquet file ({reason}): it may be truncated; write it again")]
    BadParquet { file: String, reason: String },
    #[error(
        "{file}: a page of column `{column}` has {bytes} bytes without compression, which exceeds the \
         limit of {limit}: write the file with smaller pages, or shorten the value if the page has only one"
    )]
    PageTooLarge { file: String, column: String, bytes: u64, limit: u64 },
    #[error(
        "{file}: column `{column}` has type {found}, which does not convert to {expected}: convert \
         it before loading"
    )]
    ColumnType { file: String, column: String, found: String, expected: String },
    #[error("{0}")]
    Row(Box<RowError>),
    #[error("{row}; {skipped} bad rows were skipped before it, the limit set by --skip-bad")]
    TooManyBad { row: Box<RowError>, skipped: u64 },
    #[error("{file}: failed to build a batch of rows: {source}")]
    Batch { file: String, source: ArrowError },
    #[error("{file}: a key cannot be built: {source}")]
    Key { file: String, source: KeyError },
    #[error("internal error: file reader exited unexpectedly; please report it")]
    ReaderStopped,
}
