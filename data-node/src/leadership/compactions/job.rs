//! One compaction job from its plan to its outcome, on a compactor or on this node.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::RegionId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{CompactionPlace, Reason};
use tidewater_region_engine::compaction::{Attempt, CompactionPasses, LocalSlot, Scope};
use tidewater_region_engine::region::PlannedCompaction;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::placement::Placement;
use super::retry_policy::{JobPolicy, may_run_locally};
use super::runner::{JobRunner, no_compactors};
use crate::compactors::Compactors;
use crate::leadership::owner::{Owner, OwnerError};
use crate::meters::{self, JobOutcomeLabel};
use crate::owner_request::CompactionResult;

/// Interval at which a requested job checks whether other jobs of the region have ended.
const FREE_CHECK: Duration = Duration::from_millis(100);

/// Compaction of a region, to be planned and run.
#[derive(Debug)]
pub(super) struct RegionCompaction {
    pub(super) owner: Arc<Owner>,
    pub(super) compactors: Arc<Compactors>,
    pub(super) policy: JobPolicy,
    /// Cancelled when the term ends.
    pub(super) term: CancellationToken,
    /// Spawns tasks that outlive the job.
    pub(super) tasks: TaskTracker,
    pub(super) region: RegionId,
    pub(super) scope: Scope,
    pub(super) placement: Placement,
    pub(super) attempt: Attempt,
    /// A caller waits for it: it waits for jobs in progress, and quarantined jobs of the region are
    /// released.
    pub(super) requested: bool,
}

/// Outcome of a job.
#[derive(Debug)]
pub(super) enum JobOutcome {
    /// There was nothing to compact.
    NothingToDo,
    /// Its outputs are in the manifest.
    Committed(CompactionResult),
    /// It can never be committed: another job compacted its files, or they were truncated or dropped.
    Discarded(Refusal),
    /// A caller or an operator cancelled it.
    Cancelled(Refusal),
    /// Too many attempts have failed.
    Quarantined(Refusal),
    /// No compactor accepts it, and it may not run on this node.
    NoCompactor(Refusal),
    /// Attempts failed for a reason that affects every other job as well.
    Aborted(Refusal),
    /// It failed on this node.
    Failed(OwnerError),
    /// The term has ended; compactors continue their attempts.
    TermEnded,
}

impl RegionCompaction {
    /// Plans and runs the job: all files in as many passes as it takes, other scopes in one. Passes that
    /// are committed remain when a later one fails.
    pub(super) async fn run(self) -> JobOutcome {
        let mut passes = CompactionPasses::new(self.scope);
        let mut node = None;
        loop {
            match self.run_pass(passes.scope()).await {
                JobOutcome::Committed(compaction) => {
                    node = compaction.node;
                    if !passes.record(compaction.report) {
                        break;
                    }
                    self.attempt.progress.finish_pass();
                    info!(region = %self.region, passes = passes.completed(), "compaction continues");
                }
                JobOutcome::NothingToDo => break,
                outcome => return outcome,
            }
        }
        match passes.total() {
            Some(report) => JobOutcome::Committed(CompactionResult { report, node }),
            None => JobOutcome::NothingToDo,
        }
    }

    async fn run_pass(&self, scope: Scope) -> JobOutcome {
        if self.placement.place == CompactionPlace::Local || self.compactors.fleet.is_empty() {
            self.run_locally(scope).await
        } else {
            self.run_on_compactors(scope).await
        }
    }

    /// Runs without compactors: takes a slot of this process before anything is planned.
    async fn run_locally(&self, scope: Scope) -> JobOutcome {
        if !may_run_locally(&self.policy, self.placement.place) {
            return JobOutcome::NoCompactor(no_compactors(None));
        }
        loop {
            let slot = match self.slot().await {
                Ok(slot) => slot,
                Err(outcome) => return outcome,
            };
            match self.plan(scope, slot.memory_bytes()).await {
                Ok(Some(runner)) => return run_counted(Box::pin(runner.run_locally(slot))).await,
                Ok(None) => {}
                Err(error) => return local_failure(error),
            }
            // The job that holds the region's files may need the slot to end.
            drop(slot);
            if let Some(outcome) = self.wait_for_other_jobs().await {
                return outcome;
            }
        }
    }

    /// Plans for this node and runs a job that no compactor accepts and that is too large for this node.
    pub(super) async fn run_smaller(&self, scope: Scope, slot: LocalSlot) -> JobOutcome {
        match self.plan(scope, slot.memory_bytes()).await {
            Ok(Some(runner)) => runner.run_locally(slot).await,
            // Another job has compacted the files meanwhile.
            Ok(None) => JobOutcome::NothingToDo,
            Err(error) => local_failure(error),
        }
    }

