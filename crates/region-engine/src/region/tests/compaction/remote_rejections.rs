//! Requests that a compactor rejects: regions that the caller does not own, hooks that it cannot create,
//! plans that do not match the manifest. No rejected request has any effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tidewater_common::clock::{Clock, ClockDifference};
use tidewater_common::ids::{Epoch, FileId, GroupId, JobId, OwnerEpoch, RegionId, Sequence, Term};
use tidewater_common::schema::WriteMode;
use uuid::Uuid;

use crate::compaction::{
    Attempt, CompactionPlan, CompactionRegion, OpenCompactionRegionRequest, OpenError,
    OutputOptions, PlanError, Scope, open_compaction_region,
};
use crate::file_meta::FileRef;
use crate::hooks::{HookSetupError, HookSpec};
use crate::layout::RegionDir;
use crate::region::tests::fixture::*;
use crate::region::tests::remote_compactor::*;
use crate::storage::Storage;
use crate::storage::testing::{Fault, FaultyStore};
use crate::{EngineError, Region};

/// Maximum clock difference that a compactor accepts.
const HOUR_MS: u64 = 3_600_000;

/// A region with two runs.
async fn two_runs(storage: Storage) -> RegionFixture {
    let mut fixture = RegionFixture::new(storage, WriteMode::Upsert, false).await;
    for note in ["one", "two"] {
        let rows = |n| (("k".to_owned(), n), Some(1), note.to_owned());
        fixture.put(&(0..20).map(rows).collect::<Vec<_>>());
        fixture.region.flush().await.unwrap();
    }
    fixture
}

async fn open(
    fixture: &RegionFixture,
    request: OpenCompactionRegionRequest,
) -> Result<CompactionRegion, OpenError> {
    open_compaction_region(&fixture.env(), &plugin_sets(Arc::new(NoopHook)), request).await
}

/// Returns the error of opening the region for a caller with this epoch and group.
async fn open_error(fixture: &RegionFixture, owner: OwnerEpoch, group: GroupId) -> OpenError {
    let owner = (owner, group);
    let request = OpenCompactionRegionRequest { owner, ..request(&fixture.region, 1) };
    open(fixture, request).await.unwrap_err()
}

fn moved(term: u64) -> OwnerEpoch {
    OwnerEpoch { move_epoch: 1, term: Term(term) }
}

fn is_fenced(error: &OpenError, caller: OwnerEpoch, by: OwnerEpoch) -> bool {
    matches!(error, OpenError::Engine(EngineError::Fenced { region: RegionId(12), own, later })
        if (*own, *later) == (caller, by))
}

#[tokio::test]
async fn compactor_opens_region_only_for_manifest_owner() {
    let fixture = two_runs(Storage::memory()).await;
    let compactor = open(&fixture, request(&fixture.region, 1)).await.unwrap();
    assert_eq!(compactor.manifest_version(), fixture.region.stats().manifest_version);
    // The caller has not fenced the region: the previous owner may still commit.
    for (caller, group) in [(owner(2), GROUP), (moved(0), GROUP), (moved(1), GroupId(2))] {
        let error = open_error(&fixture, caller, group).await;
        let not_taken = matches!(error,
            OpenError::NotOwner { region: RegionId(12), caller: named } if named == caller);
        assert!(not_taken, "{error}");
    }
    // An epoch belongs to one group.
    let error = open_error(&fixture, owner(1), GroupId(2)).await;
    assert!(is_fenced(&error, owner(1), owner(1)), "{error}");
    let next = RegionFixture::fresh(&fixture.storage, &fixture.spec);
    next.take_ownership(moved(3), GroupId(2)).await.unwrap();
    for (caller, group) in [(owner(1), GROUP), (owner(9), GROUP), (moved(2), GroupId(2))] {
        let error = open_error(&fixture, caller, group).await;
        assert!(is_fenced(&error, caller, moved(3)), "{error}");
    }
}

#[tokio::test]
async fn compactor_does_not_open_missing_or_removed_region() {
    let fixture = two_runs(Storage::memory()).await;
    let empty = env(Storage::memory());
    let sets = plugin_sets(Arc::new(NoopHook));
    let opened = open_compaction_region(&empty, &sets, request(&fixture.region, 1)).await;
    let error = opened.unwrap_err();
    assert!(matches!(error, OpenError::NoManifest { region: RegionId(12) }), "{error}");

    let compactor = open(&fixture, request(&fixture.region, 1)).await.unwrap();
    let planned = plan(&fixture, Scope::Whole).await.unwrap();
    fixture.region.remove().await.unwrap();
    let errors = [
        open(&fixture, request(&fixture.region, 1)).await.unwrap_err(),
        compactor.prepare(planned.plan()).await.unwrap_err(),
    ];
    for error in errors {
        let removed =
            matches!(error, OpenError::Engine(EngineError::Removed { region: RegionId(12) }));
        assert!(removed, "{error}");
    }
}

