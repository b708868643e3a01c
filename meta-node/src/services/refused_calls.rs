//! Calls of nodes that contradict the catalog: counted, and logged at a bounded rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::log_rate::LogRate;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

use crate::meters;

/// Time between two lines of the log.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Count and log of one service.
#[derive(Debug, Clone)]
pub(super) struct RefusedCalls {
    lines: Arc<LogRate>,
}

impl RefusedCalls {
    pub(super) fn new() -> Self {
        Self { lines: Arc::new(LogRate::new(LOG_INTERVAL)) }
    }

    /// Records the error of a call, if no node with a correct view of the cluster sends such a call.
    pub(super) fn record(&self, call: &'static str, problem: &Refusal, from: Option<SocketAddr>) {
        if !is_contradiction(problem.reason) {
            return;
        }
        meters::count_refused_call(call, problem.reason);
        if let Some(count) = self.lines.due(Instant::now().into_std()) {
            let from = from.map_or_else(|| "unknown".to_owned(), |from| from.to_string());
            tracing::warn!(call, %from, count, %problem, "refused a call of a node");
        }
    }

    /// Records reports of groups that no replica of this node sends.
    pub(super) fn record_ignored(&self, node: u64, reports: usize, from: Option<SocketAddr>) {
        meters::count_ignored_reports(reports);
        if let Some(count) = self.lines.due(Instant::now().into_std()) {
            let from = from.map_or_else(|| "unknown".to_owned(), |from| from.to_string());
            tracing::warn!(node, %from, count, "ignored reports of groups that no replica sends");
        }
    }
}

fn is_contradiction(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::InvalidArgument | Reason::WrongCluster | Reason::WrongNode | Reason::RoleMismatch
    )
}
