//! Metrics of a meta node. Names are stable; counters start with the process.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tidewater_common::metric::{Metric, MetricUnit};
use tidewater_common::problem::LastingProblem;
use tidewater_common::problem_kind::{kinds, name};
use tidewater_common::reason::label;
use tidewater_proto::v1::Reason;

/// Metrics of a meta node.
pub const METRICS: &[Metric] = &[
    Metric::counter("tidewater_meta_calls_refused_total", MetricUnit::Count)
        .labels(&["call", "reason"])
        .describe("Calls of nodes that contradict the catalog."),
    Metric::counter("tidewater_group_reports_ignored_total", MetricUnit::Count)
        .describe("Reports of groups in heartbeats that no replica sends."),
    Metric::histogram("tidewater_meta_round_seconds", MetricUnit::Seconds)
        .describe("Time of a round of the placement planner on the meta leader."),
    Metric::gauge("tidewater_meta_state_differs", MetricUnit::Count).describe(
        "Set to 1 while this meta node's catalog differs from the leader's at the same log index, else 0.",
    ),
    Metric::counter("tidewater_barriers_total", MetricUnit::Count)
        .describe("Barriers that this node has sent as meta leader."),
    Metric::histogram("tidewater_barrier_call_seconds", MetricUnit::Seconds).describe(
        "Time of a call that begins an epoch in the groups that a data node leads, until they have applied it.",
    ),
    Metric::gauge("tidewater_barrier_late_groups", MetricUnit::Count).describe(
        "Data groups with a leader that have not applied a barrier before the next one, on the meta leader.",
    ),
    Metric::gauge("tidewater_problems", MetricUnit::Count).labels(&["kind"]).describe(
        "Problems that the meta leader reports in the cluster status, 0 on other meta nodes.",
    ),
];

/// Counts a call of a node that contradicts the catalog.
pub(crate) fn count_refused_call(call: &'static str, reason: Reason) {
    let reason = label(reason);
    counter!("tidewater_meta_calls_refused_total", "call" => call, "reason" => reason).increment(1);
}

/// Counts reports of groups that were ignored.
pub(crate) fn count_ignored_reports(reports: usize) {
    counter!("tidewater_group_reports_ignored_total").increment(reports as u64);
}

/// Records the time of a round of the planner.
pub(crate) fn record_round(taken: Duration) {
    histogram!("tidewater_meta_round_seconds").record(taken.as_secs_f64());
}

/// Counts a barrier.
pub(crate) fn count_barrier() {
    counter!("tidewater_barriers_total").increment(1);
}

/// Records the time of a call of a barrier.
pub(crate) fn record_barrier_call(taken: Duration) {
    histogram!("tidewater_barrier_call_seconds").record(taken.as_secs_f64());
}

/// Sets the number of groups that have not applied the last barrier.
pub(crate) fn set_late_groups(groups: usize) {
    gauge!("tidewater_barrier_late_groups").set(groups as f64);
}

/// Sets whether the state of this replica differs from the leader's.
pub(crate) fn set_state_differs(differs: bool) {
    gauge!("tidewater_meta_state_differs").set(f64::from(u8::from(differs)));
}

/// Sets the number of problems of each kind.
pub(crate) fn set_problems(problems: &[LastingProblem]) {
    let mut counts: BTreeMap<_, u32> = kinds().map(|kind| (kind, 0)).collect();
    for lasting in problems {
        *counts.entry(lasting.problem.kind).or_default() += 1;
    }
    for (kind, count) in counts {
        gauge!("tidewater_problems", "kind" => name(kind)).set(f64::from(count));
    }
}
