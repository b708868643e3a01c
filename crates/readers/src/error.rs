//! Errors of input files and their rows, each with a remedy.

use std::fmt;
use std::io;

use arrow::error::ArrowError;
use tidewater_common::keys::KeyError;
use tidewater_common::rows::RowTooLarge;

use crate::delimiter::Delimiter;
use crate::value::rows::CellProblem;

/// Position of a row in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowPosition {
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
pub struct RowError {
    /// Name of the file.
    pub file: String,
    /// Position of the row.
    pub position: RowPosition,
    /// Reason.
    pub fault: RowFault,
}

/// Reason why a row cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowFault {
    /// A rejected cell.
    Cell(CellProblem),
    /// More or fewer values than the header has columns.
    CellCount {
        /// Values of the row.
        found: usize,
        /// Columns of the header.
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
pub fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Error that ends the load of a file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file does not exist.
    #[error("{file}: no such file: check the path")]
    NotFound {
        /// Name of the file.
        file: String,
    },
    /// The path names a directory.
    #[error("{file}: is a directory: name the files in it")]
    Directory {
        /// Name of the file.
        file: String,
    },
    /// The operating system reported an error.
    #[error("{file}: read failed: {source}")]
    Read {
        /// Name of the file.
        file: String,
        /// The error.
        source: io::Error,
    },
    /// The file has no row.
    #[error("{file}: the file is empty: nothing to load")]
    Empty {
        /// Name of the file.
        file: String,
    },
    /// No name of the first line is a column of the table.
    #[error(
        "{file}: no header: the first line must name the columns, but none of `{first_line}` is a \
         column of the table ({columns})"
    )]
    NoHeader {
        /// Name of the file.
        file: String,
        /// Begin of the first line.
        first_line: String,
        /// Columns of the table.
        columns: String,
    },
    /// The file lacks columns of the table that are not null.
    #[error(
        "{file}: lacks column {} of the table, which is not null: add it to the file",
        listed(names)
    )]
    MissingColumns {
        /// Name of the file.
        file: String,
        /// Names of the columns.
        names: Vec<String>,
    },
    /// The table lacks columns of the file.
    #[error(
        "{file}: the table has no column {}: remove it from the file, or create the table with it{hint}",
        listed(names)
    )]
    ExtraColumns {
        /// Name of the file.
        file: String,
        /// Names of the columns.
        names: Vec<String>,
        /// Hint for people, or empty.
        hint: String,
    },
    /// The file has two columns of the same name.
    #[error("{file}: the header names column `{name}` twice: rename one of them")]
    DuplicateColumn {
        /// Name of the file.
        file: String,
        /// Name of the column.
        name: String,
    },
    /// The first line is not UTF-8.
    #[error("{file}: the header is not valid UTF-8: save the file as UTF-8")]
    HeaderNotUtf8 {
        /// Name of the file.
        file: String,
    },
    /// The first line has more cells than a header may have.
    #[error("{file}: the first line names {found} columns: check the delimiter and the header")]
    TooManyCells {
        /// Name of the file.
        file: String,
        /// Number of cells.
        found: usize,
    },
    /// A row is longer than the limit.
    #[error("{file}: {position}: longer than {limit} bytes: check for an unclosed quote")]
    RecordTooLong {
        /// Name of the file.
        file: String,
        /// Position of the row.
        position: RowPosition,
        /// Limit in bytes.
        limit: usize,
    },
    /// A quoted value does not end.
    #[error(
        "{file}: the row that begins on {position} has a quoted value that does not end: add the \
         closing quote"
    )]
    UnclosedQuote {
        /// Name of the file.
        file: String,
        /// Position of the row.
        position: RowPosition,
    },
    /// The file probably has another delimiter.
    #[error(
        "{file}: the header is one column, `{header}`, which contains `{suggested}`: give the \
         delimiter of the file with --delimiter '{suggested}'"
    )]
    Dialect {
        /// Name of the file.
        file: String,
        /// Begin of the first line.
        header: String,
        /// The probable delimiter.
        suggested: Delimiter,
    },
    /// The zip archive is damaged.
    #[error("{file}: not a complete zip archive ({reason}): it may be truncated; copy it again")]
    BadZip {
        /// Name of the file.
        file: String,
        /// Problem, for people.
        reason: String,
    },
    /// The zip archive has no file.
    #[error("{file}: the zip archive contains no file")]
    EmptyZip {
        /// Name of the file.
        file: String,
    },
    /// A file of a zip archive cannot be read.
    #[error("{file}: {reason}: unpack it first")]
    UnsupportedMember {
        /// Name of the file.
        file: String,
        /// Problem, for people.
        reason: String,
    },
    /// The compressed data is damaged.
    #[error("{file}: the compressed data is damaged or truncated ({reason}): copy the file again")]
    BadCompression {
        /// Name of the file.
        file: String,
        /// Problem, for people.
        reason: String,
    },
    /// The Parquet file is damaged.
    #[error("{file}: not a complete Parquet file ({reason}): it may be truncated; write it again")]
    BadParquet {
        /// Name of the file.
        file: String,
        /// Problem, for people.
        reason: String,
    },
    /// A page of a Parquet file does not fit into memory.
    #[error(
        "{file}: a page of column `{column}` has {bytes} bytes without compression, which exceeds the \
         limit of {limit}: write the file with smaller pages, or shorten the value if the page has only one"
    )]
    PageTooLarge {
        /// Name of the file.
        file: String,
        /// Name of the column.
        column: String,
        /// Size in bytes.
        bytes: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// The type of a column does not convert to that of the table.
    #[error(
        "{file}: column `{column}` has type {found}, which does not convert to {expected}: convert \
         it before loading"
    )]
    ColumnType {
        /// Name of the file.
        file: String,
        /// Name of the column.
        column: String,
        /// Type in the file.
        found: String,
        /// Type in the table.
        expected: String,
    },
    /// A bad row.
    #[error("{0}")]
    Row(Box<RowError>),
    /// A bad row above the limit.
    #[error("{row}; {skipped} bad rows were skipped before it, the limit set by --skip-bad")]
    TooManyBad {
        /// The row.
        row: Box<RowError>,
        /// Bad rows skipped before it.
        skipped: u64,
    },
    /// A batch of rows cannot be built.
    #[error("{file}: failed to build a batch of rows: {source}")]
    Batch {
        /// Name of the file.
        file: String,
        /// The error.
        source: ArrowError,
    },
    /// A key cannot be built.
    #[error("{file}: a key cannot be built: {source}")]
    Key {
        /// Name of the file.
        file: String,
        /// The error.
        source: KeyError,
    },
    /// The thread of the reader ended early.
    #[error("internal error: file reader exited unexpectedly; please report it")]
    ReaderStopped,
}
