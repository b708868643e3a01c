//! In-memory state of a group's log. It is authoritative; the database is its durable copy.

use parking_lot::Mutex;
use tidewater_common::ids::GroupId;

use super::error::StoreError;
use super::tail::LogTail;
use crate::types::{Entry, LogId, Vote};

/// One group's log, shared by its handles and the flusher.
#[derive(Debug)]
pub(super) struct GroupState {
    pub(super) id: GroupId,
    pub(super) log: Mutex<InMemoryLog>,
}

#[derive(Debug)]
pub(super) struct InMemoryLog {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    /// Index of the first entry of all, while none is purged: openraft may begin at any index.
    pub(super) begin: u64,
    /// Log id of the last entry; `None` when there is none.
    pub(super) last: Option<LogId>,
    pub(super) tail: LogTail,
    /// Set when the group was removed from this node: the log accepts no more changes.
    pub(super) removed: bool,
}

/// Result of comparing an append with the committed entries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CommittedComparison {
    /// It is the same log, as far as both are known here.
    Agrees,
    /// The entry is another one than the committed entry `local`, or above it in the order of logs.
    Contradicts { found: LogId, local: LogId },
    /// The entry must be compared with the stored one at its index.
    Unknown(LogId),
}

/// Source of the entries of a read.
#[derive(Debug, PartialEq)]
pub(super) enum ReadPlan {
    /// All entries are in memory.
    InMemory(Vec<Entry>),
    /// The entries `start..end` are in the database, followed by `then`.
    Stored { start: u64, end: u64, then: Vec<Entry> },
}

impl InMemoryLog {
    pub(super) fn empty(cache_bytes: usize) -> Self {
        Self {
            vote: None,
            committed: None,
            purged: None,
            begin: 0,
            last: None,
            tail: LogTail::new(cache_bytes, 0),
            removed: false,
        }
    }

    /// Returns whether no vote or entry was ever stored.
    pub(super) fn is_pristine(&self) -> bool {
        self.vote.is_none() && self.last.is_none() && self.purged.is_none()
    }

    /// Returns the index of the first entry that is not purged.
    pub(super) fn first_index(&self) -> u64 {
        self.purged.map_or(self.begin, |id| id.index + 1)
    }

    /// Returns the index after the last entry, or after the purged entries when there is none.
    pub(super) fn next_index(&self) -> u64 {
        self.last.max(self.purged).map_or(0, |id| id.index + 1)
    }

    /// Rejects entries that would leave a hole. The very first entry may have any index.
    pub(super) fn check_follows(
        &self,
        group: GroupId,
        entries: &[Entry],
    ) -> Result<(), StoreError> {
        let mut last = self.last.max(self.purged).map(|id| id.index);
        for entry in entries {
            let found = entry.log_id.index;
            if let Some(last) = last.filter(|last| *last + 1 != found) {
                return Err(StoreError::NotConsecutive { group, found, last });
            }
            last = Some(found);
        }
        Ok(())
    }

    pub(super) fn append(&mut self, entries: &[Entry]) {
        if let (None, None, Some(first)) = (self.purged, self.last, entries.first()) {
            self.begin = first.log_id.index;
        }
        for entry in entries {
            self.tail.push(entry.clone());
        }
        if let Some(entry) = entries.last() {
            self.last = Some(entry.log_id);
        }
    }

    /// Removes entries after `keep`. Returns the range of indexes to delete from the database. Changes
    /// nothing when a committed entry would be removed.
    pub(super) fn truncate_after(
        &mut self,
        group: GroupId,
        keep: Option<LogId>,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let from = keep.map_or(0, |id| id.index + 1).max(self.first_index());
        let end = self.next_index();
        if from >= end {
            return Ok(None);
        }
        if let Some(committed) = self.committed.map(|id| id.index)
            && from <= committed
        {
            return Err(StoreError::TruncatesCommitted { group, from, committed });
        }
        self.tail.truncate_from(from);
        self.last = keep.filter(|id| id.index >= self.first_index());
        Ok(Some((from, end)))
    }

    /// Compares an append of the leader of `vote` with the committed entries. Entries of one log
    /// that agree at an index agree before it: comparing the last one is enough.
    pub(super) fn compare_committed(
        &self,
        vote: &Vote,
        append: impl DoubleEndedIterator<Item = LogId>,
    ) -> CommittedComparison {
        // Openraft rejects it, and returns the newer vote.
        let is_outdated = self.vote.is_some_and(|ours| *vote < ours);
        let Some(committed) = self.committed.filter(|_| !is_outdated) else {
            return CommittedComparison::Agrees;
        };
        let mut overlap = append.rev().filter(|id| id.index <= committed.index);
        let Some(found) = overlap.next() else { return CommittedComparison::Agrees };
        let contradiction = CommittedComparison::Contradicts { found, local: committed };
        if found > committed || (found.index == committed.index && found != committed) {
            return contradiction;
        }
        if found.index == committed.index || found.index < self.first_index() {
            return CommittedComparison::Agrees;
        }
        CommittedComparison::Unknown(found)
    }

    /// Purges entries up to `upto`.
    pub(super) fn purge(&mut self, upto: LogId) {
        if self.purged >= Some(upto) {
            return;
        }
        self.purged = Some(upto);
        self.tail.purge_upto(upto.index);
        // An installed snapshot may be ahead of the log.
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = None;
        }
    }

    /// Plans a read of `start..end`, limited to the entries of the log.
    pub(super) fn plan_read(&self, start: u64, end: u64, max_bytes: usize) -> ReadPlan {
        let start = start.max(self.first_index());
        let end = match self.last {
            Some(last) => end.min(last.index + 1),
            None => start,
        };
        if start >= end {
            return ReadPlan::InMemory(Vec::new());
        }
        let held_from = self.tail.first().unwrap_or(u64::MAX);
        if start >= held_from {
            return ReadPlan::InMemory(self.tail.read(start, end, max_bytes));
        }
        // The entries after the stored part are included only in an unbounded read: a bounded read
        // may end early.
        let then = if end > held_from && max_bytes == usize::MAX {
            self.tail.read(held_from, end, usize::MAX)
        } else {
            Vec::new()
        };
        ReadPlan::Stored { start, end: end.min(held_from), then }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
