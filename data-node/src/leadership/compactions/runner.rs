//! Runs a planned compaction: attempts on compactors with backoff, then the local fallback.

use std::time::Duration;

use tidewater_common::ids::{ManifestVersion, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::compaction::{LocalSlot, Scope};
use tidewater_region_engine::region::{CompactionOutcome, PlannedCompaction};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::job::{JobOutcome, RegionCompaction, local_failure};
use super::quarantine;
use super::retry_policy::{AttemptHistory, Fallback, ManifestCheck, NextAction};
use crate::compactors::call::{AttemptOutcome, JobOwner};
use crate::compactors::fleet::{JobSize, SlotReservation};
use crate::compactors::registry::RegisteredJob;
use crate::meters;
use crate::owner_request::CompactionResult;

/// Planned job and the state of its attempts.
pub(super) struct JobRunner<'a> {
    pub(super) job: &'a RegionCompaction,
    scope: Scope,
    pub(super) planned: PlannedCompaction,
    registered: RegisteredJob,
    history: AttemptHistory,
    /// Last problem with a compactor.
    problem: Option<Refusal>,
    /// Start of the period in which no compactor has accepted the job.
    unaccepted_since: Option<Instant>,
    /// Compactor of the last attempt.
    last_compactor: Option<NodeId>,
    /// Start of the wait for an orphaned job on the same files.
    pub(super) orphan_since: Option<Instant>,
}

impl<'a> JobRunner<'a> {
    pub(super) fn new(
        job: &'a RegionCompaction,
        scope: Scope,
        planned: PlannedCompaction,
        registered: RegisteredJob,
    ) -> Self {
        Self {
            job,
            scope,
            planned,
            registered,
            history: AttemptHistory::default(),
            problem: None,
            unaccepted_since: None,
            last_compactor: None,
            orphan_since: None,
        }
    }

    /// Runs the job on compactors while they accept it, then falls back.
    pub(super) async fn run(mut self) -> JobOutcome {
        loop {
            let Some(reservation) = self.reserve() else {
                let waited = match self.fallback() {
                    Fallback::RunLocally => return self.fall_back().await,
                    Fallback::Defer => return JobOutcome::NoCompactor(no_compactors(self.problem)),
                    Fallback::Wait(wait) => {
                        self.wait(wait, &no_compactors(self.problem.clone())).await
                    }
                };
                if let Some(outcome) = waited {
                    return outcome;
                }
                continue;
            };
            let compactor = reservation.compactor.clone();
            let Some(attempted) = self.attempt(reservation).await else {
                return JobOutcome::TermEnded;
            };
            let ended = match self.next_action(compactor.node, attempted).await {
                NextAction::Commit { version, files_out } => {
                    Some(self.finish_committed(version, files_out).await)
                }
                NextAction::Discard(problem) => Some(JobOutcome::Discarded(problem)),
                NextAction::Cancel(problem) => Some(JobOutcome::Cancelled(problem)),
                NextAction::Abort(problem) => Some(JobOutcome::Aborted(problem)),
                NextAction::Quarantine(problem) => return self.quarantine(problem),
                NextAction::EndTerm => Some(JobOutcome::TermEnded),
                NextAction::AwaitOrphan(problem) => {
                    self.wait_for_orphaned_job(&compactor, problem).await
                }
                NextAction::TryAnother(problem) => {
                    self.record_refusal(compactor.node, problem);
                    None
                }
                NextAction::Retry(failures, problem) => {
                    self.back_off(compactor.node, failures, problem).await
                }
            };
            if let Some(outcome) = ended {
                return outcome;
            }
        }
    }

