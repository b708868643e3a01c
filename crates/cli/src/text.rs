//! Parsers of option values and arguments of the command line.
//!
//! # Layout
//!
//! - [`size`] and [`time_span`]: sizes and durations: `512MiB`, `90d`.
//! - [`moment`]: times and durations before now: `90m`, `2026-01-31T10:00:00Z`.
//! - [`as_of`]: epochs of reads, as numbers or by times: `5962137600000000`, `5m`.
//! - [`lease`]: lengths of leases: `10s` to `30d`.
//! - [`tokens`]: words, quoted texts and signs with their positions, for the parsers below.
//! - [`columns`]: column definitions: `origin utf8, flight int64 not null`.
//! - [`distribution`]: distribution of rows over regions: `range`, `hash(origin)`.
//! - [`key`]: values of a key: `EWR,2013-01-01T10:00:00Z`.
//! - [`peer`]: id and address of a meta node: `1=127.0.0.1:7401`.

pub(crate) mod as_of;
pub(crate) mod columns;
pub(crate) mod distribution;
pub(crate) mod key;
pub(crate) mod lease;
pub(crate) mod moment;
pub(crate) mod peer;
pub(crate) mod size;
pub(crate) mod time_span;
pub(crate) mod tokens;

/// Parse error with its position in the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at character {position})")]
pub(crate) struct TextError {
    /// Position in characters, from 1.
    pub(crate) position: usize,
    pub(crate) message: String,
}

impl TextError {
    pub(crate) fn new(position: usize, message: impl Into<String>) -> Self {
        Self { position, message: message.into() }
    }
}
