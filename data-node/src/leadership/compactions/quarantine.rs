//! Quarantine of jobs that failed too often: their files are held, so that no other job picks them.

use tidewater_region_engine::EngineError;
use tidewater_region_engine::region::{CompactionOutcome, PlannedCompaction};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::retry_policy::JobPolicy;
use crate::compactors::registry::RegisteredJob;
use crate::meters;

/// Holds the files of a job until the quarantine of `policy` is over, `release` is cancelled, `term`
/// ends, or the files are no longer live: truncated, dropped, or compacted by a late attempt.
pub(super) async fn hold_files(
    planned: PlannedCompaction,
    registered: RegisteredJob,
    release: CancellationToken,
    term: CancellationToken,
    policy: JobPolicy,
) {
    let _quarantined = meters::quarantined_compaction();
    let end = Instant::now() + policy.quarantine;
    while Instant::now() < end {
        tokio::select! {
            () = sleep_until(end.min(Instant::now() + policy.quarantine_check)) => {}
            () = release.cancelled() => break,
            () = term.cancelled() => break,
        }
        let settled = tokio::select! {
            settled = planned.resolve_outcome() => settled,
            () = release.cancelled() => break,
            () = term.cancelled() => break,
        };
        match settled {
            Ok(CompactionOutcome::Open) => {}
            Ok(CompactionOutcome::Superseded | CompactionOutcome::Committed { .. })
            | Err(EngineError::Closed { .. }) => {
                break;
            }
            // The manifest is not readable now.
            Err(_) => {}
        }
    }
    info!(job = %planned.plan().job_id, "compaction released from quarantine");
    // In this order: when the registry no longer lists the job, its files are free.
    drop(planned);
    drop(registered);
}
