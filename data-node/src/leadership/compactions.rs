//! The owner's compactions for one term.
//!
//! - *Job*: one compaction of one region. Its plan holds the input files until the job ends. A
//!   *background* job is started by this loop because files are due; a *requested* job has a caller
//!   that waits for it.
//! - *Attempt*: one run of a job on a compactor. A job may take several, under one id. The manifest
//!   shows whether an attempt with an unknown outcome committed.
//! - *Fallback*: the local run of a job that no compactor accepts, under a new id.
//! - *Quarantine*: a job that failed too often keeps its input files, so that they are not picked
//!   again.
//!
//! The loop asks the regions' pickers for files that are due, places jobs by [`placement`], runs them,
//! and backs off regions whose job failed.
//!
//! - [`placement`]: regions to compact now, and where (pure); [`retry_policy`]: the next action of a
//!   job after an attempt (pure); `region_state`: a region between its jobs.
//! - `job`: one job from its plan to its outcome; `runner`: its attempts and backoffs; `orphaned_job`:
//!   a job that a compactor already runs on the same files; `quarantine`.
//!
//! A local job ends with the term: its outputs become garbage, unless it was committing. A job on a
//! compactor continues. In both cases the manifest shows whether it was committed: jobs are not fenced.

mod job;
mod orphaned_job;
pub mod placement;
mod quarantine;
mod region_state;
pub mod retry_policy;
mod runner;

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_common::ids::RegionId;
use tidewater_region_engine::EngineError;
use tidewater_region_engine::compaction::{Attempt, Scope};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::job::{JobOutcome, RegionCompaction};
use self::placement::{
    CompactionCandidate, CompactionCapacity, PlacedCompaction, Placement, place_compactions,
};
use self::region_state::RegionCompactionState;
use super::OwnerContext;
use super::owner::{Owner, OwnerError};
use crate::group::hosted::HostedRegion;
use crate::meters;
use crate::owner_request::{CompactionRequest, REQUEST_QUEUE};

/// Quarantined jobs of a region at which no further background job of the region is started.
const MAX_QUARANTINED: usize = 8;

/// Job that ended.
struct FinishedJob {
    region: RegionId,
    /// The loop started it. Otherwise it was requested, and cancelled by command.
    is_background: bool,
    outcome: JobOutcome,
}

/// Runs until it is dropped: the term has ended, or the replica stops.
pub async fn run(
    context: &OwnerContext,
    owner: Arc<Owner>,
    requests: &mut mpsc::Receiver<CompactionRequest>,
) {
    let term = CancellationToken::new();
    let _ends_term = term.clone().drop_guard();
    let (finished_sender, mut finished) = mpsc::channel(REQUEST_QUEUE);
    let mut compactions =
        CompactionLoop { context, owner, term, regions: BTreeMap::new(), finished_sender };
    let mut tick = tokio::time::interval(context.compaction_policy.interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => compactions.start_due(),
            Some(job) = finished.recv() => {
                compactions.handle_finished(job);
                compactions.start_due();
            }
            request = requests.recv() => match request {
                Some(request) => compactions.start_requested(request),
                None => return,
            },
        }
    }
}

struct CompactionLoop<'a> {
    context: &'a OwnerContext,
    owner: Arc<Owner>,
    term: CancellationToken,
    regions: BTreeMap<RegionId, RegionCompactionState>,
    finished_sender: mpsc::Sender<FinishedJob>,
}

/// Forgets the failures of a term when the term ends: the next owner reports its own.
impl Drop for CompactionLoop<'_> {
    fn drop(&mut self) {
        self.context.shared.failing_compactions.clear_all();
    }
}

