//! Conditions from text: `distance > 1000 and origin = "JFK"`.
//!
//! A condition is a conjunction of terms: `COLUMN OP VALUE` with `=`, `!=`, `<>`, `<`, `<=`, `>`,
//! `>=`; `COLUMN in (VALUE, ...)`; `COLUMN is null`; `COLUMN is not null`. Keywords are
//! case-insensitive. Text is in single or double quotes, with quotes inside doubled. Numbers, dates
//! and `true` or `false` need no quotes. A column name that is a keyword or not a plain word is in
//! backquotes or double quotes.

mod lexer;
mod parser;

use std::fmt;

pub use self::parser::parse;

/// An invalid condition, with the position of the error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredicateError {
    /// Position of the problem, in characters from 1; one past the end when the text ends early.
    pub position: usize,
    /// The problem.
    pub problem: PredicateProblem,
}

/// PredicateProblem of an invalid condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredicateProblem {
    /// An unexpected word.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// Description of the expected word.
        expected: &'static str,
        /// Description of the actual word.
        found: String,
    },
    /// A quote without its closing quote.
    #[error("this quote is never closed")]
    OpenQuote,
    /// A character that no condition contains outside of quotes.
    #[error("unexpected character {0:?}")]
    Character(char),
    /// The table does not have the column.
    #[error("there is no column {column:?}; the columns are {columns}")]
    UnknownColumn {
        /// Name of the requested column.
        column: String,
        /// Names of the table's columns.
        columns: String,
    },
    /// A value that the column cannot hold.
    #[error("{value:?} is not a valid {data_type} for column {column:?}: {cause}")]
    Value {
        /// The value.
        value: String,
        /// Name of the column.
        column: String,
        /// Type of the column.
        data_type: String,
        /// Error of the conversion.
        cause: String,
    },
    /// A comparison with null, which never holds.
    #[error("a comparison with null never holds: write `is null` or `is not null`")]
    ComparedWithNull,
    /// `or`, `not` and parentheses around terms.
    #[error("only `and` can join conditions")]
    OnlyAnd,
}

impl fmt::Display for PredicateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid condition at character {}: {}", self.position, self.problem)
    }
}

impl std::error::Error for PredicateError {}

#[cfg(test)]
mod tests;
