//! Metrics of a compactor. Names are stable; counters start with the process.

use metrics::{counter, gauge};
use tidewater_common::metric::{Metric, MetricUnit};
use tidewater_proto::v1::Reason;
use tidewater_region_engine::compaction::ProgressSnapshot;
use tidewater_region_engine::compaction::admission::{JobCapacity, JobsInUse};

/// Metrics of a compactor.
pub const METRICS: &[Metric] = &[
    Metric::gauge("tidewater_compactor_slots", MetricUnit::Count)
        .describe("Jobs that the compactor may run at the same time."),
    Metric::gauge("tidewater_compactor_jobs_running", MetricUnit::Count)
        .describe("Jobs that are in progress."),
    Metric::gauge("tidewater_compactor_memory_limit_bytes", MetricUnit::Bytes)
        .describe("Memory that all jobs share."),
    Metric::gauge("tidewater_compactor_memory_used_bytes", MetricUnit::Bytes)
        .describe("Memory that is reserved for the jobs in progress."),
    Metric::gauge("tidewater_compactor_draining", MetricUnit::Flag)
        .describe("Set while the compactor accepts no jobs because it stops."),
    Metric::gauge("tidewater_compactor_regions_open", MetricUnit::Count)
        .describe("Regions that owners have opened on the compactor."),
    Metric::counter("tidewater_compactor_jobs_total", MetricUnit::Count)
        .labels(&["outcome"])
        .describe("Jobs that have ended."),
    Metric::counter("tidewater_compactor_rows_read_total", MetricUnit::Count)
        .describe("Rows that ended jobs read."),
    Metric::counter("tidewater_compactor_rows_written_total", MetricUnit::Count)
        .describe("Rows that ended jobs wrote."),
    Metric::counter("tidewater_compactor_bytes_read_total", MetricUnit::Bytes)
        .describe("Bytes that ended jobs read."),
    Metric::counter("tidewater_compactor_bytes_written_total", MetricUnit::Bytes)
        .describe("Bytes that ended jobs wrote."),
    Metric::counter("tidewater_compactor_regions_opened_total", MetricUnit::Count)
        .describe("Regions that owners have opened."),
    Metric::counter("tidewater_compactor_refusals_total", MetricUnit::Count)
        .labels(&["reason"])
        .describe("Calls that were refused before any work."),
];

/// Sets the gauges: shared capacity, resources in use, open handles.
pub(crate) fn observe(capacity: JobCapacity, in_use: JobsInUse, handles: usize) {
    gauge!("tidewater_compactor_slots").set(capacity.slots as f64);
    gauge!("tidewater_compactor_jobs_running").set(in_use.jobs as f64);
    gauge!("tidewater_compactor_memory_limit_bytes").set(capacity.memory_bytes as f64);
    gauge!("tidewater_compactor_memory_used_bytes").set(in_use.memory_bytes as f64);
    gauge!("tidewater_compactor_draining").set(if in_use.draining { 1.0 } else { 0.0 });
    gauge!("tidewater_compactor_regions_open").set(handles as f64);
}

/// Records the end of a job: committed, inputs_gone, below_floor, cancelled, unknown or failed.
pub(crate) fn job_ended(outcome: &'static str, done: ProgressSnapshot) {
    counter!("tidewater_compactor_jobs_total", "outcome" => outcome).increment(1);
    counter!("tidewater_compactor_rows_read_total").increment(done.rows_read);
    counter!("tidewater_compactor_rows_written_total").increment(done.rows_written);
    counter!("tidewater_compactor_bytes_read_total").increment(done.bytes_read);
    counter!("tidewater_compactor_bytes_written_total").increment(done.bytes_written);
}

/// Records that a region was opened.
pub(crate) fn region_opened() {
    counter!("tidewater_compactor_regions_opened_total").increment(1);
}

/// Records a call that was refused before any work.
pub(crate) fn call_refused(reason: Reason) {
    let reason = tidewater_common::reason::label(reason);
    counter!("tidewater_compactor_refusals_total", "reason" => reason).increment(1);
}
