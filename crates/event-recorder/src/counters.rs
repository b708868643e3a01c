//! Counters of a recorder.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of a recorder since it was created.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    recorded: AtomicU64,
    filtered: AtomicU64,
    spooled: AtomicU64,
    written: AtomicU64,
    retried: AtomicU64,
    set_aside: AtomicU64,
    dropped: AtomicU64,
}

/// Values of the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Events that were passed to the recorder.
    pub recorded: u64,
    /// Events of filtered types, and those that cannot be made rows.
    pub filtered: u64,
    /// Events that the spool has taken.
    pub spooled: u64,
    /// Events that the handler has persisted.
    pub written: u64,
    /// Attempts of the handler that failed.
    pub retried: u64,
    /// Events that were set aside.
    pub set_aside: u64,
    /// Events that found no room, or were evicted.
    pub dropped: u64,
}

impl Counters {
    pub(crate) fn count_recorded(&self) {
        self.recorded.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_filtered(&self) {
        self.filtered.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_spooled(&self, events: u64) {
        self.spooled.fetch_add(events, Ordering::Relaxed);
    }

    pub(crate) fn count_written(&self, events: u64) {
        self.written.fetch_add(events, Ordering::Relaxed);
    }

    pub(crate) fn count_retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_set_aside(&self, events: u64) {
        self.set_aside.fetch_add(events, Ordering::Relaxed);
    }

    pub(crate) fn count_dropped(&self, events: u64) {
        self.dropped.fetch_add(events, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> EventCounts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EventCounts {
            recorded: value(&self.recorded),
            filtered: value(&self.filtered),
            spooled: value(&self.spooled),
            written: value(&self.written),
            retried: value(&self.retried),
            set_aside: value(&self.set_aside),
            dropped: value(&self.dropped),
        }
    }
}
