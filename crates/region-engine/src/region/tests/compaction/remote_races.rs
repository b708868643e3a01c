//! Changes of a region during a job on a compactor, and the outcome that the owner finds.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tidewater_common::clock::Clock;
use tidewater_common::ids::Epoch;
use tidewater_common::schema::WriteMode;
use tokio::sync::mpsc;

use crate::EngineError;
use crate::compaction::{Attempt, CompactionPlan, Scope};
use crate::gc::{GarbageCollector, GcRequest};
use crate::hooks::RegionHookRef;
use crate::hooks::testing::{HookCall, Recorder};
use crate::layout::RegionObject;
use crate::manifest::{ActionKind, Author, Change, Void};
use crate::region::CompactionOutcome;
use crate::region::tests::fixture::*;
use crate::region::tests::remote_compactor::*;
use crate::storage::testing::{Fault, FaultyStore};
use crate::storage::{Operation, Storage};

fn rows(note: &str) -> Vec<Row> {
    (0..150).map(|n| (("k".to_owned(), n), Some(i64::from(n)), format!("{note} {n}"))).collect()
}

/// A region with two runs.
async fn two_runs(storage: Storage) -> RegionFixture {
    let mut fixture = RegionFixture::new(storage, WriteMode::AppendOnly, false).await;
    for note in ["one", "two"] {
        fixture.put(&rows(note));
        fixture.region.flush().await.unwrap();
    }
    fixture
}

fn is_superseded(result: &Result<impl Sized, EngineError>) -> bool {
    let Err(error) = result else { return false };
    matches!(error, EngineError::Refused { reason: Void::InputsGone { .. }, .. })
}

/// Returns the number of data files of the region in the store.
async fn data_files(fixture: &RegionFixture) -> usize {
    let dir = fixture.region.dir;
    let objects = fixture.storage.list(&dir.path(), None).await.unwrap();
    objects
        .iter()
        .filter(|object| matches!(dir.object(&object.location), RegionObject::Data(_)))
        .count()
}

#[tokio::test]
async fn owner_resolves_outcome_of_remote_job() {
    let mut fixture = two_runs(Storage::memory()).await;
    let dropped = plan(&fixture, Scope::Whole).await.unwrap().plan().clone();
    let planned = plan(&fixture, Scope::Whole).await.unwrap().with_new_job_id();
    assert_eq!(planned.plan().inputs, dropped.inputs);
    assert_ne!(planned.plan().job_id, dropped.job_id);
    assert_eq!(planned.plan().job_id, planned.job().job_id);
    assert_eq!(planned.resolve_outcome().await.unwrap(), CompactionOutcome::Open);
    assert!(self::plan(&fixture, Scope::Whole).await.is_none(), "its files are taken");
    let remote_job = RemoteJob::prepare(&fixture, Arc::new(NoopHook), planned.plan()).await;
    // A flush does not affect it.
    fixture.put(&rows("three"));
    fixture.region.flush().await.unwrap();
    assert_eq!(planned.resolve_outcome().await.unwrap(), CompactionOutcome::Open);
    let committed = remote_job.run(&Attempt::default()).await.unwrap();
    // Later versions, and late or repeated reports, change nothing.
    fixture.put(&rows("four"));
    for _ in 0..2 {
        fixture.region.flush().await.unwrap();
        assert_eq!(planned.resolve_outcome().await.unwrap(), committed_outcome(&committed));
    }
    fixture.check().await;
    // Under a new job id, an attempt under the old id counts as well.
    assert_eq!(
        planned.with_new_job_id().resolve_outcome().await.unwrap(),
        committed_outcome(&committed)
    );
    assert!(self::plan(&fixture, Scope::Whole).await.is_some(), "its files are free");
}

#[tokio::test]
async fn job_is_superseded_when_another_compacts_its_files() {
    let fixture = two_runs(Storage::memory()).await;
    let planned = plan(&fixture, Scope::Whole).await.unwrap();
    let other = CompactionPlan {
        job_id: tidewater_common::ids::JobId(uuid::Uuid::now_v7()),
        ..planned.plan().clone()
    };
    let late = RemoteJob::prepare(&fixture, Arc::new(NoopHook), planned.plan()).await;
    let other = RemoteJob::prepare(&fixture, Arc::new(NoopHook), &other).await;
    other.run(&Attempt::default()).await.unwrap();
    let result = late.run(&Attempt::default()).await;
    assert!(is_superseded(&result), "{result:?}");
    assert_eq!(planned.resolve_outcome().await.unwrap(), CompactionOutcome::Superseded);
    fixture.check().await;
}

#[tokio::test]
async fn job_is_superseded_when_its_files_are_truncated() {
    let mut fixture = two_runs(Storage::memory()).await;
    let planned = plan(&fixture, Scope::Whole).await.unwrap();
    let remote_job = RemoteJob::prepare(&fixture, Arc::new(NoopHook), planned.plan()).await;
    fixture.truncate();
    assert_eq!(
        planned.resolve_outcome().await.unwrap(),
        CompactionOutcome::Open,
        "not in the manifest yet"
    );
    fixture.region.record_obligations().await.unwrap();
    assert_eq!(planned.resolve_outcome().await.unwrap(), CompactionOutcome::Superseded);
    let result = remote_job.run(&Attempt::default()).await;
    assert!(is_superseded(&result), "{result:?}");
    fixture.check().await;
    fixture.reopen().await.unwrap();
    fixture.check().await;
}

