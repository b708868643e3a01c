//! Bytes of log since the last snapshot, and the part of the log that may be purged.
//!
//! Snapshots are due by bytes of log, and a tail of bytes is kept for slow followers: entries of a
//! data group differ in size by a factor of a million, so counting entries bounds nothing.

use std::collections::VecDeque;

use tidewater_common::ids::LogIndex;

/// Number of marks kept; the tail is cut at one of them.
const MARKS: usize = 64;

/// Counter of the bytes of applied entries.
#[derive(Debug, Clone)]
pub struct LogBytes {
    tail: u64,
    total: u64,
    since_snapshot: u64,
    // (index, total up to and including it), one for about every tail / MARKS bytes.
    marks: VecDeque<(LogIndex, u64)>,
}

impl LogBytes {
    /// `tail`: bytes of log to keep below a snapshot for followers that lag.
    pub fn new(tail: u64) -> Self {
        Self { tail, total: 0, since_snapshot: 0, marks: VecDeque::new() }
    }

    /// Records that an entry of this size was applied.
    pub fn record_applied(&mut self, index: LogIndex, bytes: u64) {
        self.total = self.total.saturating_add(bytes);
        self.since_snapshot = self.since_snapshot.saturating_add(bytes);
        let step = self.tail / MARKS as u64;
        if self.marks.back().is_none_or(|(_, at)| self.total - at > step) {
            self.marks.push_back((index, self.total));
        }
        // Keeps as the first mark the last one that is at least a whole tail back.
        while self.marks.get(1).is_some_and(|(_, at)| self.total - at >= self.tail) {
            self.marks.pop_front();
        }
    }

    /// Bytes applied since the last snapshot was begun.
    pub fn since_snapshot(&self) -> u64 {
        self.since_snapshot
    }

    /// Records that a snapshot was started.
    pub fn record_snapshot(&mut self) {
        self.since_snapshot = 0;
    }

    /// Returns the index up to which the log may be purged, keeping the tail, if a snapshot covers
    /// `snapshot`.
    pub fn purge_up_to(&self, snapshot: LogIndex) -> Option<LogIndex> {
        let (index, at) = *self.marks.front()?;
        (self.total - at >= self.tail).then(|| index.min(snapshot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_resets_the_byte_count() {
        let mut log = LogBytes::new(100);
        log.record_applied(LogIndex(1), 60);
        log.record_applied(LogIndex(2), 60);
        assert_eq!(log.since_snapshot(), 120);
        log.record_snapshot();
        assert_eq!(log.since_snapshot(), 0);
    }

    #[test]
    fn purge_keeps_the_tail_and_entries_above_the_snapshot() {
        let mut log = LogBytes::new(100);
        assert_eq!(log.purge_up_to(LogIndex(9)), None);
        for index in 1..=30 {
            log.record_applied(LogIndex(index), 10);
            // Ten entries are the tail; the eleventh allows the first purge.
            assert_eq!(log.purge_up_to(LogIndex(index)).is_some(), index > 10, "{index}");
        }
        // Entries 21 to 30 are the tail.
        assert_eq!(log.purge_up_to(LogIndex(30)), Some(LogIndex(20)));
        assert_eq!(log.purge_up_to(LogIndex(5)), Some(LogIndex(5)));
    }

    #[test]
    fn log_byte_marks_are_bounded() {
        let mut log = LogBytes::new(1 << 20);
        for index in 0..1_000_000 {
            log.record_applied(LogIndex(index), 7);
        }
        assert!(log.marks.len() <= MARKS + 2);
    }
}