    /// Plans for the compactor with the most memory, and runs the job there.
    async fn run_on_compactors(&self, scope: Scope) -> JobOutcome {
        loop {
            match self.plan(scope, self.compactors.fleet.largest_memory()).await {
                Ok(Some(runner)) => return run_counted(Box::pin(runner.run())).await,
                Ok(None) => {}
                Err(error) => return local_failure(error),
            }
            if let Some(outcome) = self.wait_for_other_jobs().await {
                return outcome;
            }
        }
    }

    /// Waits for a slot to run one more compaction in this process, or for the job's end.
    pub(super) async fn slot(&self) -> Result<LocalSlot, JobOutcome> {
        self.unless_ended(self.owner.slots().acquire()).await
    }

    /// Waits for `work`, unless the job is cancelled or the term ends first.
    pub(super) async fn unless_ended<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, JobOutcome> {
        tokio::select! {
            output = work => Ok(output),
            () = self.attempt.cancel.cancelled() => {
                let message = format!("compaction of region {} was cancelled", self.region);
                Err(JobOutcome::Cancelled(Refusal::new(Reason::JobCancelled, message)))
            }
            () = self.term.cancelled() => Err(JobOutcome::TermEnded),
        }
    }

    /// Plans the job, without files that other jobs hold, for a node that has `memory_bytes` for it;
    /// `None`: no file is left to compact. A requested job releases the region's quarantined files first.
    async fn plan(
        &self,
        scope: Scope,
        memory_bytes: u64,
    ) -> Result<Option<JobRunner<'_>>, OwnerError> {
        let registry = &self.compactors.registry;
        if self.requested {
            registry.release_quarantined(self.region);
        }
        let planned = self.owner.plan_compaction(self.region, scope, memory_bytes).await?;
        let register = |planned: PlannedCompaction| {
            let registered = registry.register(self.owner.group(), planned.job(), &self.attempt);
            JobRunner::new(self, scope, planned, registered)
        };
        Ok(planned.map(register))
    }

    /// Waits briefly if another job of the region may hold files that a requested job needs. Otherwise,
    /// or if it is cancelled or the term ends, returns the outcome.
    async fn wait_for_other_jobs(&self) -> Option<JobOutcome> {
        if !self.requested || !self.compactors.registry.has_jobs(self.region) {
            return Some(JobOutcome::NothingToDo);
        }
        self.unless_ended(tokio::time::sleep(FREE_CHECK)).await.err()
    }
}

/// Counts a planned job and its outcome. A job whose future is dropped counts as left to the next owner.
async fn run_counted(work: impl Future<Output = JobOutcome>) -> JobOutcome {
    struct OutcomeGuard(JobOutcomeLabel);
    impl Drop for OutcomeGuard {
        fn drop(&mut self) {
            meters::record_compaction_outcome(self.0);
        }
    }
    meters::record_compaction_planned();
    let mut guard = OutcomeGuard(JobOutcomeLabel::Left);
    let outcome = work.await;
    guard.0 = outcome.label();
    outcome
}

impl JobOutcome {
    fn label(&self) -> JobOutcomeLabel {
        match self {
            Self::Committed(CompactionResult { node: Some(_), .. }) => JobOutcomeLabel::Committed,
            Self::Committed(CompactionResult { node: None, .. }) => {
                JobOutcomeLabel::CommittedLocally
            }
            Self::Discarded(_) => JobOutcomeLabel::Discarded,
            Self::Cancelled(_) => JobOutcomeLabel::Cancelled,
            Self::Quarantined(_) => JobOutcomeLabel::Quarantined,
            Self::NoCompactor(_) => JobOutcomeLabel::NoCompactor,
            Self::Aborted(_) | Self::Failed(_) => JobOutcomeLabel::Failed,
            Self::NothingToDo | Self::TermEnded => JobOutcomeLabel::Left,
        }
    }
}

/// Returns the outcome of a job that failed on this node. Some errors mean that it was discarded or
/// cancelled.
pub(super) fn local_failure(error: OwnerError) -> JobOutcome {
    let OwnerError::Engine(engine) = &error else { return JobOutcome::Failed(error) };
    let refusal = Refusal::from(engine);
    match refusal.reason {
        // A region is sealed for a split or a merge: its children plan the compaction again.
        Reason::InputsGone | Reason::BelowFloor | Reason::RouteWriteFenced => {
            JobOutcome::Discarded(refusal)
        }
        Reason::JobCancelled => JobOutcome::Cancelled(refusal),
        _ => JobOutcome::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use tidewater_region_engine::EngineError;
    use tidewater_region_engine::manifest::Void;

    use super::*;

    #[test]
    fn job_of_sealed_region_is_discarded() {
        let region = RegionId(7);
        let refused = |reason| OwnerError::Engine(EngineError::Refused { region, reason });
        assert!(matches!(local_failure(refused(Void::Sealed)), JobOutcome::Discarded(_)));
        assert!(matches!(local_failure(refused(Void::NoExpiry)), JobOutcome::Failed(_)));
    }
}
