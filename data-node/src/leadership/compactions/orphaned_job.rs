//! Orphaned job: a job that a compactor already runs on the same files, started by an aborted attempt
//! of this job or by an earlier owner.

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::region::CompactionOutcome;
use tokio::time::Instant;

use super::job::JobOutcome;
use super::retry_policy::ManifestCheck;
use super::runner::JobRunner;
use crate::compactors::fleet::Compactor;

/// Longest wait for orphaned jobs, in progress timeouts.
const MAX_WAIT_TIMEOUTS: u32 = 20;

impl JobRunner<'_> {
    /// Waits while the compactor's job makes progress, up to a limit, so that the same files are not
    /// compacted twice. The manifest shows its result. Returns the job's outcome, or `None` if it is to
    /// be tried again.
    pub(super) async fn wait_for_orphaned_job(
        &mut self,
        compactor: &Compactor,
        refusal: Refusal,
    ) -> Option<JobOutcome> {
        let dir = self.planned.job().dir;
        let timeout = self.job.policy.progress_timeout;
        let since = *self.orphan_since.get_or_insert_with(Instant::now);
        let mut last_progress = None;
        let mut progressed_at = Instant::now();
        loop {
            let query = self.job.compactors.running_jobs(compactor, dir);
            let progress = match self.job.unless_ended(query).await {
                Ok(progress) => progress,
                Err(outcome) => return Some(outcome),
            };
            match self.check_manifest().await {
                ManifestCheck::Read(CompactionOutcome::Committed { version, files_out }) => {
                    return Some(self.finish_committed(version, files_out).await);
                }
                ManifestCheck::Read(CompactionOutcome::Superseded) => {
                    let job = self.planned.plan().job_id;
                    let message = format!("another job compacted the files of compaction {job}");
                    let refusal = Refusal::new(Reason::InputsGone, message);
                    return Some(JobOutcome::Discarded(refusal));
                }
                ManifestCheck::Read(CompactionOutcome::Open)
                | ManifestCheck::NotRead
                | ManifestCheck::TermEnded => {}
            }
            let has_ended = progress.is_none();
            if progress != last_progress {
                last_progress = progress;
                progressed_at = Instant::now();
            }
            // The progress may also be that of a third job of the region.
            if progressed_at.elapsed() >= timeout
                || since.elapsed() >= timeout.saturating_mul(MAX_WAIT_TIMEOUTS)
            {
                self.record_refusal(compactor.node, refusal);
                return None;
            }
            let outcome = self.wait(self.job.policy.backoff.first, &refusal).await;
            if outcome.is_some() || has_ended {
                return outcome;
            }
        }
    }
}
