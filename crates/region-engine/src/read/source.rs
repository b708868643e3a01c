//! Sources of rows of a read.

use super::pushdown::Pushdown;
use super::run_source::RunSource;
use super::shape::Piece;
use crate::EngineError;
use crate::sst::source::FileSource;

/// Source of rows in order: by key, and within a key newest first.
#[derive(Debug)]
pub(crate) enum Source {
    /// A run of the memtable.
    Run(RunSource),
    /// A file.
    File(Box<FileSource>),
}

impl Source {
    /// Sets whether the rows go through a merge; must precede the first call of [`Self::next`].
    pub(crate) fn set_merged(&mut self, merged: bool) {
        match self {
            Self::Run(_) => {}
            Self::File(file) => file.set_merged(merged),
        }
    }

    /// Sets which terms of the read's filter may skip rows; must precede the first call of
    /// [`Self::next`].
    pub(crate) fn set_pushdown(&mut self, pushdown: Pushdown) {
        match self {
            Self::Run(_) => {}
            Self::File(file) => file.set_pushdown(pushdown),
        }
    }

    /// Returns whether the source may hold row versions that the read must not return.
    pub(crate) fn is_bounded(&self) -> bool {
        match self {
            // All rows in memory are checked, so no decision depends on this.
            Self::Run(_) => false,
            Self::File(file) => file.is_bounded(),
        }
    }

    /// Returns the next rows; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, EngineError> {
        match self {
            Self::Run(run) => run.next(),
            Self::File(file) => file.next().await,
        }
    }
}
