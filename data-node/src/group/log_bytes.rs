//! How much log there is since the last snapshot, and how much of it may be purged.
//!
//! Snapshots are due by bytes of log, and a tail of bytes is kept for slow followers: entries of a
//! data group differ in size by a factor of a million, so counting entries bounds nothing.

use std::collections::VecDeque;

use tidewater_common::ids::LogIndex;

/// Marks kept: the tail is cut at one of them.
const MARKS: usize = 64;

/// Counts the bytes of applied entries.
#[derive(Debug, Clone)]
pub struct LogBytes {
    tail: u64,
    total: u64,
    since_snapshot: u64,
    // (index, total up to and including it), one about every tail / MARKS bytes.
    marks: VecDeque<(LogIndex, u64)>,
}

impl LogBytes {
    /// `tail`: bytes of log to keep before a snapshot for followers that lag.
    pub fn new(tail: u64) -> Self {
        Self { tail, total: 0, since_snapshot: 0, marks: VecDeque::new() }
    }

    /// An entry of so many bytes was applied.
    pub fn applied(&mut self, index: LogIndex, bytes: u64) {
        self.total = self.total.saturating_add(bytes);
        self.since_snapshot = self.since_snapshot.saturating_add(bytes);
        let step = self.tail / MARKS as u64;
        if self.marks.back().is_none_or(|(_, at)| self.total - at > step) {
            self.marks.push_back((index, self.total));
        }
        // The first mark stays the last one that is a whole tail away.
        while self.marks.get(1).is_some_and(|(_, at)| self.total - at >= self.tail) {
            self.marks.pop_front();
        }
    }

    /// Bytes applied since the last snapshot was begun.
    pub fn since_snapshot(&self) -> u64 {
        self.since_snapshot
    }

    /// A snapshot was begun.
    pub fn snapshot_begun(&mut self) {
        self.since_snapshot = 0;
    }

    /// Up to where the log may be purged, the tail kept, when a snapshot covers `snapshot`.
    pub fn purge_up_to(&self, snapshot: LogIndex) -> Option<LogIndex> {
        let (index, at) = *self.marks.front()?;
        (self.total - at >= self.tail).then(|| index.min(snapshot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_since_the_snapshot_start_over() {
        let mut log = LogBytes::new(100);
        log.applied(LogIndex(1), 60);
        log.applied(LogIndex(2), 60);
        assert_eq!(log.since_snapshot(), 120);
        log.snapshot_begun();
        assert_eq!(log.since_snapshot(), 0);
    }

    #[test]
    fn a_tail_is_kept_and_nothing_above_the_snapshot_goes() {
        let mut log = LogBytes::new(100);
        assert_eq!(log.purge_up_to(LogIndex(9)), None);
        for index in 1..=30 {
            log.applied(LogIndex(index), 10);
            // Ten entries are the tail, and the eleventh is the first above it.
            assert_eq!(log.purge_up_to(LogIndex(index)).is_some(), index > 10, "{index}");
        }
        // Entries 21 to 30 are the tail.
        assert_eq!(log.purge_up_to(LogIndex(30)), Some(LogIndex(20)));
        assert_eq!(log.purge_up_to(LogIndex(5)), Some(LogIndex(5)));
    }

    #[test]
    fn marks_are_bounded() {
        let mut log = LogBytes::new(1 << 20);
        for index in 0..1_000_000 {
            log.applied(LogIndex(index), 7);
        }
        assert!(log.marks.len() <= MARKS + 2);
    }
}
