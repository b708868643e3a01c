//! Metrics of a meta node. Names are stable.

use std::collections::BTreeMap;

use metrics::gauge;
use tidewater_common::metric::{Metric, MetricUnit};
use tidewater_common::problem::LastingProblem;
use tidewater_common::problem_kind::{kinds, name};

/// Metrics of a meta node.
pub const METRICS: &[Metric] =
    &[Metric::gauge("tidewater_problems", MetricUnit::Count).labels(&["kind"]).describe(
        "Problems that the meta leader reports in the cluster status, 0 on other meta nodes.",
    )];

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
