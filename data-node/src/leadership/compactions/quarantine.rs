//! Jobs that are not tried any more. Their files are held, so that nobody chooses them again.

use tidewater_region_engine::EngineError;
use tidewater_region_engine::region::{CompactionOutcome, PlannedCompaction};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::life::JobPolicy;
use crate::compactors::board::Posted;
use crate::meters;

/// Holds the files of a job until the time of `policy` is over, somebody has them let go, `term` ends, or
/// they are gone by themselves: truncated, dropped, or merged by an attempt that came late.
pub(super) async fn held(
    planned: PlannedCompaction,
    posted: Posted,
    let_go: CancellationToken,
    term: CancellationToken,
    policy: JobPolicy,
) {
    let _counted = meters::compaction_quarantined();
    let end = Instant::now() + policy.quarantine;
    while Instant::now() < end {
        tokio::select! {
            () = sleep_until(end.min(Instant::now() + policy.quarantine_look)) => {}
            () = let_go.cancelled() => break,
            () = term.cancelled() => break,
        }
        let settled = tokio::select! {
            settled = planned.resolve_outcome() => settled,
            () = let_go.cancelled() => break,
            () = term.cancelled() => break,
        };
        match settled {
            Ok(CompactionOutcome::Open) => {}
            Ok(CompactionOutcome::Superseded | CompactionOutcome::Committed { .. })
            | Err(EngineError::Closed { .. }) => {
                break;
            }
            // The manifest cannot be read now.
            Err(_) => {}
        }
    }
    info!(job = %planned.plan().job_id, "a compaction is no longer quarantined");
    // In this order: whoever sees that the job is gone finds its files.
    drop(planned);
    drop(posted);
}