    /// Reserves a slot, if possible on another compactor than that of the last failure.
    fn reserve(&self) -> Option<SlotReservation<'a>> {
        let fleet = &self.job.compactors.fleet;
        let job = self.planned.job();
        let (bytes, memory_bytes) = (job.bytes_read(), job.sub_job_bytes());
        let demand = JobSize { bytes, memory_bytes };
        let reserve = |excluded| fleet.reserve(job.job_id, demand, excluded);
        let [with_failed, refused] = self.history.excluded();
        reserve(&with_failed).or_else(|| reserve(&refused))
    }

    fn fallback(&mut self) -> Fallback {
        let some_up = self.job.compactors.fleet.has_others(self.history.unsuitable());
        let waited = self.unaccepted_since.get_or_insert_with(Instant::now).elapsed();
        self.history.fallback(&self.job.policy, self.job.placement, waited, some_up)
    }

    /// Makes one attempt on a compactor; `None`: the term ended first.
    async fn attempt(&mut self, reservation: SlotReservation<'_>) -> Option<AttemptOutcome> {
        let compactor = &reservation.compactor;
        self.last_compactor = Some(compactor.node);
        let number = self.registered.mark_running(Some(compactor.node));
        meters::record_compaction_attempt(self.history.failures > 0);
        let job = self.job;
        let owner = JobOwner {
            group: job.owner.group(),
            epoch: job.owner.epoch(job.region),
            progress_timeout: job.policy.progress_timeout,
            events: &job.owner.context.events,
        };
        let attempt = job.compactors.attempt(compactor, owner, &self.planned, number, &job.attempt);
        tokio::select! {
            outcome = attempt => Some(outcome),
            // The compactor continues, and the region's next owner finds its result.
            () = job.term.cancelled() => None,
        }
    }

    /// Reads the manifest if the outcome of the attempt depends on it, and decides.
    async fn next_action(&mut self, node: NodeId, outcome: AttemptOutcome) -> NextAction {
        if outcome.was_accepted() {
            self.unaccepted_since = None;
        }
        let manifest = if outcome.depends_on_manifest() {
            self.check_manifest().await
        } else {
            ManifestCheck::NotRead
        };
        let cancelled = self.job.attempt.cancel.is_cancelled();
        self.history.after_attempt(node, outcome, manifest, cancelled, &self.job.policy)
    }

    /// Reads the state of the job from the manifest.
    pub(super) async fn check_manifest(&self) -> ManifestCheck {
        let settled = tokio::select! {
            settled = self.planned.resolve_outcome() => settled,
            () = self.job.term.cancelled() => return ManifestCheck::TermEnded,
        };
        match settled {
            Ok(settled) => ManifestCheck::Read(settled),
            Err(error) => {
                let region = self.job.region;
                let job = self.planned.plan().job_id;
                warn!(%region, %job, %error, "failed to read a compaction's outcome from the manifest");
                if self.job.term.is_cancelled() {
                    ManifestCheck::TermEnded
                } else {
                    ManifestCheck::NotRead
                }
            }
        }
    }

    /// Ends a job that a compactor committed: the compactor of the last attempt, as far as this node knows.
    pub(super) async fn finish_committed(
        &self,
        version: ManifestVersion,
        files_out: usize,
    ) -> JobOutcome {
        let node = self.last_compactor;
        let region = self.job.region;
        let done = self.job.attempt.progress.snapshot();
        let report = self.planned.report(version, files_out, done);
        self.job.owner.report_compacted(region, &report, node);
        // The commit is durable, even if this replica and the log do not know it yet: the next check
        // finds it.
        if let Err(error) = self.job.owner.load_and_advance(region).await {
            warn!(
                %region, job = %report.job_id, %error,
                "compaction committed, but the group's log has not advanced to it yet"
            );
        }
        JobOutcome::Committed(CompactionResult { report, node })
    }

    /// Runs the job on this node, under a new id if a compactor may have the old one. A job that was
    /// planned for a compactor may be too large for this node: then a smaller one runs.
    async fn fall_back(mut self) -> JobOutcome {
        if self.problem.is_some() || self.history != AttemptHistory::default() {
            self.planned = self.planned.with_new_job_id();
            self.registered.rename(self.planned.plan().job_id);
            meters::record_compaction_fallback();
            info!(
                region = %self.job.region,
                job = %self.planned.plan().job_id,
                failures = self.history.failures,
                problem = self.problem.as_ref().map_or("", |problem| &problem.message),
                "no compactor accepts the compaction; running it locally"
            );
        }
        let slot = match self.job.slot().await {
            Ok(slot) => slot,
            Err(outcome) => return outcome,
        };
        let needed = self.planned.job().sub_job_bytes();
        if needed > slot.memory_bytes() {
            let (job, scope) = (self.job, self.scope);
            let all = slot.memory_bytes();
            info!(region = %job.region, needed, all, "compaction too large for this node; planning a smaller one");
            // Releases the files.
            drop(self);
            return job.run_smaller(scope, slot).await;
        }
        self.run_locally(slot).await
    }

    pub(super) fn record_refusal(&mut self, node: NodeId, refusal: Refusal) {
        let region = self.job.region;
        let job = self.planned.plan().job_id;
        let reason = refusal.reason;
        if self.history.record_refusal(node, reason) {
            info!(
                %region, %job, compactor = %node, ?reason, problem = refusal.message,
                "compaction refused permanently by a compactor"
            );
        } else {
            debug!(
                %region, %job, compactor = %node, ?reason, problem = refusal.message,
                "compaction refused by a compactor"
            );
        }
        self.registered.mark_waiting(&refusal.message);
        meters::record_compaction_refusal(reason);
        self.problem = Some(refusal);
    }

    /// Runs the job on this node, in `slot`. It ends with the term.
    pub(super) async fn run_locally(self, slot: LocalSlot) -> JobOutcome {
        let RegionCompaction { owner, attempt, term, region, .. } = self.job;
        self.registered.mark_running(None);
        let work = owner.run_compaction(*region, &self.planned, &slot, attempt);
        tokio::pin!(work);
        let result = tokio::select! {
            result = &mut work => result,
            () = term.cancelled() => {
                attempt.cancel.cancel();
                work.await
            }
        };
        let error = match result {
            Ok(report) => {
                return JobOutcome::Committed(CompactionResult { report, node: None });
            }
            Err(error) => error,
        };
        match (local_failure(error), self.last_compactor) {
            // An aborted attempt on a compactor may have committed first.
            (JobOutcome::Discarded(refusal), Some(_)) => match self.check_manifest().await {
                ManifestCheck::Read(CompactionOutcome::Committed { version, files_out }) => {
                    self.finish_committed(version, files_out).await
                }
                ManifestCheck::TermEnded => JobOutcome::TermEnded,
                ManifestCheck::Read(_) | ManifestCheck::NotRead => JobOutcome::Discarded(refusal),
            },
            (outcome, _) => outcome,
        }
    }

    /// Waits before the next attempt. Returns the job's outcome if it was cancelled or the term ended
    /// first.
    async fn back_off(
        &mut self,
        node: NodeId,
        failures: u32,
        problem: Refusal,
    ) -> Option<JobOutcome> {
        let bits = self.job.owner.jitter_bits();
        let wait = self.job.policy.backoff.wait(failures, None, bits);
        warn!(
            region = %self.job.region,
            job = %self.planned.plan().job_id,
            compactor = %node,
            failures,
            %problem,
            ?wait,
            "compaction failed on a compactor; retrying"
        );
        let ended = self.wait(wait, &problem).await;
        self.problem = Some(problem);
        ended
    }

    /// Waits. Returns the job's outcome if it was cancelled or the term ended first.
    pub(super) async fn wait(&self, wait: Duration, problem: &Refusal) -> Option<JobOutcome> {
        self.registered.mark_waiting(&problem.message);
        self.job.unless_ended(tokio::time::sleep(wait)).await.err()
    }

    fn quarantine(self, problem: Refusal) -> JobOutcome {
        warn!(
            region = %self.job.region,
            job = %self.planned.plan().job_id,
            failures = self.history.failures,
            %problem,
            "compaction quarantined; its files are not compacted"
        );
        let job = self.planned.job();
        let events = &self.job.owner.context.events;
        events.record_quarantine(job.dir, job.job_id, self.history.failures, &problem.message);
        self.registered.mark_waiting(&problem.message);
        let term = self.job.term.clone();
        let policy = self.job.policy;
        let release = self.registered.mark_quarantined();
        let hold = quarantine::hold_files(self.planned, self.registered, release, term, policy);
        self.job.tasks.spawn(hold);
        JobOutcome::Quarantined(problem)
    }
}

/// Returns the error of a job that no compactor accepts.
pub(super) fn no_compactors(problem: Option<Refusal>) -> Refusal {
    let message = match problem {
        Some(problem) => format!("no compactor accepts the compaction: {}", problem.message),
        None => "no compactor is up".to_owned(),
    };
    Refusal::new(Reason::NoCompactors, message)
}
