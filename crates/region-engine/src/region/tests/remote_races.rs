//! What may happen to a region while a compactor works on it, and what its owner finds out.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tidewater_common::clock::Clock;
use tidewater_common::ids::Epoch;
use tidewater_common::schema::WriteMode;
use tokio::sync::mpsc;

use super::elsewhere::*;
use super::world::*;
use crate::EngineError;
use crate::compaction::{Attempt, CompactionPlan, Scope};
use crate::gc::{GarbageCollector, GcRequest};
use crate::hooks::RegionHookRef;
use crate::hooks::testing::{HookCall, Recorder};
use crate::layout::RegionObject;
use crate::manifest::{ActionKind, Author, Change, Void};
use crate::region::Settled;
use crate::storage::testing::{Fault, FaultyStore};
use crate::storage::{Operation, Storage};

fn rows(note: &str) -> Vec<Row> {
    (0..150).map(|n| (("k".to_owned(), n), Some(i64::from(n)), format!("{note} {n}"))).collect()
}

/// A region with two runs.
async fn two_runs(storage: Storage) -> World {
    let mut world = World::new(storage, WriteMode::AppendOnly, false).await;
    for note in ["one", "two"] {
        world.put(&rows(note));
        world.region.flush().await.unwrap();
    }
    world
}

fn is_gone(result: &Result<impl Sized, EngineError>) -> bool {
    let Err(error) = result else { return false };
    matches!(error, EngineError::Refused { reason: Void::InputsGone { .. }, .. })
}

/// How many data files the store has.
async fn data_files(world: &World) -> usize {
    let dir = world.region.dir;
    let objects = world.storage.list(&dir.path(), None).await.unwrap();
    objects.iter().filter(|one| matches!(dir.object(&one.location), RegionObject::Data(_))).count()
}

#[tokio::test]
async fn the_owner_finds_out_what_has_become_of_a_job() {
    let mut world = two_runs(Storage::memory()).await;
    let dropped = planned(&world, Scope::Whole).await.unwrap().plan().clone();
    let planned = planned(&world, Scope::Whole).await.unwrap().renamed();
    assert_eq!(planned.plan().inputs, dropped.inputs);
    assert_ne!(planned.plan().job_id, dropped.job_id);
    assert_eq!(planned.plan().job_id, planned.job().job_id);
    assert_eq!(planned.settle().await.unwrap(), Settled::Open);
    assert!(self::planned(&world, Scope::Whole).await.is_none(), "its files are taken");
    let elsewhere = Elsewhere::of(&world, Arc::new(Silent), planned.plan()).await;
    // A flush does not matter to it.
    world.put(&rows("three"));
    world.region.flush().await.unwrap();
    assert_eq!(planned.settle().await.unwrap(), Settled::Open);
    let committed = elsewhere.run(&Attempt::default()).await.unwrap();
    // Later versions, and a report that comes late or twice, change nothing.
    world.put(&rows("four"));
    for _ in 0..2 {
        world.region.flush().await.unwrap();
        assert_eq!(planned.settle().await.unwrap(), committed_as(&committed));
    }
    world.check().await;
    // Under a new name an attempt under the old one counts as well.
    assert_eq!(planned.renamed().settle().await.unwrap(), committed_as(&committed));
    assert!(self::planned(&world, Scope::Whole).await.is_some(), "its files are free");
}

#[tokio::test]
async fn a_job_whose_files_others_have_merged_is_gone() {
    let world = two_runs(Storage::memory()).await;
    let planned = planned(&world, Scope::Whole).await.unwrap();
    let other = CompactionPlan {
        job_id: tidewater_common::ids::JobId(uuid::Uuid::now_v7()),
        ..planned.plan().clone()
    };
    let late = Elsewhere::of(&world, Arc::new(Silent), planned.plan()).await;
    let other = Elsewhere::of(&world, Arc::new(Silent), &other).await;
    other.run(&Attempt::default()).await.unwrap();
    let result = late.run(&Attempt::default()).await;
    assert!(is_gone(&result), "{result:?}");
    assert_eq!(planned.settle().await.unwrap(), Settled::Gone);
    world.check().await;
}

