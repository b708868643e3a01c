//! What can be wrong with a file, each with what to do.

use std::fmt;
use std::io;

use arrow::error::ArrowError;

use crate::value::rows::CellProblem;

/// Where a row stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Counts lines from 1.
    Line(u64),
    /// Counts rows from 1, in formats without lines.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row}"),
        }
    }
}

/// A row that cannot be loaded; others of the file may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowError {
    pub(crate) file: String,
    pub(crate) place: Place,
    pub(crate) fault: RowFault,
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RowFault {
    Cell(CellProblem),
    /// More or fewer values than the header has columns.
    CellCount {
        found: usize,
        expected: usize,
    },
    /// The line is no JSON object.
    Json(String),
    /// Columns that the table lacks (ndjson).
    UnknownColumns(Vec<String>),
    /// A column named twice in one object (ndjson).
    ColumnTwice(String),
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.place)?;
        match &self.fault {
            RowFault::Cell(CellProblem { column, problem }) => {
                write!(f, ", column `{column}`: {problem}")
            }
            RowFault::CellCount { found, expected } => {
                write!(f, ": {found} values where the header names {expected} columns")
            }
            RowFault::Json(message) => write!(f, ": not a JSON object: {message}"),
            RowFault::UnknownColumns(names) => {
                write!(f, ": the table has no column {}", listed(names))
            }
            RowFault::ColumnTwice(name) => write!(f, ": `{name}` is there twice"),
        }
    }
}

impl std::error::Error for RowError {}

/// `a`, `b` and `c`, each in backquotes.
pub(crate) fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A file that cannot be loaded, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{file}: there is no such file: check the path")]
    NotFound { file: String },
    #[error("{file}: it is a directory: name the files in it")]
    Directory { file: String },
    #[error("{file}: cannot be read: {source}")]
    Read { file: String, source: io::Error },
    #[error("{file}: the file is empty: nothing to load")]
    Empty { file: String },
    #[error(
        "{file}: no header: the first line must name the columns, but none of `{first_line}` is a \
         column of the table ({columns})"
    )]
    NoHeader { file: String, first_line: String, columns: String },
    #[error(
        "{file}: lacks column {} of the table, which may not be null: add it to the file",
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
    #[error("{file}: {place}: longer than {limit} bytes: a quote is probably never closed")]
    RecordTooLong { file: String, place: Place, limit: usize },
    #[error("{file}: not a whole zip archive ({reason}): it may be cut off; get it again")]
    BadZip { file: String, reason: String },
    #[error("{file}: the zip archive has no file in it")]
    EmptyZip { file: String },
    #[error("{file}: {reason}: unpack it first")]
    UnsupportedMember { file: String, reason: String },
    #[error("{file}: the compressed data is damaged or cut off ({reason}): get the file again")]
    BadCompression { file: String, reason: String },
    #[error("{file}: not a whole Parquet file ({reason}): it may be cut off; write it again")]
    BadParquet { file: String, reason: String },
    #[error(
        "{file}: column `{column}` has the type {found}, which does not become {wanted}: convert it \
         before loading"
    )]
    ColumnType { file: String, column: String, found: String, wanted: String },
    #[error("{0}")]
    Row(Box<RowError>),
    #[error(
        "{row}; {skipped} bad rows were passed over before it, which is all that --skip-bad allows"
    )]
    TooManyBad { row: Box<RowError>, skipped: u64 },
    #[error("{file}: rows cannot be put together: {source}")]
    Batch { file: String, source: ArrowError },
    #[error("the reader of the files stopped without a word; this is a defect of tidewater")]
    ReaderStopped,
}
