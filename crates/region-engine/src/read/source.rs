//! Sources of rows of a read.

use std::time::Duration;

use super::memory::Excess;
use super::need::SourceRow;
use super::pushdown::Pushdown;
use super::run_source::RunSource;
use super::shape::Piece;
use crate::EngineError;
use crate::sst::source::FileSource;

/// Memory of a source of a scan. The default is unlimited.
#[derive(Debug, Clone)]
pub(crate) struct SourceMemory {
    /// Bytes that the source may hold.
    pub(crate) bytes: u64,
    /// Memory above that, if a single row is larger.
    pub(crate) excess: Excess,
    /// Longest wait for it.
    pub(crate) wait: Duration,
}

impl Default for SourceMemory {
    fn default() -> Self {
        Self { bytes: u64::MAX, excess: Excess::default(), wait: Duration::ZERO }
    }
}

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

    /// Limits the memory of the source; must precede the first call of [`Self::next`].
    pub(crate) fn set_memory(&mut self, memory: &SourceMemory) {
        match self {
            Self::Run(run) => run.set_memory(memory.bytes),
            Self::File(file) => file.set_memory(memory.clone()),
        }
    }

    /// Returns the estimated bytes of a row.
    pub(crate) fn row(&self) -> SourceRow {
        match self {
            Self::Run(run) => run.row(),
            Self::File(file) => file.row(),
        }
    }

    /// Returns the number of rows that are left, without deletes, if it is known without reading
    /// them.
    pub(crate) fn rows_left(&self) -> Option<u64> {
        match self {
            Self::Run(_) => None,
            Self::File(file) => file.rows_left(),
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
