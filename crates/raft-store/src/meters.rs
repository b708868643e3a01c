//! Metrics of the log store and the Raft service. Names are stable.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tidewater_common::metric::{Metric, MetricUnit};

use crate::log_store::usage::LogUsage;

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
    Metric::gauge("tidewater_raft_log_disk_bytes", MetricUnit::Bytes)
        .describe("Files of Raft log entries, without the write-ahead log of the log store."),
    Metric::gauge("tidewater_raft_log_live_bytes", MetricUnit::Bytes)
        .describe("Raft log entries in these files that are not purged."),
    Metric::gauge("tidewater_raft_log_wal_bytes", MetricUnit::Bytes)
        .describe("Write-ahead log of the log store."),
    Metric::counter("tidewater_raft_log_released_bytes_total", MetricUnit::Bytes)
        .describe("Disk space of purged Raft log entries that was released."),
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

/// Sets the bytes of the logs on disk.
pub(crate) fn set_log_usage(usage: &LogUsage) {
    gauge!("tidewater_raft_log_disk_bytes").set(usage.file_bytes as f64);
    gauge!("tidewater_raft_log_live_bytes").set(usage.live_bytes as f64);
    gauge!("tidewater_raft_log_wal_bytes").set(usage.wal_bytes as f64);
}

/// Counts bytes of log files that were released.
pub(crate) fn record_released(bytes: u64) {
    counter!("tidewater_raft_log_released_bytes_total").increment(bytes);
}

/// Counts a Raft message that was refused, by the rule that it breaks.
pub(crate) fn count_refused_message(reason: &'static str) {
    counter!("tidewater_raft_messages_refused_total", "reason" => reason).increment(1);
}
