//! Metrics of a data node, as served at `/metrics`. Names are stable; counters start with the process.

use std::time::Duration;

use metrics::{Gauge, counter, gauge, histogram};
use tidewater_common::metric::{Metric, MetricUnit};
use tidewater_common::reason::label;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::CompactionReport;

use crate::groups::Groups;

/// Metrics of a data node.
pub const METRICS: &[Metric] = &[
    Metric::counter("tidewater_write_entries_total", MetricUnit::Count)
        .describe("Log entries of writes that were proposed and have ended."),
    Metric::counter("tidewater_write_entries_failed_total", MetricUnit::Count)
        .describe("Log entries of writes that ended without an outcome for their callers."),
    Metric::counter("tidewater_writes_total", MetricUnit::Count)
        .describe("Writes in the log entries that have ended."),
    Metric::counter("tidewater_write_bytes_total", MetricUnit::Bytes)
        .describe("Encoded rows in the log entries of writes that have ended."),
    Metric::histogram("tidewater_write_entry_seconds", MetricUnit::Seconds)
        .describe("Time from the proposal of a log entry of writes to its outcome."),
    Metric::counter("tidewater_flushes_failed_total", MetricUnit::Count)
        .describe("Flushes that failed and are retried."),
    Metric::counter("tidewater_compactions_total", MetricUnit::Count)
        .describe("Compactions that were committed, on this node or on a compactor."),
    Metric::counter("tidewater_compactions_failed_total", MetricUnit::Count)
        .describe("Compactions that failed and are retried."),
    Metric::gauge("tidewater_compactions_running", MetricUnit::Count)
        .describe("Compactions of this node's regions that wait or run."),
    Metric::gauge("tidewater_compactions_quarantined", MetricUnit::Count).describe(
        "Compactions whose job failed repeatedly and whose files are left alone for a time.",
    ),
    Metric::counter("tidewater_compaction_files_in_total", MetricUnit::Count)
        .describe("Files that committed compactions read."),
    Metric::counter("tidewater_compaction_files_out_total", MetricUnit::Count)
        .describe("Files that committed compactions wrote."),
    Metric::counter("tidewater_compaction_rows_read_total", MetricUnit::Count)
        .describe("Rows that committed compactions read."),
    Metric::counter("tidewater_compaction_rows_written_total", MetricUnit::Count)
        .describe("Rows that committed compactions wrote."),
    Metric::counter("tidewater_compaction_bytes_read_total", MetricUnit::Bytes)
        .describe("Bytes that committed compactions read."),
    Metric::counter("tidewater_compaction_bytes_written_total", MetricUnit::Bytes)
        .describe("Bytes that committed compactions wrote."),
    Metric::counter("tidewater_compaction_jobs_planned_total", MetricUnit::Count)
        .describe("Compactions that were planned; each ends with one outcome."),
    Metric::counter("tidewater_compaction_jobs_total", MetricUnit::Count)
        .labels(&["outcome"])
        .describe("Planned compactions that have ended."),
    Metric::counter("tidewater_compaction_attempts_total", MetricUnit::Count)
        .describe("Attempts to run a job on a compactor."),
    Metric::counter("tidewater_compaction_retries_total", MetricUnit::Count)
        .describe("Attempts after an earlier attempt of the same job had failed."),
    Metric::counter("tidewater_compaction_refusals_total", MetricUnit::Count)
        .labels(&["reason"])
        .describe("Attempts that a compactor refused."),
    Metric::counter("tidewater_compaction_fallbacks_total", MetricUnit::Count)
        .describe("Jobs that no compactor accepted and that run locally."),
    Metric::gauge("tidewater_hook_lag_versions", MetricUnit::Count).labels(&["hook"]).describe(
        "Undelivered manifest versions of a durable hook, over the regions of this node.",
    ),
    Metric::gauge("tidewater_gc_awaited_objects", MetricUnit::Count).describe(
        "Objects that durable hooks kept from deletion in this node's last garbage collection pass.",
    ),
    Metric::counter("tidewater_control_calls_refused_total", MetricUnit::Count)
        .labels(&["call", "reason"])
        .describe("Calls to the node's groups that contradict the catalog or the group."),
    Metric::counter("tidewater_slow_operations_total", MetricUnit::Count)
        .labels(&["operation"])
        .describe("Operations that took longer than --slow-operation, except those on event tables."),
    Metric::counter("tidewater_scans_refused_total", MetricUnit::Count)
        .describe("Scans that were refused because the node or their caller had too many open."),
    Metric::counter("tidewater_scans_stalled_total", MetricUnit::Count)
        .describe("Scans that ended because their readers took nothing, or too little, for too long."),
    Metric::counter("tidewater_merge_rows_compared_total", MetricUnit::Count)
        .describe("Rows that merges of refreshes have compared, repeated work included."),
    Metric::counter("tidewater_export_rows_total", MetricUnit::Count)
        .describe("Rows in the files that exports wrote, repeated work included."),
    Metric::counter("tidewater_export_bytes_total", MetricUnit::Bytes)
        .describe("Bytes of the files that exports wrote, repeated work included."),
    Metric::counter("tidewater_export_failures_total", MetricUnit::Count)
        .labels(&["reason"])
        .describe("Failed attempts to write a region or to complete a step of an export."),
    Metric::gauge("tidewater_scan_memory_bytes", MetricUnit::Bytes)
        .describe("Memory held by scans: open files, rows being merged, messages to readers."),
    Metric::gauge("tidewater_scan_memory_limit_bytes", MetricUnit::Bytes)
        .describe("Limit of the memory held by scans."),
    Metric::gauge("tidewater_memtable_bytes", MetricUnit::Bytes)
        .describe("Unflushed rows in memory."),
    Metric::gauge("tidewater_memory_limit_bytes", MetricUnit::Bytes)
        .describe("Limit of the unflushed rows in memory."),
    Metric::gauge("tidewater_object_cache_bytes", MetricUnit::Bytes)
        .describe("Pieces of objects and decoded values in the object cache."),
    Metric::gauge("tidewater_group_apply_lag", MetricUnit::Count)
        .labels(&["group"])
        .describe("Log entries of a replica that are not applied yet."),
    Metric::gauge("tidewater_group_term", MetricUnit::Count)
        .labels(&["group"])
        .describe("Raft term of a replica."),
    Metric::gauge("tidewater_group_leads", MetricUnit::Flag)
        .labels(&["group"])
        .describe("Set if this node leads the group."),
];

