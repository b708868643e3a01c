//! M1: compaction jobs of random histories that run remotely, commit late, run twice, or are cancelled.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::steps::CompactionSite;
use crate::EngineError;
use crate::compaction::commit::commit;
use crate::compaction::{Attempt, CommittedCompaction, CompactionJob, Compactor, Scope};
use crate::file_meta::FileMeta;
use crate::manifest::{ManifestContext, Void};
use crate::region::CompactionOutcome;
use crate::region::tests::fixture::*;
use crate::region::tests::remote_compactor::{
    CommitGate, NoopHook, RemoteJob, committed_outcome, plan,
};

/// A job whose files are written, but not committed. Dropping it simulates a crash.
pub(super) type PendingJob = Option<UncommittedJob>;

#[derive(Debug)]
pub(super) enum UncommittedJob {
    Local(Box<CompactionJob>, Vec<FileMeta>),
    /// The compactor blocks before its commit.
    Remote(Arc<CommitGate>, JoinSet<Result<CommittedCompaction, EngineError>>),
}

pub(super) async fn begin_job(
    fixture: &RegionFixture,
    scope: Scope,
    site: CompactionSite,
) -> PendingJob {
    match site {
        CompactionSite::Local => {
            fixture.region.load().await.unwrap();
            let planned = fixture.region.claim(scope, fixture.region.since()).unwrap()?;
            let job = Box::new(planned.job().clone());
            drop(planned);
            let compactor = Compactor::new(fixture.env());
            let written = compactor.merge(&job, &Attempt::default()).await.unwrap();
            let outputs: Vec<_> = written.into_iter().map(|file| file.meta).collect();
            Some(UncommittedJob::Local(job, outputs))
        }
        CompactionSite::Remote => {
            let planned = plan(fixture, scope).await?;
            let gate = CommitGate::new();
            let remote_job = RemoteJob::prepare(fixture, gate.clone(), planned.plan()).await;
            let mut running = JoinSet::new();
            running.spawn(async move { remote_job.run(&Attempt::default()).await });
            tokio::select! {
                () = gate.reached() => Some(UncommittedJob::Remote(gate, running)),
                // No row was left, so the hook was not called.
                ended = running.join_next() => {
                    assert_eq!(ended.unwrap().unwrap().unwrap().outputs.len(), 0);
                    fixture.region.load().await.unwrap();
                    None
                }
            }
        }
    }
}

pub(super) async fn commit_late(fixture: &RegionFixture, pending: PendingJob) {
    let Some(job) = pending else { return };
    let result = match job {
        UncommittedJob::Local(job, outputs) => {
            let manifest = ManifestContext::new(fixture.env(), job.dir);
            let result = commit(&manifest, &job, &outputs).await;
            if let Ok(version) = &result {
                // A late or repeated report changes nothing.
                let again = commit(&manifest, &job, &outputs).await;
                assert_eq!(again.unwrap_or(*version), *version);
            }
            result.map(drop)
        }
        UncommittedJob::Remote(gate, mut running) => {
            gate.open();
            running.join_next().await.unwrap().unwrap().map(drop)
        }
    };
    match result {
        Ok(()) => drop(fixture.region.load().await.unwrap()),
        // `BelowFloor` if garbage was collected since.
        Err(EngineError::Refused {
            reason: Void::InputsGone { .. } | Void::BelowFloor { .. },
            ..
        }) => {}
        Err(other) => panic!("{other}"),
    }
}

/// Runs a job on two compactors: one commits, and the commit of the other is refused.
pub(super) async fn run_job_twice(fixture: &RegionFixture, scope: Scope) {
    let Some(planned) = plan(fixture, scope).await else { return };
    let first = RemoteJob::prepare(fixture, Arc::new(NoopHook), planned.plan()).await;
    let second = RemoteJob::prepare(fixture, Arc::new(NoopHook), planned.plan()).await;
    let attempts = [Attempt::default(), Attempt::default()];
    let ended = tokio::join!(first.run(&attempts[0]), second.run(&attempts[1]));
    let (committed, late) = match ended {
        (Ok(committed), Err(late)) | (Err(late), Ok(committed)) => (committed, late),
        other => panic!("{other:?}"),
    };
    let superseded = matches!(late, EngineError::Refused { reason: Void::InputsGone { .. }, .. });
    assert!(superseded, "{late}");
    let outcome = planned.resolve_outcome().await.unwrap();
    assert_eq!(outcome, committed_outcome(&committed));
}

/// Cancels a job on a compactor; the owner finds the same outcome in the manifest as the compactor.
pub(super) async fn run_cancelled_job(fixture: &RegionFixture, scope: Scope, wakes: u8) {
    let Some(planned) = plan(fixture, scope).await else { return };
    let remote_job = RemoteJob::prepare(fixture, Arc::new(NoopHook), planned.plan()).await;
    let attempt = Attempt::default();
    let token = attempt.cancel.clone();
    let stop = async {
        for _ in 0..wakes {
            tokio::task::yield_now().await;
        }
        token.cancel();
    };
    let (ended, ()) = tokio::join!(remote_job.run(&attempt), stop);
    let expected = match ended {
        Ok(committed) => committed_outcome(&committed),
        Err(EngineError::Cancelled { .. }) => CompactionOutcome::Open,
        Err(other) => panic!("{other}"),
    };
    assert_eq!(planned.resolve_outcome().await.unwrap(), expected);
}