#[tokio::test]
async fn a_job_whose_files_were_truncated_is_gone() {
    let mut world = two_runs(Storage::memory()).await;
    let planned = planned(&world, Scope::Whole).await.unwrap();
    let elsewhere = Elsewhere::of(&world, Arc::new(Silent), planned.plan()).await;
    world.truncate();
    assert_eq!(planned.settle().await.unwrap(), Settled::Open, "not in the manifest yet");
    world.region.settle().await.unwrap();
    assert_eq!(planned.settle().await.unwrap(), Settled::Gone);
    let result = elsewhere.run(&Attempt::default()).await;
    assert!(is_gone(&result), "{result:?}");
    world.check().await;
    world.reopen().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_job_of_a_region_that_was_dropped_is_gone() {
    for commits in [false, true] {
        let world = two_runs(Storage::memory()).await;
        let planned = planned(&world, Scope::Whole).await.unwrap();
        let elsewhere = Elsewhere::of(&world, Arc::new(Silent), planned.plan()).await;
        let mut expected = Settled::Gone;
        if commits {
            let committed = elsewhere.run(&Attempt::default()).await.unwrap();
            expected = committed_as(&committed);
        }
        world.region.remove().await.unwrap();
        assert_eq!(planned.settle().await.unwrap(), expected);
        if !commits {
            let late = elsewhere.run(&Attempt::default()).await;
            assert!(matches!(late, Err(EngineError::Removed { .. })), "{late:?}");
        }
    }
}

#[tokio::test]
async fn a_job_goes_on_under_the_next_owner() {
    let world = two_runs(Storage::memory()).await;
    let planned = planned(&world, Scope::Whole).await.unwrap();
    let compactor = world.env();
    // Nobody merges anything as long as there is no worker.
    let workers = compactor.workers.available_permits() as u32;
    let busy = compactor.workers.clone().acquire_many_owned(workers).await.unwrap();
    let request = request(&world.region, 1);
    let elsewhere =
        Elsewhere::prepared(&compactor, Arc::new(Silent), request, planned.plan()).await.unwrap();
    let next = World::fresh(&world.storage, &world.spec);
    let attempt = Attempt::default();
    let (committed, ()) = tokio::join!(elsewhere.run(&attempt), async {
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
    let expected = world.expected_rows();
    assert_eq!(scan(&next, &all()).await.unwrap(), expected);
    assert!(next.files().iter().all(|file| file.level == 1));
    // Who planned it reads as ever, and owns nothing any more.
    assert_eq!(planned.settle().await.unwrap(), committed_as(&committed));
    world.check().await;
    let refused = world.region.plan_compaction(Scope::Whole, Epoch(0)).await;
    assert!(matches!(refused, Err(EngineError::NotOwner { .. })), "{refused:?}");
}

/// A compactor sleeps with its files written until the floor has passed them.
async fn overslept(collected: bool) {
    let world = two_runs(Storage::memory()).await;
    let planned = planned(&world, Scope::Whole).await.unwrap();
    let gate = Gate::new();
    let elsewhere = Elsewhere::of(&world, gate.clone(), planned.plan()).await;
    let (before, live) = (data_files(&world).await, world.region.files());
    let collect = async || {
        let floor_ms = world.clock.now_ms();
        let request = GcRequest { floor_ms, dry_run: false, table: None, max_deletions: 1_000 };
        let (found, _) = mpsc::channel(1_000);
        GarbageCollector::new(world.env()).collect(&request, &found).await.unwrap().deleted
    };
    let attempt = Attempt::default();
    let (late, ()) = tokio::join!(elsewhere.run(&attempt), async {
        gate.reached().await;
        assert!(data_files(&world).await > before);
        world.clock.forward(1_000);
        if collected {
            assert_ne!(collect().await, 0);
            assert_eq!(data_files(&world).await, before);
        } else {
            let floor = ActionKind::GcFloor { floor_ms: world.clock.now_ms() };
            let change = Change::new(Author::System, vec![floor]);
            world.region.manifest.record(change).await.unwrap();
        }
        gate.open();
    });
    let below = matches!(late, Err(EngineError::Refused { reason: Void::BelowFloor { .. }, .. }));
    assert!(below, "{late:?}");
    assert_eq!(planned.settle().await.unwrap(), Settled::Open);
    assert_eq!(world.region.files(), live);
    collect().await;
    assert_eq!(data_files(&world).await, before, "its files are garbage");
    world.check().await;
    // Another attempt gets younger files, also where the clock is behind the floor.
    let (behind, request) = (env(world.storage.clone()), request(&world.region, 1));
    let again = Elsewhere::prepared(&behind, Arc::new(Silent), request, planned.plan());
    let again = again.await.unwrap();
    let committed = again.run(&Attempt::default()).await.unwrap();
    assert_eq!(planned.settle().await.unwrap(), committed_as(&committed));
    world.check().await;
}

#[tokio::test]
async fn a_compactor_that_overslept_commits_nothing_whose_objects_are_gone() {
    overslept(true).await;
}

#[tokio::test]
async fn a_compactor_that_overslept_commits_nothing_that_the_next_pass_takes() {
    overslept(false).await;
}

#[tokio::test]
async fn a_job_fails_as_a_whole_when_one_of_its_files_cannot_be_written() {
    let store = FaultyStore::new();
    let world = two_runs(store.storage()).await;
    let (dir, live) = (world.region.dir, world.region.files());
    let version = world.region.stats().manifest_version;
    let planned = planned(&world, Scope::Whole).await.unwrap();
    let recorder = Recorder::new("recorder");
    let hook: RegionHookRef = recorder.clone();
    let elsewhere = Elsewhere::of(&world, hook, planned.plan()).await;
    let attempts = Arc::new(parking_lot::Mutex::new(None));
    for which in 1.. {
        // That file, however often it is tried.
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
            match *chosen.lock() == Some(call.path.clone()) {
                true => Fault::ErrorBefore,
                false => Fault::None,
            }
        });
        let attempt = Attempt::default();
        let result = elsewhere.run(&attempt).await;
        if attempts.lock().is_none() {
            // There are not that many files.
            let committed = result.unwrap();
            assert!(which > 3, "several files, of several sub-jobs: {which}");
            assert_eq!(committed.outputs.len(), which - 1);
            let settled = planned.settle().await.unwrap();
            assert_eq!(settled, committed_as(&committed));
            break;
        }
        assert!(matches!(result, Err(EngineError::Storage(_))), "{which}: {result:?}");
        assert_eq!(recorder.take(), []);
        assert_eq!(planned.settle().await.unwrap(), Settled::Open);
        assert_eq!(world.region.stats().manifest_version, version);
        assert_eq!(world.region.files(), live);
        world.check().await;
    }
    let seen = recorder.take();
    assert!(
        matches!(seen.as_slice(), [HookCall::Written(_), HookCall::Updated { .. }]),
        "{seen:?}"
    );
    world.check().await;
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_is_told_to_hooks_once_it_is_known() {
    let store = FaultyStore::new();
    let world = two_runs(store.storage()).await;
    let dir = world.region.dir;
    let planned = planned(&world, Scope::Whole).await.unwrap();
    let recorder = Recorder::new("recorder");
    let hook: RegionHookRef = recorder.clone();
    let elsewhere = Elsewhere::of(&world, hook, planned.plan()).await;
    // The manifest is written; nothing that would say so gets through.
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
    let result = elsewhere.run(&Attempt::default()).await;
    assert!(matches!(result, Err(EngineError::Unknown { .. })), "{result:?}");
    elsewhere.region.settle(Duration::from_millis(50)).await;
    let seen = recorder.take();
    assert!(matches!(seen.as_slice(), [HookCall::Written(_)]), "not known yet: {seen:?}");
    store.plan(|_| Fault::None);
    let long = Duration::from_secs(3_600);
    elsewhere.region.settle(long).await;
    let Settled::Committed { version, .. } = planned.settle().await.unwrap() else { panic!() };
    let seen = recorder.take();
    let told =
        matches!(seen.as_slice(), [HookCall::Updated { version: told, .. }] if *told == version);
    assert!(told, "{seen:?}");
    elsewhere.region.settle(long).await;
    assert_eq!(recorder.take(), [], "once");
    world.check().await;
}
