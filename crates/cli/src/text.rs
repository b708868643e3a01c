//!
//! # Layout
//!
//! - [`size`] and [`span`]: `512MiB`, `90d`.
//! - [`tokens`]: words, quoted texts and signs with their positions, for the parsers below.
//! - [`columns`]: columns to be made: `origin utf8, flight int64 not null`.
//! - [`distribution`]: where rows go: `range`, `hash(origin)`.
//! - [`key`]: the values of a key: `EWR,2013-01-01T10:00:00Z`.
//! - [`peer`]: a meta node and its address: `1=127.0.0.1:7401`.

pub(crate) mod columns;
pub(crate) mod distribution;
pub(crate) mod key;
pub(crate) mod peer;
pub(crate) mod size;
pub(crate) mod span;
pub(crate) mod tokens;

/// A text that does not parse: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at character {position})")]
pub(crate) struct TextError {
    /// Counts characters from 1.
    pub(crate) position: usize,
    pub(crate) message: String,
}

impl TextError {
    pub(crate) fn new(position: usize, message: impl Into<String>) -> Self {
        Self { position, message: message.into() }
    }
}
