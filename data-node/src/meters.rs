//! What `/metrics` shows of a data node. Names are stable; counters are since the process began.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tidewater_proto::v1::Reason;
use tidewater_region_engine::CompactionReport;

use crate::groups::Groups;

/// One log entry of writes was answered.
pub(crate) fn entry(writes: usize, bytes: usize, took: Duration, unanswered: bool) {
    counter!("tidewater_write_entries_total").increment(1);
    counter!("tidewater_writes_total").increment(writes as u64);
    counter!("tidewater_write_bytes_total").increment(bytes as u64);
    if unanswered {
        counter!("tidewater_write_entries_failed_total").increment(1);
    }
    histogram!("tidewater_write_entry_seconds").record(took.as_secs_f64());
}

/// A region was flushed.
pub(crate) fn flushed(rows: u64, bytes: u64) {
    counter!("tidewater_flushes_total").increment(1);
    counter!("tidewater_flush_rows_total").increment(rows);
    counter!("tidewater_flush_bytes_total").increment(bytes);
}

/// A flush failed and is tried again.
pub(crate) fn flush_failed() {
    counter!("tidewater_flushes_failed_total").increment(1);
}

/// A compaction was committed.
pub(crate) fn compacted(report: &CompactionReport) {
    counter!("tidewater_compactions_total").increment(1);
    counter!("tidewater_compaction_files_in_total").increment(report.files_in as u64);
    counter!("tidewater_compaction_files_out_total").increment(report.files_out as u64);
    counter!("tidewater_compaction_rows_read_total").increment(report.done.rows_read);
    counter!("tidewater_compaction_rows_written_total").increment(report.done.rows_written);
    counter!("tidewater_compaction_bytes_read_total").increment(report.done.bytes_read);
    counter!("tidewater_compaction_bytes_written_total").increment(report.done.bytes_written);
}

/// A compaction failed and is tried again.
pub(crate) fn compaction_failed() {
    counter!("tidewater_compactions_failed_total").increment(1);
}

/// How a planned compaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobOutcome {
    /// By a compactor.
    Committed,
    /// By this node.
    CommittedHere,
    /// Its files were merged by others, truncated or dropped.
    Discarded,
    /// Somebody cancelled it.
    Cancelled,
    /// Too many attempts failed.
    Quarantined,
    /// No compactor takes it.
    Untaken,
    /// It failed on this node.
    Failed,
    /// The term ended; it may run on.
    Left,
}

impl JobOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::CommittedHere => "committed_here",
            Self::Discarded => "discarded",
            Self::Cancelled => "cancelled",
            Self::Quarantined => "quarantined",
            Self::Untaken => "untaken",
            Self::Failed => "failed",
            Self::Left => "left",
        }
    }
}

/// A compaction was planned: it ends with one outcome.
pub(crate) fn compaction_planned() {
    counter!("tidewater_compaction_jobs_planned_total").increment(1);
}

/// A planned compaction ended.
pub(crate) fn compaction_job_ended(outcome: JobOutcome) {
    counter!("tidewater_compaction_jobs_total", "outcome" => outcome.as_str()).increment(1);
}

/// A compactor is asked to carry a job out; `again`: after an attempt that failed.
pub(crate) fn compaction_attempt(again: bool) {
    counter!("tidewater_compaction_attempts_total").increment(1);
    if again {
        counter!("tidewater_compaction_retries_total").increment(1);
    }
}

/// A compactor did not take a job.
pub(crate) fn compaction_refused(reason: Reason) {
    let reason = reason.as_str_name().trim_start_matches("REASON_").to_lowercase();
    counter!("tidewater_compaction_refusals_total", "reason" => reason).increment(1);
}

/// A job that no compactor takes is carried out here.
pub(crate) fn compaction_fell_back() {
    counter!("tidewater_compaction_fallbacks_total").increment(1);
}

/// Counts a compaction that waits or runs, until it is dropped.
pub(crate) fn compaction_runs() -> Gauged {
    Gauged::new("tidewater_compactions_running")
}

/// Counts a compaction that is quarantined, until it is dropped.
pub(crate) fn compaction_quarantined() -> Gauged {
    Gauged::new("tidewater_compactions_quarantined")
}

/// Counts one, until it is dropped.
#[must_use]
pub(crate) struct Gauged(&'static str);

impl Gauged {
    fn new(name: &'static str) -> Self {
        gauge!(name).increment(1.0);
        Self(name)
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        gauge!(self.0).decrement(1.0);
    }
}

/// Versions that a durable hook has not been told of, of the regions that this node leads.
pub(crate) fn hook_lag(hook: &str, versions: u64) {
    gauge!("tidewater_hook_lag_versions", "hook" => hook.to_owned()).set(versions as f64);
}

/// What is looked at once per heartbeat: a line for each group, never for each region.
pub(crate) fn observe(groups: &Groups) {
    let memory = &groups.context().env.memory;
    gauge!("tidewater_memtable_bytes").set(memory.used() as f64);
    gauge!("tidewater_memory_limit_bytes").set(memory.limit() as f64);
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
