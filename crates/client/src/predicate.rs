//! Conditions from text: `distance > 1000 and origin = "JFK"`.
//!
//! A condition is a conjunction of terms: `COLUMN OP VALUE` with `=`, `!=`, `<>`, `<`, `<=`, `>`,
//! `>=`; `COLUMN in (VALUE, ...)`; `COLUMN is null`; `COLUMN is not null`. Keywords may be written
//! in any case. Text stands in single or double quotes, a quote within it doubled; numbers, dates
//! and `true` or `false` may stand bare. A column whose name is no plain word, or is a keyword,
//! stands in backquotes or double quotes.

mod lexer;
mod parser;

use std::fmt;

pub use self::parser::parse;

/// A condition that cannot be used, and where in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredicateError {
    /// The character at which the problem is, from 1; one past the end when the text ends early.
    pub position: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Something else should stand here.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What should stand here.
        expected: &'static str,
        /// What stands here.
        found: String,
    },
    /// A quote that is never closed.
    #[error("this quote is never closed")]
    OpenQuote,
    /// A character that has no meaning here.
    #[error("unexpected character {0:?}")]
    Character(char),
    /// The table has no such column.
    #[error("there is no column {column:?}; the columns are {columns}")]
    UnknownColumn {
        /// The column asked for.
        column: String,
        /// The columns that there are.
        columns: String,
    },
    /// A value that the column cannot hold.
    #[error("{value:?} is no {data_type}, which column {column:?} is: {why}")]
    Value {
        /// The value.
        value: String,
        /// The column.
        column: String,
        /// The column's type.
        data_type: String,
        /// Why not.
        why: String,
    },
    /// A comparison with null, which never holds.
    #[error("nothing is equal to null: write `is null` or `is not null`")]
    ComparedWithNull,
    /// `or`, `not` and parentheses around terms.
    #[error("only `and` can join conditions")]
    OnlyAnd,
}

impl fmt::Display for PredicateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the condition is wrong at character {}: {}", self.position, self.problem)
    }
}

impl std::error::Error for PredicateError {}

#[cfg(test)]
mod tests;
