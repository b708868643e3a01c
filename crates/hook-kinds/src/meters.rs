//! Metrics of hook kinds. Names are stable; counters start with the process.

use metrics::{counter, gauge};
use tidewater_common::metric::{Metric, MetricUnit};

/// Metrics of hook kinds, on the nodes that call hooks.
pub const METRICS: &[Metric] = &[
    Metric::gauge("tidewater_hook_backlog", MetricUnit::Count)
        .labels(&["hook"])
        .describe("Pending calls in the queue of a webhook, when its last attempt began."),
    Metric::counter("tidewater_hook_lost_total", MetricUnit::Count)
        .labels(&["hook"])
        .describe("Calls that the receiver of a webhook rejected and that were dropped."),
];

/// Sets the number of pending calls of a webhook.
pub(crate) fn set_backlog(hook: &str, calls: usize) {
    gauge!("tidewater_hook_backlog", "hook" => hook.to_owned()).set(calls as f64);
}

/// Counts a call that was dropped because the receiver rejected it.
pub(crate) fn record_lost_call(hook: &str) {
    counter!("tidewater_hook_lost_total", "hook" => hook.to_owned()).increment(1);
}