#[tokio::test]
async fn unreadable_manifest_fails_open_prepare_and_outcome() {
    let store = FaultyStore::new();
    let fixture = two_runs(store.storage()).await;
    let compactor = open(&fixture, request(&fixture.region, 1)).await.unwrap();
    let planned = plan(&fixture, Scope::Whole).await.unwrap();
    store.plan(|_| Fault::ErrorBefore);
    let errors = [
        open(&fixture, request(&fixture.region, 1)).await.unwrap_err(),
        compactor.prepare(planned.plan()).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, OpenError::Engine(EngineError::Storage(_))), "{error}");
    }
    let error = planned.resolve_outcome().await.unwrap_err();
    assert!(matches!(error, EngineError::Storage(_)), "{error}");
    store.plan(|_| Fault::None);
    compactor.prepare(planned.plan()).await.unwrap();
}

/// A clock that agrees with the cluster's clocks until it is set wrong.
#[derive(Debug, Default)]
struct SwitchedClock(AtomicBool);

impl Clock for SwitchedClock {
    fn now_ms(&self) -> u64 {
        FixedClock.now_ms()
    }

    fn check(&self) -> Result<(), ClockDifference> {
        let difference = ClockDifference { difference_ms: 9, bound_ms: 1, since_ms: 0 };
        if self.0.load(Ordering::Relaxed) { Err(difference) } else { Ok(()) }
    }
}

