//! What a compactor refuses: regions that are not the asker's, hooks that it cannot make, plans that do
//! not fit the manifest. Nothing was done after any of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidewater_common::clock::Clock;
use tidewater_common::ids::{Epoch, FileId, GroupId, JobId, OwnerEpoch, RegionId, Sequence, Term};
use tidewater_common::schema::WriteMode;
use uuid::Uuid;

use super::elsewhere::*;
use super::world::*;
use crate::EngineError;
use crate::compaction::{
    Attempt, CompactionPlan, CompactionRegion, OpenCompactionRegionRequest, OpenError,
    OutputOptions, PlanError, Scope, open_compaction_region,
};
use crate::file_meta::FileRef;
use crate::hooks::{HookSetupError, HookSpec};
use crate::layout::RegionDir;
use crate::storage::Storage;
use crate::storage::testing::{Fault, FaultyStore};

/// So far may clocks be apart.
const HOUR_MS: u64 = 3_600_000;

/// A region with two runs.
async fn two_runs(storage: Storage) -> World {
    let mut world = World::new(storage, WriteMode::Upsert, false).await;
    for note in ["one", "two"] {
        let rows = |n| (("k".to_owned(), n), Some(1), note.to_owned());
        world.put(&(0..20).map(rows).collect::<Vec<_>>());
        world.region.flush().await.unwrap();
    }
    world
}

async fn open(
    world: &World,
    request: OpenCompactionRegionRequest,
) -> Result<CompactionRegion, OpenError> {
    open_compaction_region(&world.env(), &sets(Arc::new(Silent)), request).await
}

/// Asked by this owner.
async fn asked_by(world: &World, owner: OwnerEpoch, group: GroupId) -> OpenError {
    let owner = (owner, group);
    let request = OpenCompactionRegionRequest { owner, ..request(&world.region, 1) };
    open(world, request).await.unwrap_err()
}

fn moved(term: u64) -> OwnerEpoch {
    OwnerEpoch { move_epoch: 1, term: Term(term) }
}

fn is_fenced(error: &OpenError, asker: OwnerEpoch, by: OwnerEpoch) -> bool {
    matches!(error, OpenError::Engine(EngineError::Fenced { region: RegionId(12), own, later })
        if (*own, *later) == (asker, by))
}

