//! One job: planned, and sent on its [way](super::way), on compactors or here.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{Epoch, NodeId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{CompactionPlace, Reason};
use tidewater_region_engine::compaction::{Attempt, Scope};
use tidewater_region_engine::region::PlannedCompaction;
use tidewater_region_engine::{CompactionReport, EngineError};
use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::life::{JobPolicy, Wanted, may_be_here};
use super::way::{Way, no_compactors};
use crate::compactors::Compactors;
use crate::leadership::owner::{Owner, OwnerError};
use crate::meters::{self, JobOutcome};

/// How often somebody who waits for the jobs of a region looks again.
const LOOK: Duration = Duration::from_millis(100);

/// A job to be planned and carried out.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) owner: Arc<Owner>,
    pub(super) compactors: Arc<Compactors>,
    pub(super) policy: JobPolicy,
    /// Cancelled when the term is over.
    pub(super) term: CancellationToken,
    /// Spawns what outlives the job.
    pub(super) tasks: TaskTracker,
    pub(super) region: RegionId,
    pub(super) scope: Scope,
    pub(super) wanted: Wanted,
    pub(super) attempt: Attempt,
    /// Somebody waits for it: jobs that are under way are waited for, and those of the region that are
    /// quarantined are given another chance.
    pub(super) asked: bool,
}

/// A compaction that was committed.
#[derive(Debug, Clone)]
pub struct Done {
    /// What it did.
    pub report: CompactionReport,
    /// The compactor; `None`: this node.
    pub node: Option<NodeId>,
}

/// How a job ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// There was nothing to merge.
    Nothing,
    /// It was committed.
    Done(Done),
    /// It can never be committed: files were merged by others, truncated or dropped.
    Discarded(Refusal),
    /// Somebody cancelled it.
    Cancelled(Refusal),
    /// Too many attempts have failed.
    Quarantined(Refusal),
    /// No compactor takes it, and it is not to be done here.
    Untaken(Refusal),
    /// Attempts failed for a reason that has nothing to do with the job.
    GivenUp(Refusal),
    /// It failed on this node.
    Failed(OwnerError),
    /// The term has ended; what compactors do goes on.
    TermOver,
}

impl Job {
    /// Plans and carries out.
    pub(super) async fn run(self) -> Ended {
        let remote =
            self.wanted.place != CompactionPlace::Local && !self.compactors.fleet.is_empty();
        match remote {
            true => self.planned().await,
            false => self.local().await,
        }
    }

    /// Without compactors: before anything is planned, this process must have room for it.
    async fn local(&self) -> Ended {
        if !may_be_here(&self.policy, self.wanted.place) {
            return Ended::Untaken(no_compactors(None));
        }
        loop {
            let permit = match self.permit().await {
                Ok(permit) => permit,
                Err(ended) => return ended,
            };
            match self.plan_now().await {
                Ok(Some(way)) => return counted(Box::pin(way.run_here())).await,
                Ok(None) => {}
                Err(error) => return failed(error),
            }
            // Whoever has its files may need the permit to end.
            drop(permit);
            if let Some(ended) = self.until_free().await {
                return ended;
            }
        }
    }

    /// Waits until this process may run one more compaction; how the job ended when that was in vain.
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, Ended> {
        self.unless_ended(self.owner.permits().acquire()).await?.map_err(|_| Ended::TermOver)
    }

    /// Waits for something; how the job ended when it was cancelled first, or the term was over.
    pub(super) async fn unless_ended<T>(&self, what: impl Future<Output = T>) -> Result<T, Ended> {
        tokio::select! {
            happened = what => Ok(happened),
            () = self.attempt.cancel.cancelled() => {
                let message = format!("a compaction of region {} was cancelled", self.region);
                Err(Ended::Cancelled(Refusal::new(Reason::JobCancelled, message)))
            }
            () = self.term.cancelled() => Err(Ended::TermOver),
        }
    }

    async fn planned(&self) -> Ended {
        loop {
            match self.plan_now().await {
                Ok(Some(way)) => return counted(Box::pin(way.run())).await,
                Ok(None) => {}
                Err(error) => return failed(error),
            }
            if let Some(ended) = self.until_free().await {
                return ended;
            }
        }
    }

    /// With what is quarantined of the region, if somebody asks; without what another job has.
    async fn plan_now(&self) -> Result<Option<Way<'_>>, OwnerError> {
        let board = &self.compactors.board;
        if self.asked {
            board.release(self.region);
        }
        let planned = self.owner.plan_compaction(self.region, self.scope, Epoch(0)).await?;
        let post = |planned: PlannedCompaction| {
            let posted = board.post(self.owner.group(), planned.job(), &self.attempt);
            Way::new(self, planned, posted)
        };
        Ok(planned.map(post))
    }

    /// Waits a little when files may be in the hands of another job of the region; otherwise there is
    /// nothing to do.
    async fn until_free(&self) -> Option<Ended> {
        if !self.asked || !self.compactors.board.has(self.region) {
            return Some(Ended::Nothing);
        }
        self.unless_ended(tokio::time::sleep(LOOK)).await.err()
    }
}

/// Counts a planned job, and how it ends; one that is dropped is left to the next owner.
async fn counted(work: impl Future<Output = Ended>) -> Ended {
    struct Fate(JobOutcome);
    impl Drop for Fate {
        fn drop(&mut self) {
            meters::compaction_job_ended(self.0);
        }
    }
    meters::compaction_planned();
    let mut fate = Fate(JobOutcome::Left);
    let ended = work.await;
    fate.0 = ended.outcome();
    ended
}

impl Ended {
    fn outcome(&self) -> JobOutcome {
        match self {
            Self::Done(Done { node: Some(_), .. }) => JobOutcome::Committed,
            Self::Done(Done { node: None, .. }) => JobOutcome::CommittedHere,
            Self::Discarded(_) => JobOutcome::Discarded,
            Self::Cancelled(_) => JobOutcome::Cancelled,
            Self::Quarantined(_) => JobOutcome::Quarantined,
            Self::Untaken(_) => JobOutcome::Untaken,
            Self::GivenUp(_) | Self::Failed(_) => JobOutcome::Failed,
            Self::Nothing | Self::TermOver => JobOutcome::Left,
        }
    }
}

/// A failure on this node; some say nothing about the job.
pub(super) fn failed(error: OwnerError) -> Ended {
    let refusal = |error: &EngineError| Refusal::from(error);
    match &error {
        OwnerError::Engine(engine) => match refusal(engine) {
            one if one.reason == Reason::InputsGone || one.reason == Reason::BelowFloor => {
                Ended::Discarded(one)
            }
            one if one.reason == Reason::JobCancelled => Ended::Cancelled(one),
            _ => Ended::Failed(error),
        },
        _ => Ended::Failed(error),
    }
}