#[tokio::test]
async fn node_with_wrong_clock_neither_compacts_nor_commits() {
    let fixture = two_runs(Storage::memory()).await;
    let clock = Arc::new(SwitchedClock::default());
    let env = env_with(fixture.storage.clone(), clock.clone());
    let sets = plugin_sets(Arc::new(NoopHook));
    let region = Region::new(env.clone(), fixture.spec.clone(), Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(owner(2), GROUP).await.unwrap();
    let compactor = open_compaction_region(&env, &sets, request(&region, 2)).await.unwrap();
    let planned = region.plan_compaction(Scope::Whole, Epoch(0)).await.unwrap().unwrap();
    let plan = planned.plan().clone();
    drop(planned);
    compactor.prepare(&plan).await.unwrap();
    assert!(!region.compactions_due().is_empty());
    clock.0.store(true, Ordering::Relaxed);
    assert!(region.compactions_due().is_empty());
    let planned = region.plan_compaction(Scope::Whole, Epoch(0)).await.map(|_| ());
    let committed = region.take_ownership(owner(3), GROUP).await.map(|_| ());
    for refused in [planned, committed] {
        assert!(matches!(refused, Err(EngineError::ClockDiffers { .. })), "{refused:?}");
    }
    let error = compactor.prepare(&plan).await.unwrap_err();
    assert!(matches!(error, OpenError::Engine(EngineError::ClockDiffers { .. })), "{error}");
    clock.0.store(false, Ordering::Relaxed);
    compactor.prepare(&plan).await.unwrap();
}

#[tokio::test]
async fn unknown_hook_kind_is_rejected_before_any_read() {
    let store = FaultyStore::new();
    let fixture = two_runs(store.storage()).await;
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    store.plan(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Fault::None
    });
    let unknown = HookSpec { name: "mine".to_owned(), kind: "loud".to_owned(), ..plugin() };
    let plugins = vec![plugin(), unknown];
    let request = OpenCompactionRegionRequest { hooks: plugins, ..request(&fixture.region, 1) };
    let error = open(&fixture, request.clone()).await.unwrap_err();
    let named = matches!(&error, OpenError::Hook(HookSetupError::UnknownKind { name, kind, .. })
        if name == "mine" && kind == "loud");
    assert!(named, "{error}");
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    let plugins = vec![plugin()];
    open(&fixture, OpenCompactionRegionRequest { hooks: plugins, ..request }).await.unwrap();
    assert_ne!(calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn plan_that_mismatches_manifest_is_rejected() {
    let fixture = two_runs(Storage::memory()).await;
    let request = OpenCompactionRegionRequest { since: Epoch(4), ..request(&fixture.region, 1) };
    let compactor = open(&fixture, request).await.unwrap();
    let planned = plan(&fixture, Scope::Whole).await.unwrap();
    let good = planned.plan().clone();
    let region = good.dir.region_id;
    let unknown = FileRef { file_id: FileId(Uuid::from_u128(5)), ..good.inputs[0].clone() };
    let first = good.inputs[0].clone();
    let file = first.file_id;
    let level_2 = OutputOptions { level: 2, ..good.output };
    let bytes = good.output.target_file_bytes;
    let other_dir = RegionDir { region_id: RegionId(99), ..good.dir };
    let now_ms = fixture.clock.now_ms();
    let late_ms = now_ms + HOUR_MS + 1;
    let cases = [
        (
            CompactionPlan { dir: other_dir, ..good.clone() },
            PlanError::OtherRegion { plan: RegionId(99), opened: region },
        ),
        (CompactionPlan { inputs: Vec::new(), ..good.clone() }, PlanError::Inputs { files: 0 }),
        (
            CompactionPlan { inputs: vec![unknown.clone()], ..good.clone() },
            PlanError::NotLive { file: unknown.file_id, region },
        ),
        (
            CompactionPlan { inputs: vec![first.clone(), first], ..good.clone() },
            PlanError::Overlap { file },
        ),
        (
            CompactionPlan { output: level_2, ..good.clone() },
            PlanError::Output { level: 2, bytes, inputs: 0 },
        ),
        (
            CompactionPlan { since: Epoch(5), ..good.clone() },
            PlanError::Since { plan: Epoch(5), opened: Epoch(4) },
        ),
        (
            CompactionPlan { now_ms: late_ms, ..good.clone() },
            PlanError::Time { plan_ms: late_ms, now_ms },
        ),
    ];
    for (plan, expected) in cases {
        match compactor.prepare(&via_wire(&plan)).await {
            Err(OpenError::Plan(error)) => assert_eq!(error, expected),
            other => panic!("{other:?}"),
        }
    }
    // Values at the limit are accepted.
    let since = CompactionPlan { since: Epoch(4), ..good.clone() };
    assert_eq!(compactor.prepare(&since).await.unwrap().since, Epoch(4));
    let soon = CompactionPlan { now_ms: now_ms + HOUR_MS, ..good.clone() };
    compactor.prepare(&soon).await.unwrap();

    // Another job commits first.
    let job = compactor.prepare(&good).await.unwrap();
    compactor.run(&job, LIMITS, &Attempt::default()).await.unwrap();
    let again = CompactionPlan { job_id: JobId(Uuid::now_v7()), ..good };
    let late = compactor.prepare(&again).await.unwrap_err();
    assert!(matches!(late, OpenError::Plan(PlanError::NotLive { .. })), "{late}");
}

#[tokio::test]
async fn job_since_is_at_least_that_of_manifest() {
    let fixture = two_runs(Storage::memory()).await;
    let attempt = Attempt::default();
    fixture.region.compact(Scope::Whole, Epoch(6), &attempt).await.unwrap().unwrap();
    let mut fixture = fixture;
    fixture.epoch = 7;
    for note in ["three", "four"] {
        fixture.put(&[(("k".to_owned(), 1), None, note.to_owned())]);
        fixture.region.flush().await.unwrap();
    }
    // The owner requests epoch 0, and plans with the manifest's epoch.
    let planned = plan(&fixture, Scope::Whole).await.unwrap();
    assert_eq!(planned.plan().since, Epoch(6));
    let remote_job = RemoteJob::prepare(&fixture, Arc::new(NoopHook), planned.plan()).await;
    assert_eq!(remote_job.job.since, Epoch(6));
    // An older plan has a lower epoch; the job uses the manifest's.
    let older = CompactionPlan { since: Epoch(2), ..planned.plan().clone() };
    assert_eq!(remote_job.region.prepare(&older).await.unwrap().since, Epoch(6));
}

#[tokio::test]
async fn fenced_owner_starts_no_job() {
    let fixture = two_runs(Storage::memory()).await;
    let compactor = open(&fixture, request(&fixture.region, 1)).await.unwrap();
    let planned = plan(&fixture, Scope::Whole).await.unwrap();
    let next = RegionFixture::fresh(&fixture.storage, &fixture.spec);
    next.take_ownership(owner(2), GROUP).await.unwrap();
    let error = compactor.prepare(planned.plan()).await.unwrap_err();
    assert!(is_fenced(&error, owner(1), owner(2)), "{error}");
    // A plan of the next owner does not match the caller for whom the region was opened.
    let stale = next.plan_compaction(Scope::Whole, Epoch(0)).await.unwrap().unwrap();
    let error = compactor.prepare(stale.plan()).await.unwrap_err();
    assert!(is_fenced(&error, owner(1), owner(2)), "{error}");
    assert_eq!(next.stats().files, 2);
    assert_eq!(next.flushed_sequence(), Sequence(20));
}
