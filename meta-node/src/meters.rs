//! Metrics of meta nodes. Names are stable.

use metrics::gauge;
use tidewater_common::metric::{Metric, MetricUnit};

/// Metrics of meta nodes.
pub const METRICS: &[Metric] = &[Metric::gauge("tidewater_meta_state_differs", MetricUnit::Count)
    .describe(
        "Whether this meta node's catalog differs from the leader's at the same log index (1 or 0).",
    )];

/// Sets whether the state of this replica differs from the leader's.
pub(crate) fn set_state_differs(differs: bool) {
    gauge!("tidewater_meta_state_differs").set(f64::from(u8::from(differs)));
}
