//! Progress and cancellation of an attempt at a job.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Counters that an attempt increments and any thread may read.
#[derive(Debug, Default)]
pub struct CompactionProgress {
    rows_read: AtomicU64,
    bytes_read: AtomicU64,
    rows_written: AtomicU64,
    bytes_written: AtomicU64,
    files_written: AtomicU64,
    steps: AtomicU64,
    committing: AtomicBool,
    /// Completed passes and their work.
    earlier: Mutex<(u32, ProgressSnapshot)>,
}

/// A snapshot of [`CompactionProgress`]. Bytes are those of stored files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProgressSnapshot {
    /// Row versions read from the inputs.
    pub rows_read: u64,
    /// Bytes read from the inputs, approximate.
    pub bytes_read: u64,
    /// Row versions written.
    pub rows_written: u64,
    /// Bytes written, unfinished files included.
    pub bytes_written: u64,
    /// Completed files.
    pub files_written: u64,
    /// Other completed steps: footers read, hooks called, the commit begun.
    pub steps: u64,
}

impl ProgressSnapshot {
    /// Returns the sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            rows_read: self.rows_read.saturating_add(other.rows_read),
            bytes_read: self.bytes_read.saturating_add(other.bytes_read),
            rows_written: self.rows_written.saturating_add(other.rows_written),
            bytes_written: self.bytes_written.saturating_add(other.bytes_written),
            files_written: self.files_written.saturating_add(other.files_written),
            steps: self.steps.saturating_add(other.steps),
        }
    }
}

/// One attempt at a job: observed and cancelled by the caller.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    /// Progress of the attempt.
    pub progress: Arc<CompactionProgress>,
    /// Cancels the attempt unless it is already committing.
    pub cancel: CancellationToken,
}

impl CompactionProgress {
    /// Returns the current counters.
    pub fn snapshot(&self) -> ProgressSnapshot {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProgressSnapshot {
            rows_read: value(&self.rows_read),
            bytes_read: value(&self.bytes_read),
            rows_written: value(&self.rows_written),
            bytes_written: value(&self.bytes_written),
            files_written: value(&self.files_written),
            steps: value(&self.steps),
        }
    }

    /// Counts a completed pass of a request and begins the next one with zero counters.
    pub fn finish_pass(&self) {
        let mut earlier = self.earlier.lock();
        *earlier = (earlier.0.saturating_add(1), earlier.1.plus(self.snapshot()));
        self.set(&ProgressSnapshot::default());
    }

    /// Returns the completed passes, and the work of these and the current one.
    pub fn total(&self) -> (u32, ProgressSnapshot) {
        let (passes, done) = *self.earlier.lock();
        (passes, done.plus(self.snapshot()))
    }

    /// Returns `true` once the outputs are written and are being passed to the hooks or the
    /// manifest.
    pub fn is_committing(&self) -> bool {
        self.committing.load(Ordering::Relaxed)
    }

    /// Replaces the counters by those of a remote attempt.
    pub fn set(&self, done: &ProgressSnapshot) {
        let store = |counter: &AtomicU64, value: u64| counter.store(value, Ordering::Relaxed);
        store(&self.rows_read, done.rows_read);
        store(&self.bytes_read, done.bytes_read);
        store(&self.rows_written, done.rows_written);
        store(&self.bytes_written, done.bytes_written);
        store(&self.files_written, done.files_written);
        store(&self.steps, done.steps);
    }

    pub(crate) fn mark_committing(&self) {
        self.committing.store(true, Ordering::Relaxed);
        self.record_step();
    }

    /// Counts a step that no other counter shows.
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
