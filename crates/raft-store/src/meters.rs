//! Metrics of the log store and the Raft service. Names are stable.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tidewater_common::metric::{Metric, MetricUnit};

/// Metrics of the log store and the Raft service, which meta nodes and data nodes have.
pub const METRICS: &[Metric] = &[
    Metric::histogram("tidewater_raft_fsync_seconds", MetricUnit::Seconds)
        .describe("Time to write and sync one batch to the log store."),
    Metric::histogram("tidewater_raft_batch_entries", MetricUnit::Count)
        .describe("Log entries of all groups in one synced batch."),
    Metric::histogram("tidewater_raft_batch_bytes", MetricUnit::Bytes)
        .describe("Size of one synced batch."),
    Metric::gauge("tidewater_raft_disk_free_bytes", MetricUnit::Bytes)
        .describe("Free space on the disk of the data directory, when it was last checked."),
    Metric::counter("tidewater_raft_messages_refused_total", MetricUnit::Count)
        .labels(&["reason"])
        .describe("Raft messages that were refused because no member of their group sends them."),
];

/// Records a batch that was written and synced.
pub(crate) fn record_sync(took: Duration, entries: u64, bytes: usize) {
    histogram!("tidewater_raft_fsync_seconds").record(took);
    histogram!("tidewater_raft_batch_entries").record(entries as f64);
    histogram!("tidewater_raft_batch_bytes").record(bytes as f64);
}

/// Sets the free space on the disk of the data directory.
pub(crate) fn set_disk_free(bytes: u64) {
    gauge!("tidewater_raft_disk_free_bytes").set(bytes as f64);
}

/// Counts a Raft message that was refused, by the rule that it breaks.
pub(crate) fn count_refused_message(reason: &'static str) {
    counter!("tidewater_raft_messages_refused_total", "reason" => reason).increment(1);
}
