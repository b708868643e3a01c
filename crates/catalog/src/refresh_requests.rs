//! Requests to the watcher to refresh the catalog. Callers that wait at the same time share one
//! refresh.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Number of reads of the catalog from the meta service, apart from the watch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CatalogReads {
    /// Reads of the whole catalog, at least the one with which the watcher began.
    pub snapshots: u64,
    /// Reads of the changes since the known revision.
    pub changes: u64,
    /// Waits of refused calls for a change of the catalog on the watch.
    pub waits: u64,
}

/// Requests for refreshes, and what is known of the catalog's age.
#[derive(Debug, Default)]
pub struct RefreshRequests {
    /// Number of the newest request; requests count from 1.
    newest: AtomicU64,
    added: Notify,
    /// Latest time at which the published catalog was the newest one.
    current_at: Mutex<Option<Instant>>,
    snapshots: AtomicU64,
    changes: AtomicU64,
    waits: AtomicU64,
}

impl RefreshRequests {
    /// Adds a request and returns its number. A refresh serves the requests added before its start only:
    /// it may miss a change that precedes a later request.
    pub fn add(&self) -> u64 {
        let number = self.newest.fetch_add(1, Ordering::SeqCst) + 1;
        self.added.notify_one();
        number
    }

    /// Waits until a request was added since the last call. May return without one.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    /// Returns the number of the newest request.
    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::SeqCst)
    }

    /// Records that the published catalog was the newest one at a time.
    pub(crate) fn record_current(&self, at: Instant) {
        let mut current = self.current_at.lock();
        *current = current.max(Some(at));
    }

    /// Returns whether the published catalog was the newest one at `since` or later.
    pub fn is_current_since(&self, since: Instant) -> bool {
        self.current_at.lock().is_some_and(|at| at >= since)
    }

    pub(crate) fn count_snapshot(&self) {
        self.snapshots.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_changes(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a wait of a refused call.
    pub fn count_wait(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the numbers of reads so far.
    pub fn reads(&self) -> CatalogReads {
        CatalogReads {
            snapshots: self.snapshots.load(Ordering::Relaxed),
            changes: self.changes.load(Ordering::Relaxed),
            waits: self.waits.load(Ordering::Relaxed),
        }
    }
}
