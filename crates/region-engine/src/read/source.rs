//! Where a read gets rows from.

use super::pushdown::Pushdown;
use super::run_source::RunSource;
use super::shape::Piece;
use crate::EngineError;
use crate::sst::source::FileSource;

/// Yields rows in order: by key, and within a key newest first.
#[derive(Debug)]
pub(crate) enum Source {
    /// A run of the memtable.
    Run(RunSource),
    /// A file.
    File(Box<FileSource>),
}

impl Source {
    /// Says whether the rows go through a merge; before the first call of [`Self::next`].
    pub(crate) fn set_merged(&mut self, merged: bool) {
        match self {
            Self::Run(_) => {}
            Self::File(file) => file.set_merged(merged),
        }
    }

    /// Says which terms of the read's filter may leave rows out; before the first call of
    /// [`Self::next`].
    pub(crate) fn set_pushdown(&mut self, pushdown: Pushdown) {
        match self {
            Self::Run(_) => {}
            Self::File(file) => file.set_pushdown(pushdown),
        }
    }

    /// Whether it may hold row versions that the read must not see.
    pub(crate) fn bounded(&self) -> bool {
        match self {
            // Rows in memory are all looked at: no decision hangs on it.
            Self::Run(_) => false,
            Self::File(file) => file.bounded(),
        }
    }

    /// The next rows; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, EngineError> {
        match self {
            Self::Run(run) => run.next(),
            Self::File(file) => file.next().await,
        }
    }
}