#[tokio::test]
async fn only_the_owner_by_the_manifest_has_a_region_compacted() {
    let world = two_runs(Storage::memory()).await;
    let compactor = open(&world, request(&world.region, 1)).await.unwrap();
    assert_eq!(compactor.manifest_version(), world.region.stats().manifest_version);
    // Nobody has fenced for the asker: the owner that it will replace may be about to commit.
    for (asker, group) in [(owner(2), GROUP), (moved(0), GROUP), (moved(1), GroupId(2))] {
        let error = asked_by(&world, asker, group).await;
        let not_taken = matches!(error,
            OpenError::NotOwner { region: RegionId(12), caller: named } if named == asker);
        assert!(not_taken, "{error}");
    }
    // An epoch is one group's.
    let error = asked_by(&world, owner(1), GroupId(2)).await;
    assert!(is_fenced(&error, owner(1), owner(1)), "{error}");
    let next = World::fresh(&world.storage, &world.spec);
    next.take_ownership(moved(3), GroupId(2)).await.unwrap();
    for (asker, group) in [(owner(1), GROUP), (owner(9), GROUP), (moved(2), GroupId(2))] {
        let error = asked_by(&world, asker, group).await;
        assert!(is_fenced(&error, asker, moved(3)), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_there_or_was_dropped_is_not_opened() {
    let world = two_runs(Storage::memory()).await;
    let (empty, sets) = (env(Storage::memory()), sets(Arc::new(Silent)));
    let opened = open_compaction_region(&empty, &sets, request(&world.region, 1)).await;
    let error = opened.unwrap_err();
    assert!(matches!(error, OpenError::NoManifest { region: RegionId(12) }), "{error}");

    let compactor = open(&world, request(&world.region, 1)).await.unwrap();
    let planned = planned(&world, Scope::Whole).await.unwrap();
    world.region.remove().await.unwrap();
    let errors = [
        open(&world, request(&world.region, 1)).await.unwrap_err(),
        compactor.prepare(planned.plan()).await.unwrap_err(),
    ];
    for error in errors {
        let removed =
            matches!(error, OpenError::Engine(EngineError::Removed { region: RegionId(12) }));
        assert!(removed, "{error}");
    }
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_is_no_answer() {
    let store = FaultyStore::new();
    let world = two_runs(store.storage()).await;
    let compactor = open(&world, request(&world.region, 1)).await.unwrap();
    let planned = planned(&world, Scope::Whole).await.unwrap();
    store.plan(|_| Fault::ErrorBefore);
    let errors = [
        open(&world, request(&world.region, 1)).await.unwrap_err(),
        compactor.prepare(planned.plan()).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, OpenError::Engine(EngineError::Storage(_))), "{error}");
    }
    let error = planned.settle().await.unwrap_err();
    assert!(matches!(error, EngineError::Storage(_)), "{error}");
    store.plan(|_| Fault::None);
    compactor.prepare(planned.plan()).await.unwrap();
}

#[tokio::test]
async fn a_hook_of_an_unknown_kind_is_refused_before_anything_is_read() {
    let store = FaultyStore::new();
    let world = two_runs(store.storage()).await;
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    store.plan(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Fault::None
    });
    let unknown = HookSpec { name: "mine".to_owned(), kind: "loud".to_owned(), ..plugin() };
    let plugins = vec![plugin(), unknown];
    let request = OpenCompactionRegionRequest { hooks: plugins, ..request(&world.region, 1) };
    let error = open(&world, request.clone()).await.unwrap_err();
    let named = matches!(&error, OpenError::Hook(HookSetupError::UnknownKind { name, kind, .. })
        if name == "mine" && kind == "loud");
    assert!(named, "{error}");
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    let plugins = vec![plugin()];
    open(&world, OpenCompactionRegionRequest { hooks: plugins, ..request }).await.unwrap();
    assert_ne!(calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_plan_that_does_not_fit_the_manifest_is_not_begun() {
    let world = two_runs(Storage::memory()).await;
    let request = OpenCompactionRegionRequest { since: Epoch(4), ..request(&world.region, 1) };
    let compactor = open(&world, request).await.unwrap();
    let planned = planned(&world, Scope::Whole).await.unwrap();
    let good = planned.plan().clone();
    let region = good.dir.region_id;
    let nobodys = FileRef { file_id: FileId(Uuid::from_u128(5)), ..good.inputs[0].clone() };
    let (first, file) = (good.inputs[0].clone(), good.inputs[0].file_id);
    let level_2 = OutputOptions { level: 2, ..good.output };
    let bytes = good.output.target_file_bytes;
    let elsewhere = RegionDir { region_id: RegionId(99), ..good.dir };
    let now_ms = world.clock.now_ms();
    let late_ms = now_ms + HOUR_MS + 1;
    let cases = [
        (
            CompactionPlan { dir: elsewhere, ..good.clone() },
            PlanError::OtherRegion { plan: RegionId(99), opened: region },
        ),
        (CompactionPlan { inputs: Vec::new(), ..good.clone() }, PlanError::Inputs { files: 0 }),
        (
            CompactionPlan { inputs: vec![nobodys.clone()], ..good.clone() },
            PlanError::NotLive { file: nobodys.file_id, region },
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
        match compactor.prepare(&sent(&plan)).await {
            Err(OpenError::Plan(error)) => assert_eq!(error, expected),
            other => panic!("{other:?}"),
        }
    }
    // Up to what was allowed it is fine.
    let since = CompactionPlan { since: Epoch(4), ..good.clone() };
    assert_eq!(compactor.prepare(&since).await.unwrap().since, Epoch(4));
    let soon = CompactionPlan { now_ms: now_ms + HOUR_MS, ..good.clone() };
    compactor.prepare(&soon).await.unwrap();

    // Another job was faster.
    let job = compactor.prepare(&good).await.unwrap();
    compactor.run(&job, LIMITS, &Attempt::default()).await.unwrap();
    let again = CompactionPlan { job_id: JobId(Uuid::now_v7()), ..good };
    let late = compactor.prepare(&again).await.unwrap_err();
    assert!(matches!(late, OpenError::Plan(PlanError::NotLive { .. })), "{late}");
}

#[tokio::test]
async fn what_the_manifest_has_merged_away_already_may_be_merged_away() {
    let world = two_runs(Storage::memory()).await;
    let attempt = Attempt::default();
    world.region.compact(Scope::Whole, Epoch(6), &attempt).await.unwrap().unwrap();
    let mut world = world;
    world.epoch = 7;
    for note in ["three", "four"] {
        world.put(&[(("k".to_owned(), 1), None, note.to_owned())]);
        world.region.flush().await.unwrap();
    }
    // The owner asks for epoch 0, and plans with what the manifest has.
    let planned = planned(&world, Scope::Whole).await.unwrap();
    assert_eq!(planned.plan().since, Epoch(6));
    let elsewhere = Elsewhere::of(&world, Arc::new(Silent), planned.plan()).await;
    assert_eq!(elsewhere.job.since, Epoch(6));
    // A plan from before says less; the job still does not go back.
    let older = CompactionPlan { since: Epoch(2), ..planned.plan().clone() };
    assert_eq!(elsewhere.region.prepare(&older).await.unwrap().since, Epoch(6));
}

#[tokio::test]
async fn an_owner_that_was_fenced_since_begins_no_job() {
    let world = two_runs(Storage::memory()).await;
    let compactor = open(&world, request(&world.region, 1)).await.unwrap();
    let planned = planned(&world, Scope::Whole).await.unwrap();
    let next = World::fresh(&world.storage, &world.spec);
    next.take_ownership(owner(2), GROUP).await.unwrap();
    let error = compactor.prepare(planned.plan()).await.unwrap_err();
    assert!(is_fenced(&error, owner(1), owner(2)), "{error}");
    // Two that lead in the same epoch cannot be; one that leads another group has lost it.
    let stale = next.plan_compaction(Scope::Whole, Epoch(0)).await.unwrap().unwrap();
    let error = compactor.prepare(stale.plan()).await.unwrap_err();
    assert!(is_fenced(&error, owner(1), owner(2)), "{error}");
    assert_eq!(next.stats().files, 2);
    assert_eq!(next.flushed_sequence(), Sequence(20));
}
