//! What an attempt at a job has done so far, and how to end it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

/// Counters that an attempt moves and anybody reads.
#[derive(Debug, Default)]
pub struct CompactionProgress {
    rows_read: AtomicU64,
    bytes_read: AtomicU64,
    rows_written: AtomicU64,
    bytes_written: AtomicU64,
    files_written: AtomicU64,
    steps: AtomicU64,
    committing: AtomicBool,
}

/// [`CompactionProgress`] at a moment. Bytes are of files as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProgressSnapshot {
    /// Row versions read from the inputs.
    pub rows_read: u64,
    /// Bytes of the inputs that were read, about.
    pub bytes_read: u64,
    /// Row versions written.
    pub rows_written: u64,
    /// Bytes written, those of unfinished files included.
    pub bytes_written: u64,
    /// Files finished.
    pub files_written: u64,
    /// What was done beside: footers read, hooks told, the commit begun.
    pub steps: u64,
}

/// One attempt at a job: watched and cancelled from outside.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    /// What it has done.
    pub progress: Arc<CompactionProgress>,
    /// Ends it soon, unless it is committing already.
    pub cancel: CancellationToken,
}

impl CompactionProgress {
    /// The counters now.
    pub fn snapshot(&self) -> ProgressSnapshot {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProgressSnapshot {
            rows_read: of(&self.rows_read),
            bytes_read: of(&self.bytes_read),
            rows_written: of(&self.rows_written),
            bytes_written: of(&self.bytes_written),
            files_written: of(&self.files_written),
            steps: of(&self.steps),
        }
    }

    /// Whether the outputs are written, and the hooks or the manifest have them.
    pub fn is_committing(&self) -> bool {
        self.committing.load(Ordering::Relaxed)
    }

    /// Takes over what somebody else has done.
    pub fn set(&self, done: &ProgressSnapshot) {
        let to = |counter: &AtomicU64, value: u64| counter.store(value, Ordering::Relaxed);
        to(&self.rows_read, done.rows_read);
        to(&self.bytes_read, done.bytes_read);
        to(&self.rows_written, done.rows_written);
        to(&self.bytes_written, done.bytes_written);
        to(&self.files_written, done.files_written);
        to(&self.steps, done.steps);
    }

    pub(crate) fn mark_committing(&self) {
        self.committing.store(true, Ordering::Relaxed);
        self.record_step();
    }

    /// Something is done that moves no other counter.
    pub(crate) fn record_step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn record_read(&self, rows: u64, bytes: u64) {
        self.rows_read.fetch_add(rows, Ordering::Relaxed);
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn record_rows_written(&self, rows: u64) {
        self.rows_written.fetch_add(rows, Ordering::Relaxed);
    }

    pub(crate) fn record_bytes_written(&self, bytes: u64) {
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn record_file_written(&self) {
        self.files_written.fetch_add(1, Ordering::Relaxed);
    }
}