/// Counts a log entry of writes that has ended; `failed`: without an outcome for its callers.
pub(crate) fn record_write_entry(writes: usize, bytes: usize, took: Duration, failed: bool) {
    counter!("tidewater_write_entries_total").increment(1);
    counter!("tidewater_writes_total").increment(writes as u64);
    counter!("tidewater_write_bytes_total").increment(bytes as u64);
    if failed {
        counter!("tidewater_write_entries_failed_total").increment(1);
    }
    histogram!("tidewater_write_entry_seconds").record(took.as_secs_f64());
}

/// Counts a flush that failed and is retried.
pub(crate) fn record_flush_failure() {
    counter!("tidewater_flushes_failed_total").increment(1);
}

/// Counts a compaction that was committed.
pub(crate) fn record_compaction(report: &CompactionReport) {
    counter!("tidewater_compactions_total").increment(1);
    counter!("tidewater_compaction_files_in_total").increment(report.files_in as u64);
    counter!("tidewater_compaction_files_out_total").increment(report.files_out as u64);
    counter!("tidewater_compaction_rows_read_total").increment(report.done.rows_read);
    counter!("tidewater_compaction_rows_written_total").increment(report.done.rows_written);
    counter!("tidewater_compaction_bytes_read_total").increment(report.done.bytes_read);
    counter!("tidewater_compaction_bytes_written_total").increment(report.done.bytes_written);
}

/// Counts a compaction that failed and is retried.
pub(crate) fn record_compaction_failure() {
    counter!("tidewater_compactions_failed_total").increment(1);
}

/// Outcome of a planned compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobOutcomeLabel {
    /// Committed by a compactor.
    Committed,
    /// Committed by this node.
    CommittedLocally,
    /// Its files were compacted by another job, truncated or dropped.
    Discarded,
    /// Cancelled by a caller or an operator.
    Cancelled,
    /// Too many attempts failed.
    Quarantined,
    /// No compactor accepted it, and it may not run on this node.
    NoCompactor,
    /// It failed on this node, or was aborted.
    Failed,
    /// The term ended; a compactor may still run it.
    Left,
}

impl JobOutcomeLabel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::CommittedLocally => "committed_here",
            Self::Discarded => "discarded",
            Self::Cancelled => "cancelled",
            Self::Quarantined => "quarantined",
            Self::NoCompactor => "untaken",
            Self::Failed => "failed",
            Self::Left => "left",
        }
    }
}

/// Counts a compaction that was planned; it ends with one outcome.
pub(crate) fn record_compaction_planned() {
    counter!("tidewater_compaction_jobs_planned_total").increment(1);
}

