//! One job: planned, and sent on its [way](super::way), on compactors or here.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::{Epoch, NodeId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{CompactionPlace, Reason};
use tidewater_region_engine::compaction::{Attempt, Scope};
use tidewater_region_engine::{CompactionReport, EngineError};
use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::life::{JobPolicy, may_be_here};
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
    pub(super) place: CompactionPlace,
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
        let remote = self.place != CompactionPlace::Local && !self.compactors.fleet.is_empty();
        match remote {
            true => self.planned().await,
            false => self.local().await,
        }
    }

    /// Without compactors: before anything is planned, this process must have room for it.
    async fn local(&self) -> Ended {
        if !may_be_here(&self.policy, self.place) {
            return Ended::Untaken(no_compactors(None));
        }
        let _permit = match self.permit().await {
            Ok(permit) => permit,
            Err(ended) => return ended,
        };
        let way = match self.plan().await {
            Ok(Some(way)) => way,
            Ok(None) => return Ended::Nothing,
            Err(error) => return failed(error),
        };
        counted(way.run_here()).await
    }

    /// Waits until this process may run one more compaction; how the job ended when that was in vain.
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, Ended> {
        tokio::select! {
            permit = self.owner.permits().acquire() => permit.map_err(|_| Ended::TermOver),
            () = self.attempt.cancel.cancelled() => {
                let message = format!("a compaction of region {} was cancelled", self.region);
                Err(Ended::Cancelled(Refusal::new(Reason::JobCancelled, message)))
            }
            () = self.term.cancelled() => Err(Ended::TermOver),
        }
    }

    async fn planned(&self) -> Ended {
        match self.plan().await {
            Ok(Some(way)) => counted(Box::pin(way.run())).await,
            Ok(None) => Ended::Nothing,
            Err(error) => failed(error),
        }
    }

    async fn plan(&self) -> Result<Option<Way<'_>>, OwnerError> {
        let board = &self.compactors.board;
        if self.asked {
            board.release(self.region);
        }
        loop {
            let planned = self.owner.plan_compaction(self.region, self.scope, Epoch(0)).await?;
            if let Some(planned) = planned {
                let group = self.owner.group();
                let posted = board.post(group, planned.job(), &self.attempt);
                return Ok(Some(Way::new(self, planned, posted)));
            }
            // Its files may be in the hands of a job that was chosen by itself.
            if !self.asked || !board.is_busy(self.region) {
                return Ok(None);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.attempt.cancel.cancelled() => return Ok(None),
                () = self.term.cancelled() => return Ok(None),
            }
        }
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
