//! Jobs that are not tried any more. Their files are held, so that nobody chooses them again.

use std::time::Duration;

use tidewater_region_engine::EngineError;
use tidewater_region_engine::region::{PlannedCompaction, Settled};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::compactors::board::Posted;
use crate::meters;

/// How often it is looked whether the files are there still.
const LOOK: Duration = Duration::from_secs(60);

/// Holds the files of a job until `span` is over, somebody has them let go, `term` ends, or they are gone
/// by themselves: truncated, dropped, or merged by an attempt that came late.
pub(super) async fn held(
    planned: PlannedCompaction,
    posted: Posted,
    let_go: CancellationToken,
    term: CancellationToken,
    span: Duration,
) {
    let _counted = meters::compaction_quarantined();
    let end = Instant::now() + span;
    while Instant::now() < end {
        tokio::select! {
            () = sleep_until(end.min(Instant::now() + LOOK)) => {}
            () = let_go.cancelled() => break,
            () = term.cancelled() => break,
        }
        let settled = tokio::select! {
            settled = planned.settle() => settled,
            () = let_go.cancelled() => break,
            () = term.cancelled() => break,
        };
        match settled {
            Ok(Settled::Open) => {}
            Ok(Settled::Gone | Settled::Committed { .. }) | Err(EngineError::Closed { .. }) => {
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