impl CompactionLoop<'_> {
    fn start_due(&mut self) {
        let shared = &self.context.shared;
        let fleet = &self.context.compactors.fleet;
        let capacity = CompactionCapacity {
            local_slots: shared.env.compactions.free(),
            compactor_slots: (!fleet.is_empty()).then(|| fleet.free_slots()),
            short_of_memory: shared.memory().excess() > 0,
        };
        let now = Instant::now();
        let candidates: Vec<CompactionCandidate> =
            shared.regions.current().iter().map(|hosted| self.candidate(hosted, now)).collect();
        self.regions.retain(|id, state| {
            state.running || candidates.iter().any(|candidate| candidate.region == *id)
        });
        for candidate in candidates.iter().filter(|candidate| !candidate.held_back) {
            let state = self.regions.entry(candidate.region).or_default();
            state.update_due_since(candidate.files, now);
            if candidate.files == 0 {
                shared.failing_compactions.clear(candidate.region);
            }
        }
        let policy = &self.context.compaction_policy;
        for PlacedCompaction { region, placement } in
            place_compactions(policy, &candidates, capacity)
        {
            self.regions.entry(region).or_default().running = true;
            let finished = self.finished_sender.clone();
            let job = self.job(region, Scope::Due, placement, Attempt::default(), false);
            self.context.tasks.spawn(async move {
                let outcome = run_job(job).await;
                // The receiver is dropped when the term ends.
                let _ = finished.send(FinishedJob { region, is_background: true, outcome }).await;
            });
        }
    }

    /// Returns the files of a region that its picker finds due now.
    fn candidate(&self, hosted: &HostedRegion, now: Instant) -> CompactionCandidate {
        let region = hosted.descriptor.region_id;
        let context = self.context;
        let state = self.regions.get(&region);
        let held_back = state.is_some_and(|state| {
            state.running
                || is_lost(state.lost_at, context.shared.move_epoch(region))
                || state.not_before.is_some_and(|when| when > now)
        }) || context.shared.is_departing(region)
            || context.compactors.registry.count_quarantined(region) >= MAX_QUARANTINED;
        let due = if held_back { Vec::new() } else { hosted.region.compactions_due() };
        let (files, bytes) = due.first().map_or((0, 0), |due| (due.files, due.bytes));
        let all_files = due.iter().map(|due| due.files).sum();
        let due_since = state.and_then(|state| state.due_since);
        let overdue = due_since.is_some_and(|since| {
            now.saturating_duration_since(since) >= context.compaction_policy.overdue_after
        });
        CompactionCandidate { region, files, bytes, all_files, overdue, held_back }
    }

    fn start_requested(&mut self, request: CompactionRequest) {
        let CompactionRequest { region, scope, place, attempt, reply } = request;
        let placement = Placement { place, deferrable: false };
        let job = self.job(region, scope, placement, attempt, true);
        let finished = self.finished_sender.clone();
        self.context.tasks.spawn(async move {
            let outcome = run_job(job).await;
            // A client that disconnects has not asked to pause the region's background compaction.
            if let JobOutcome::Cancelled(refusal) = &outcome
                && !reply.is_closed()
            {
                let outcome = JobOutcome::Cancelled(refusal.clone());
                let _ = finished.send(FinishedJob { region, is_background: false, outcome }).await;
            }
            let result = match outcome {
                JobOutcome::NothingToDo => Ok(None),
                JobOutcome::Committed(compaction) => Ok(Some(compaction)),
                JobOutcome::Discarded(refusal)
                | JobOutcome::Cancelled(refusal)
                | JobOutcome::Quarantined(refusal)
                | JobOutcome::Aborted(refusal)
                | JobOutcome::NoCompactor(refusal) => Err(refusal),
                JobOutcome::Failed(error) => Err(error.refusal(region)),
                // The channel is dropped, and the caller finds the next owner.
                JobOutcome::TermEnded => return,
            };
            let _ = reply.send(result);
        });
    }

    fn job(
        &self,
        region: RegionId,
        scope: Scope,
        placement: Placement,
        attempt: Attempt,
        requested: bool,
    ) -> RegionCompaction {
        RegionCompaction {
            owner: self.owner.clone(),
            compactors: self.context.compactors.clone(),
            policy: self.context.compaction_policy.jobs,
            term: self.term.clone(),
            tasks: self.context.tasks.clone(),
            region,
            scope,
            placement,
            attempt,
            requested,
        }
    }

    fn handle_finished(&mut self, job: FinishedJob) {
        let group = self.context.shared.group;
        let policy = &self.context.compaction_policy;
        let state = self.regions.entry(job.region).or_default();
        state.running &= !job.is_background;
        let problem: &dyn std::fmt::Display = match &job.outcome {
            JobOutcome::NothingToDo | JobOutcome::Committed(_) => {
                self.context.shared.failing_compactions.clear(job.region);
                *state = RegionCompactionState::default();
                return;
            }
            // The next check finds the files that are left.
            JobOutcome::Discarded(_) | JobOutcome::Quarantined(_) | JobOutcome::TermEnded => return,
            // An operator did not want it: it does not start again immediately.
            JobOutcome::Cancelled(_) => {
                let wait = policy.backoff.longest;
                state.not_before = Some(Instant::now() + wait);
                info!(
                    %group, region = %job.region, ?wait,
                    "compaction cancelled; background compaction of the region paused"
                );
                return;
            }
            // Compactors may have a free slot soon.
            JobOutcome::NoCompactor(problem) => {
                state.not_before = Some(Instant::now() + policy.interval);
                if !std::mem::replace(&mut state.logged_unavailable, true) {
                    info!(%group, region = %job.region, %problem, "no compactor available; retrying");
                }
                return;
            }
            JobOutcome::Failed(
                OwnerError::NotHosted
                | OwnerError::Engine(
                    EngineError::Fenced { .. }
                    | EngineError::Removed { .. }
                    | EngineError::Closed { .. }
                    | EngineError::NotOwner { .. },
                ),
            ) => {
                state.lost_at = self.context.shared.move_epoch(job.region);
                return;
            }
            JobOutcome::Aborted(problem) => problem,
            JobOutcome::Failed(problem) => problem,
        };
        state.failures = state.failures.saturating_add(1);
        let shared = &self.context.shared;
        shared.failing_compactions.record_failure(job.region, problem.to_string(), Instant::now());
        if let JobOutcome::Failed(OwnerError::Engine(error)) = &job.outcome {
            shared.damaged.record_error(job.region, error, Instant::now());
        }
        let bits = self.context.shared.env.ids.jitter_bits();
        let wait = policy.backoff.wait(state.failures, None, bits);
        state.not_before = Some(Instant::now() + wait);
        meters::record_compaction_failure();
        warn!(%group, region = %job.region, %problem, ?wait, "compaction failed; retrying");
    }
}

/// Returns whether a region was lost at its move epoch of now.
fn is_lost(lost_at: Option<u64>, now: Option<u64>) -> bool {
    lost_at.is_some() && lost_at == now
}

async fn run_job(job: RegionCompaction) -> JobOutcome {
    let _running = meters::running_compaction();
    job.run().await
}
