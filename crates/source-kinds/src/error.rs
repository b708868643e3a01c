//! Errors of sources.

use std::error::Error;

/// Reason why a source cannot be read. Each message names the source's part and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The source does not exist, cannot be reached, or refuses the credentials. A later attempt may succeed.
    #[error("{0}")]
    Unreadable(String),
    /// The node does not permit to read from this place.
    #[error("{0}")]
    NotPermitted(String),
    /// Columns or types of the source do not fit the table, or a row does not.
    #[error("{0}")]
    Mismatch(String),
    /// The pinned content no longer exists: the refresh must list the source again.
    #[error("{0}")]
    Changed(String),
    /// The configuration is invalid.
    #[error("{0}")]
    BadConfig(String),
}

/// Reason why a source cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceSetupError {
    /// A kind of this name is registered.
    #[error("a source kind {kind:?} is registered already")]
    KindTaken {
        /// Name of the kind.
        kind: String,
    },
    /// No kind has this name.
    #[error("unknown source kind {kind:?}; known are {known}")]
    UnknownKind {
        /// Name in the configuration.
        kind: String,
        /// Registered kinds, separated by commas.
        known: String,
    },
    /// The configuration is invalid.
    #[error("configuration of a {kind} source: {detail}")]
    BadConfig {
        /// Name of the kind.
        kind: String,
        /// Problem, for people.
        detail: String,
    },
}

/// Returns an error and its causes, from the outermost to the innermost.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
