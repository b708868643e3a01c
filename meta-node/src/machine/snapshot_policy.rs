//! When a snapshot of the meta group is due: writing the catalog must cost less than writing the log that the
//! snapshot replaces.

use std::sync::atomic::{AtomicU64, Ordering};

/// Number of log entries below which no snapshot is due.
const MIN_ENTRIES: u64 = 10_000;
/// Number of log entries from which a snapshot is due, whatever its size: it bounds the log on disk.
const MAX_ENTRIES: u64 = 100_000;

/// Applied log entries since the last snapshot, and the size of that snapshot.
#[derive(Debug, Default)]
pub(crate) struct SnapshotPressure {
    entries: AtomicU64,
    /// Bytes of their commands.
    log_bytes: AtomicU64,
    snapshot_bytes: AtomicU64,
}

impl SnapshotPressure {
    /// Counts an applied entry with a command of this size.
    pub(super) fn count_entry(&self, bytes: usize) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.log_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Begins to count anew, from the number of applied entries that the newest snapshot lacks: none when it is
    /// being built, or was installed. The bytes of such entries are unknown, and count as 0.
    pub(super) fn restart(&self, entries: u64) {
        self.entries.store(entries, Ordering::Relaxed);
        self.log_bytes.store(0, Ordering::Relaxed);
    }

    /// Records the size of the newest snapshot.
    pub(super) fn record_snapshot(&self, bytes: u64) {
        self.snapshot_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Returns whether a snapshot is due.
    pub(crate) fn is_due(&self) -> bool {
        let entries = self.entries.load(Ordering::Relaxed);
        let log_bytes = self.log_bytes.load(Ordering::Relaxed);
        let is_worth_it = log_bytes >= self.snapshot_bytes.load(Ordering::Relaxed);
        entries >= MAX_ENTRIES || (entries >= MIN_ENTRIES && is_worth_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_is_due_by_entries_and_bytes() {
        // (entries, bytes of each, bytes of the last snapshot, due)
        let cases = [
            (9_999, 1_000_000, 0, false),
            (10_000, 100, 0, true),
            (10_000, 100, 1_000_000, true),
            (10_000, 100, 1_000_001, false),
            (99_999, 100, 30_000_000, false),
            (100_000, 100, 30_000_000, true),
        ];
        for (entries, bytes, snapshot, due) in cases {
            let pressure = SnapshotPressure::default();
            pressure.record_snapshot(snapshot);
            (0..entries).for_each(|_| pressure.count_entry(bytes));
            assert_eq!(pressure.is_due(), due, "{entries} x {bytes} after {snapshot}");
            pressure.restart(0);
            assert!(!pressure.is_due());
            pressure.restart(MAX_ENTRIES);
            assert!(pressure.is_due(), "entries from before a restart of the node");
        }
    }
}
