//! The most recent entries of a group, in memory.
//!
//! An entry is *flushed* once it is durable. Above the limit, flushed entries are evicted from the
//! front. Other entries stay regardless of the limit, since they exist only in memory.

use std::collections::VecDeque;

use crate::types::{Entry, EntryPayload};

/// Memory of an entry in addition to its command, in bytes.
const ENTRY_OVERHEAD: usize = 96;

#[derive(Debug)]
pub(super) struct LogTail {
    entries: VecDeque<Entry>,
    bytes: usize,
    limit: usize,
    /// Entries below this index are flushed.
    flushed_next: u64,
    /// Incremented by each truncation: a flush that began before a truncation does not cover
    /// entries appended after it at the same indexes.
    epoch: u64,
}

impl LogTail {
    pub(super) fn new(limit: usize, flushed_next: u64) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, limit, flushed_next, epoch: 0 }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the index of the first entry in memory.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.log_id.index)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an entry that follows the last one.
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry_bytes(&entry);
        self.entries.push_back(entry);
    }

    /// Removes entries at and after `index`.
    pub(super) fn truncate_from(&mut self, index: u64) {
        while self.entries.back().is_some_and(|entry| entry.log_id.index >= index) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= entry_bytes(&entry);
            }
        }
        self.flushed_next = self.flushed_next.min(index);
        self.epoch += 1;
    }

    /// Removes entries at and before `index`.
    pub(super) fn purge_upto(&mut self, index: u64) {
        while self.entries.front().is_some_and(|entry| entry.log_id.index <= index) {
            self.pop_front();
        }
        self.flushed_next = self.flushed_next.max(index + 1);
    }

    /// Marks entries of `epoch` below `next` as durable, and evicts entries above the limit.
    pub(super) fn mark_flushed(&mut self, epoch: u64, next: u64) {
        if epoch == self.epoch {
            self.flushed_next = self.flushed_next.max(next);
        }
        while self.bytes > self.limit
            && self.entries.front().is_some_and(|entry| entry.log_id.index < self.flushed_next)
        {
            self.pop_front();
        }
    }

    /// Returns the entries `start..end` in memory, limited to `max_bytes` but at least one. `start`
    /// must not be before the first entry in memory.
    pub(super) fn read(&self, start: u64, end: u64, max_bytes: usize) -> Vec<Entry> {
        let Some(first) = self.first() else { return Vec::new() };
        let skip = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut read = Vec::new();
        for entry in self.entries.iter().skip(skip) {
            bytes += entry_bytes(entry);
            if entry.log_id.index >= end || (bytes > max_bytes && !read.is_empty()) {
                break;
            }
            read.push(entry.clone());
        }
        read
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry_bytes(&entry);
        }
    }
}

/// Returns the approximate memory of an entry, in bytes.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(command) => command.0.len(),
        EntryPayload::Membership(membership) => membership.nodes().count() * 64,
    };
    payload + ENTRY_OVERHEAD
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::{Command, log_id};

    fn entry(term: u64, index: u64, bytes: usize) -> Entry {
        Entry {
            log_id: log_id(term, index),
            payload: EntryPayload::Normal(Command(Bytes::from(vec![0; bytes]))),
        }
    }

    fn indexes(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.log_id.index).collect()
    }

    #[test]
    fn unflushed_entries_stay_above_the_limit() {
        let mut tail = LogTail::new(250, 0);
        for index in 0..5 {
            tail.push(entry(1, index, 4));
        }
        tail.mark_flushed(0, 0);
        assert_eq!(tail.first(), Some(0));
        tail.mark_flushed(0, 2);
        assert_eq!(tail.first(), Some(2));
        tail.mark_flushed(0, 5);
        assert_eq!(tail.first(), Some(3));
        assert_eq!(tail.bytes(), 200);
    }

    #[test]
    fn flush_from_before_a_truncation_does_not_count() {
        let mut tail = LogTail::new(0, 0);
        for index in 0..4 {
            tail.push(entry(1, index, 4));
        }
        let before = tail.epoch();
        tail.truncate_from(2);
        tail.push(entry(2, 2, 4));
        tail.push(entry(2, 3, 4));
        tail.mark_flushed(before, 4);
        assert_eq!(tail.first(), Some(0), "nothing of the new epoch is known to be durable");
        tail.mark_flushed(tail.epoch(), 4);
        assert_eq!(tail.first(), None);
        assert_eq!(tail.bytes(), 0);
    }

    #[test]
    fn tail_reads_are_bounded_but_never_empty() {
        let mut tail = LogTail::new(10_000, 0);
        for index in 10..20 {
            tail.push(entry(1, index, 4));
        }
        assert_eq!(indexes(&tail.read(12, 15, usize::MAX)), [12, 13, 14]);
        assert_eq!(indexes(&tail.read(12, 20, 250)), [12, 13]);
        assert_eq!(indexes(&tail.read(12, 20, 0)), [12]);
        assert_eq!(indexes(&tail.read(12, 12, 0)), [0; 0]);
    }

    #[test]
    fn purging_evicts_from_the_front() {
        let mut tail = LogTail::new(10_000, 0);
        for index in 0..3 {
            tail.push(entry(1, index, 4));
        }
        tail.purge_upto(1);
        assert_eq!(tail.first(), Some(2));
        tail.purge_upto(9);
        assert_eq!(tail.first(), None);
        assert_eq!(tail.bytes(), 0);
    }
}