#[tokio::test]
async fn job_is_superseded_when_its_region_is_removed() {
    for commits in [false, true] {
        let fixture = two_runs(Storage::memory()).await;
        let planned = plan(&fixture, Scope::Whole).await.unwrap();
        let remote_job = RemoteJob::prepare(&fixture, Arc::new(NoopHook), planned.plan()).await;
        let mut expected = CompactionOutcome::Superseded;
        if commits {
            let committed = remote_job.run(&Attempt::default()).await.unwrap();
            expected = committed_outcome(&committed);
        }
        fixture.region.remove().await.unwrap();
        assert_eq!(planned.resolve_outcome().await.unwrap(), expected);
        if !commits {
            let late = remote_job.run(&Attempt::default()).await;
            assert!(matches!(late, Err(EngineError::Removed { .. })), "{late:?}");
        }
    }
}

#[tokio::test]
async fn job_commits_under_the_next_owner() {
    let fixture = two_runs(Storage::memory()).await;
    let planned = plan(&fixture, Scope::Whole).await.unwrap();
    let compactor = fixture.env();
    // No merge can run without a worker permit.
    let workers = compactor.workers.available_permits() as u32;
    let busy = compactor.workers.clone().acquire_many_owned(workers).await.unwrap();
    let request = request(&fixture.region, 1);
    let remote_job =
        RemoteJob::prepare_with(&compactor, Arc::new(NoopHook), request, planned.plan())
            .await
            .unwrap();
    let next = RegionFixture::fresh(&fixture.storage, &fixture.spec);
    let attempt = Attempt::default();
    let (committed, ()) = tokio::join!(remote_job.run(&attempt), async {
        next.take_ownership(owner(2), GROUP).await.unwrap();
        assert_eq!(attempt.progress.snapshot().files_written, 0);
        drop(busy);
    });
    let committed = committed.unwrap();
    let version = committed.manifest_version;
    let inputs = next.files();
    assert!(inputs.iter().all(|file| file.level == 0), "the commit is not read yet");
    assert_eq!(next.load().await.unwrap(), version);
    assert_eq!(next.stats().manifest_version, version);
    let expected = fixture.expected_rows();
    assert_eq!(scan(&next, &all()).await.unwrap(), expected);
    assert!(next.files().iter().all(|file| file.level == 1));
    // The planning owner is fenced, and still serves reads.
    assert_eq!(planned.resolve_outcome().await.unwrap(), committed_outcome(&committed));
    fixture.check().await;
    let refused = fixture.region.plan_compaction(Scope::Whole, Epoch(0)).await;
    assert!(matches!(refused, Err(EngineError::NotOwner { .. })), "{refused:?}");
}

/// Blocks a compactor before its commit until the GC floor has passed its files. `collected`: whether a
/// garbage collection pass deletes them first.
async fn commit_below_floor(collected: bool) {
    let fixture = two_runs(Storage::memory()).await;
    let planned = plan(&fixture, Scope::Whole).await.unwrap();
    let gate = CommitGate::new();
    let remote_job = RemoteJob::prepare(&fixture, gate.clone(), planned.plan()).await;
    let before = data_files(&fixture).await;
    let live = fixture.region.files();
    let collect = async || {
        let floor_ms = fixture.clock.now_ms();
        let request = GcRequest { floor_ms, dry_run: false, table: None, max_deletions: 1_000 };
        let (found, _) = mpsc::channel(1_000);
        GarbageCollector::new(fixture.env()).collect(&request, &found).await.unwrap().deleted
    };
    let attempt = Attempt::default();
    let (late, ()) = tokio::join!(remote_job.run(&attempt), async {
        gate.reached().await;
        assert!(data_files(&fixture).await > before);
        fixture.clock.advance(1_000);
        if collected {
            assert_ne!(collect().await, 0);
            assert_eq!(data_files(&fixture).await, before);
        } else {
            let floor = ActionKind::GcFloor { floor_ms: fixture.clock.now_ms() };
            let change = Change::new(Author::System, vec![floor]);
            fixture.region.manifest.record(change).await.unwrap();
        }
        gate.open();
    });
    let below = matches!(late, Err(EngineError::Refused { reason: Void::BelowFloor { .. }, .. }));
    assert!(below, "{late:?}");
    assert_eq!(planned.resolve_outcome().await.unwrap(), CompactionOutcome::Open);
    assert_eq!(fixture.region.files(), live);
    collect().await;
    assert_eq!(data_files(&fixture).await, before, "its files are garbage");
    fixture.check().await;
    // Another attempt gets newer file ids, even if its clock is behind the floor.
    let behind = env(fixture.storage.clone());
    let request = request(&fixture.region, 1);
    let again = RemoteJob::prepare_with(&behind, Arc::new(NoopHook), request, planned.plan());
    let again = again.await.unwrap();
    let committed = again.run(&Attempt::default()).await.unwrap();
    assert_eq!(planned.resolve_outcome().await.unwrap(), committed_outcome(&committed));
    fixture.check().await;
}

