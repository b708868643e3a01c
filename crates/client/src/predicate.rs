//! Parser of textual conditions: `distance > 1000 and origin = "JFK"`.
//!
//! A condition is a conjunction of terms: `COLUMN OP VALUE` with `=`, `!=`, `<>`, `<`, `<=`, `>`,
//! `>=`; `COLUMN in (VALUE, ...)`; `COLUMN is null`; `COLUMN is not null`. Keywords are
//! case-insensitive. Text is written in single or double quotes, and a quote within it is doubled.
//! Numbers, dates, `true` and `false` need no quotes. A column name that is not a plain word, or is
//! a keyword, is written in backquotes or double quotes.

mod lexer;
mod parser;

use std::fmt;

use tidewater_common::read_arguments::ReadArgumentError;

pub use self::parser::parse;

/// An invalid condition, with the position of the problem in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredicateError {
    /// Position of the problem in characters, from 1; one past the end when the text ends early.
    pub position: usize,
    /// The problem.
    pub problem: PredicateProblem,
}

/// A problem of a condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredicateProblem {
    /// Another token is required at this position.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// Description of the required token.
        expected: &'static str,
        /// Description of the actual token.
        found: String,
    },
    /// A quote without its closing counterpart.
    #[error("this quote is never closed")]
    OpenQuote,
    /// A character that begins no token.
    #[error("unexpected character {0:?}")]
    Character(char),
    /// The table has no such column.
    #[error("there is no column {column:?}; the columns are {columns}")]
    UnknownColumn {
        /// Name of the requested column.
        column: String,
        /// Names of the table's columns, separated by commas.
        columns: String,
    },
    /// A value that is not valid for the column's type.
    #[error("{value:?} is not a valid {data_type}, the type of column {column:?}: {why}")]
    Value {
        /// Text of the value.
        value: String,
        /// Name of the column.
        column: String,
        /// Type of the column.
        data_type: String,
        /// Description of the problem.
        why: String,
    },
    /// A comparison with null, which is never true.
    #[error("nothing is equal to null: write `is null` or `is not null`")]
    ComparedWithNull,
    /// A use of `or`, `not` or parentheses around terms, which are not supported.
    #[error("only `and` can join conditions")]
    OnlyAnd,
    /// More conditions or values than a node accepts.
    #[error(transparent)]
    Limit(#[from] ReadArgumentError),
}

impl fmt::Display for PredicateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid condition at character {}: {}", self.position, self.problem)
    }
}

impl std::error::Error for PredicateError {}

#[cfg(test)]
mod tests;