/// Counts the outcome of a planned compaction.
pub(crate) fn record_compaction_outcome(outcome: JobOutcomeLabel) {
    counter!("tidewater_compaction_jobs_total", "outcome" => outcome.as_str()).increment(1);
}

/// Counts an attempt on a compactor; `is_retry`: after an attempt that failed.
pub(crate) fn record_compaction_attempt(is_retry: bool) {
    counter!("tidewater_compaction_attempts_total").increment(1);
    if is_retry {
        counter!("tidewater_compaction_retries_total").increment(1);
    }
}

/// Counts a job that a compactor refused.
pub(crate) fn record_compaction_refusal(reason: Reason) {
    counter!("tidewater_compaction_refusals_total", "reason" => label(reason)).increment(1);
}

/// Counts a job that no compactor accepted and that runs on this node.
pub(crate) fn record_compaction_fallback() {
    counter!("tidewater_compaction_fallbacks_total").increment(1);
}

/// Counts a compaction that waits or runs, until the guard is dropped.
pub(crate) fn running_compaction() -> GaugeGuard {
    GaugeGuard::new(gauge!("tidewater_compactions_running"))
}

/// Counts a quarantined compaction, until the guard is dropped.
pub(crate) fn quarantined_compaction() -> GaugeGuard {
    GaugeGuard::new(gauge!("tidewater_compactions_quarantined"))
}

/// Adds 1 to a gauge until it is dropped.
#[must_use]
pub(crate) struct GaugeGuard(Gauge);

impl GaugeGuard {
    fn new(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Sets the number of undelivered manifest versions of a durable hook, over the regions that this node
/// leads.
pub(crate) fn set_hook_lag(hook: &str, versions: u64) {
    gauge!("tidewater_hook_lag_versions", "hook" => hook.to_owned()).set(versions as f64);
}

/// Sets the number of objects that a garbage collection pass kept for durable hooks.
pub(crate) fn set_awaited_objects(objects: u64) {
    gauge!("tidewater_gc_awaited_objects").set(objects as f64);
}

/// Sets the gauges of the node and its groups, once per heartbeat. One line for each group, never for
/// each region.
pub(crate) fn observe(groups: &Groups) {
    let memory = &groups.context().env.memory;
    gauge!("tidewater_memtable_bytes").set(memory.used() as f64);
    gauge!("tidewater_memory_limit_bytes").set(memory.limit() as f64);
    let scans = &groups.context().env.scan_memory;
    gauge!("tidewater_scan_memory_bytes").set(scans.used() as f64);
    gauge!("tidewater_scan_memory_limit_bytes").set(scans.limit() as f64);
    gauge!("tidewater_object_cache_bytes").set(groups.context().env.objects.bytes() as f64);
    for replica in groups.all() {
        let group = replica.group().to_string();
        let (last, applied) = replica.positions();
        let leadership = replica.leadership();
        let lag = last.get().saturating_sub(applied.get());
        gauge!("tidewater_group_apply_lag", "group" => group.clone()).set(lag as f64);
        gauge!("tidewater_group_term", "group" => group.clone()).set(leadership.term as f64);
        let leads = if leadership.is_leader { 1.0 } else { 0.0 };
        gauge!("tidewater_group_leads", "group" => group).set(leads);
    }
}

/// Counts a call that contradicts the catalog or the group.
pub(crate) fn count_refused_call(call: &'static str, reason: Reason) {
    counter!("tidewater_control_calls_refused_total", "call" => call, "reason" => label(reason))
        .increment(1);
}

/// Counts an operation that took longer than the limit of slow operations.
pub(crate) fn count_slow_operation(operation: &'static str) {
    counter!("tidewater_slow_operations_total", "operation" => operation).increment(1);
}

/// Counts a scan that was refused because too many are open.
pub(crate) fn count_refused_scan() {
    counter!("tidewater_scans_refused_total").increment(1);
}

/// Counts a scan whose reader took nothing for too long.
pub(crate) fn count_stalled_scan() {
    counter!("tidewater_scans_stalled_total").increment(1);
}

/// Counts rows that merges of refreshes have compared; rows that are compared again after a failure count again.
pub(crate) fn count_compared_rows(rows: u64) {
    counter!("tidewater_merge_rows_compared_total").increment(rows);
}

/// Counts a file that an export wrote.
pub(crate) fn record_export_file(rows: u64, bytes: u64) {
    counter!("tidewater_export_rows_total").increment(rows);
    counter!("tidewater_export_bytes_total").increment(bytes);
}

/// Counts a failed attempt to write a region or to complete a step of an export.
pub(crate) fn record_export_failure(reason: Reason) {
    counter!("tidewater_export_failures_total", "reason" => label(reason)).increment(1);
}