#[tokio::test]
async fn late_compactor_does_not_commit_collected_files() {
    Box::pin(commit_below_floor(true)).await;
}

#[tokio::test]
async fn late_compactor_does_not_commit_files_below_floor() {
    Box::pin(commit_below_floor(false)).await;
}

#[tokio::test]
async fn job_fails_without_commit_when_one_write_fails() {
    let store = FaultyStore::new();
    let fixture = two_runs(store.storage()).await;
    let dir = fixture.region.dir;
    let live = fixture.region.files();
    let version = fixture.region.stats().manifest_version;
    let planned = plan(&fixture, Scope::Whole).await.unwrap();
    let recorder = Recorder::new("recorder");
    let hook: RegionHookRef = recorder.clone();
    let remote_job = RemoteJob::prepare(&fixture, hook, planned.plan()).await;
    let attempts = Arc::new(parking_lot::Mutex::new(None));
    for which in 1.. {
        // Every write of the chosen file fails.
        let chosen = attempts.clone();
        *chosen.lock() = None;
        let seen = parking_lot::Mutex::new(Vec::new());
        store.plan(move |call| {
            let writes = matches!(
                call.operation,
                Operation::Put | Operation::PutIfAbsent | Operation::Upload
            );
            if !writes || !matches!(dir.object(&call.path), RegionObject::Data(_)) {
                return Fault::None;
            }
            let mut seen = seen.lock();
            if !seen.contains(&call.path) {
                seen.push(call.path.clone());
                if seen.len() == which {
                    *chosen.lock() = Some(call.path.clone());
                }
            }
            if *chosen.lock() == Some(call.path.clone()) { Fault::ErrorBefore } else { Fault::None }
        });
        let attempt = Attempt::default();
        let result = remote_job.run(&attempt).await;
        if attempts.lock().is_none() {
            // The job writes fewer files.
            let committed = result.unwrap();
            assert!(which > 3, "several files, of several sub-jobs: {which}");
            assert_eq!(committed.outputs.len(), which - 1);
            let outcome = planned.resolve_outcome().await.unwrap();
            assert_eq!(outcome, committed_outcome(&committed));
            break;
        }
        assert!(matches!(result, Err(EngineError::Storage(_))), "{which}: {result:?}");
        assert_eq!(recorder.take(), []);
        assert_eq!(planned.resolve_outcome().await.unwrap(), CompactionOutcome::Open);
        assert_eq!(fixture.region.stats().manifest_version, version);
        assert_eq!(fixture.region.files(), live);
        fixture.check().await;
    }
    let seen = recorder.take();
    assert!(
        matches!(seen.as_slice(), [HookCall::Written(_), HookCall::Updated { .. }]),
        "{seen:?}"
    );
    fixture.check().await;
}

#[tokio::test]
async fn hooks_see_commit_of_unknown_outcome_once_resolved() {
    let store = FaultyStore::new();
    let fixture = two_runs(store.storage()).await;
    let dir = fixture.region.dir;
    let planned = plan(&fixture, Scope::Whole).await.unwrap();
    let recorder = Recorder::new("recorder");
    let hook: RegionHookRef = recorder.clone();
    let remote_job = RemoteJob::prepare(&fixture, hook, planned.plan()).await;
    // The delta is stored, but every response that would show it is lost.
    let lost = AtomicBool::new(false);
    store.plan(move |call| {
        let commits = call.operation == Operation::PutIfAbsent
            && !matches!(dir.object(&call.path), RegionObject::Data(_));
        match () {
            () if commits && !lost.swap(true, SeqCst) => Fault::ErrorAfter,
            () if lost.load(SeqCst) => Fault::ErrorBefore,
            () => Fault::None,
        }
    });
    let result = remote_job.run(&Attempt::default()).await;
    assert!(matches!(result, Err(EngineError::Unknown { .. })), "{result:?}");
    remote_job.region.settle(Duration::from_millis(50)).await;
    let seen = recorder.take();
    assert!(matches!(seen.as_slice(), [HookCall::Written(_)]), "not known yet: {seen:?}");
    store.plan(|_| Fault::None);
    let long = Duration::from_secs(3_600);
    remote_job.region.settle(long).await;
    let CompactionOutcome::Committed { version, .. } = planned.resolve_outcome().await.unwrap()
    else {
        panic!()
    };
    let seen = recorder.take();
    let reported =
        matches!(seen.as_slice(), [HookCall::Updated { version: seen, .. }] if *seen == version);
    assert!(reported, "{seen:?}");
    remote_job.region.settle(long).await;
    assert_eq!(recorder.take(), [], "once");
    fixture.check().await;
}
