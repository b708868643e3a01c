//! Counters of a stub world.

use std::sync::atomic::{AtomicU64, Ordering};

/// Number of events since the start of the world, over all its nodes.
#[derive(Debug, Default)]
pub struct StubCounters {
    /// Heartbeats that the meta service accepted.
    pub heartbeats: AtomicU64,
    /// Heartbeats without success.
    pub failed_heartbeats: AtomicU64,
    /// Snapshots that data nodes received from their catalog watches.
    pub snapshots: AtomicU64,
    /// Deltas that data nodes received from their catalog watches.
    pub deltas: AtomicU64,
    /// Calls of the meta leader to data nodes.
    pub control_calls: AtomicU64,
    /// Calls that were refused because the node's catalog did not reach their revision in time.
    pub calls_ahead: AtomicU64,
    /// Writes that were acknowledged.
    pub writes: AtomicU64,
    /// Writes that named another schema version than their region has.
    pub stale_writes: AtomicU64,
    /// Lists of cursors of durable hooks.
    pub cursor_lists: AtomicU64,
    /// Lists that were not the known ones.
    pub changed_cursor_lists: AtomicU64,
}

impl StubCounters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
