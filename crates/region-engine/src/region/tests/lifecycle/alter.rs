//! Alter and truncate: what the log decides, what the manifest records of it, and who finishes it.

use tidewater_common::ids::Sequence;
use tidewater_common::schema::{SchemaChange, WriteMode};

use super::world::*;
use crate::compaction::Scope;
use crate::storage::Storage;
use crate::storage::testing::{Fault, FaultyStore};
use crate::{EngineError, ScanOptions};

fn some_rows(world: &World, from: i32) -> Vec<Row> {
    let at = world.log.len();
    (from..from + 10)
        .map(|n| (("k".to_owned(), n), Some(i64::from(n)), format!("{at}/{n}")))
        .collect()
}

async fn world() -> World {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    world.put(&some_rows(&world, 0));
    world.region.flush().await.unwrap();
    world.put(&some_rows(&world, 5));
    world
}

#[tokio::test]
async fn a_new_column_shows_its_default_in_files_and_runs_that_lack_it() {
    let mut world = world().await;
    world.alter(&[added("extra")]);
    world.check().await;
    world.put(&some_rows(&world, 12));
    world.region.merge_runs().await.unwrap();
    world.check().await;
    world.region.flush().await.unwrap();
    world.check().await;
    world.reopen().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_column_that_comes_again_does_not_bring_old_values_back() {
    let mut world = world().await;
    world.alter(&[added("extra")]);
    world.put(&some_rows(&world, 0));
    world.region.flush().await.unwrap();
    let first = world.spec.schema.column_named("extra").unwrap().id;
    world.alter(&[SchemaChange::DropColumn { name: "extra".to_owned() }, added("extra")]);
    let second = world.spec.schema.column_named("extra").unwrap().id;
    assert_ne!(first, second);
    // The check asks for the defaults of the second one, for all rows.
    world.check().await;
    let gone = world.region.scan(&ScanOptions::all(vec![first]));
    assert!(matches!(gone, Err(EngineError::BadRows { .. })));
}

#[tokio::test]
async fn truncated_rows_are_gone_at_once_and_for_good() {
    let mut world = world().await;
    let follower = world.log_replica();
    world.replay(&follower);
    follower.load().await.unwrap();
    world.truncate();
    world.check().await;
    assert_eq!(world.region.stats().memtable_bytes, 0);
    world.put(&some_rows(&world, 3));
    // The follower knows nothing of it from the manifest, all from the log.
    world.replay(&follower);
    follower.load().await.unwrap();
    assert_eq!(scan(&follower, &all()).await.unwrap(), world.expected_rows());
    assert!(world.region.manifest.state().truncated < world.region.obligations()[0].cause.sequence);
    world.region.settle().await.unwrap();
    assert_eq!(world.region.manifest.state().live.len(), 0);
    world.check().await;
    world.reopen().await.unwrap();
    world.check().await;
    assert_eq!(world.region.obligations(), []);
}

#[tokio::test]
async fn rows_that_are_truncated_while_they_are_flushed_do_not_come_back() {
    let mut world = World::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    world.put(&some_rows(&world, 0));
    let region = world.region.clone();
    // The flush has chosen its rows, and waits to encode them.
    let workers = region.env.options.workers as u32;
    let busy = region.env.workers.clone().acquire_many_owned(workers).await.unwrap();
    let mut flush = Box::pin(region.flush());
    while world.region.contents.lock().frozen.is_none() {
        assert!(futures::poll!(&mut flush).is_pending());
        tokio::task::yield_now().await;
    }
    drop(busy);
    world.truncate();
    flush.await.unwrap();
    world.check().await;
    world.region.settle().await.unwrap();
    world.check().await;
    world.reopen().await.unwrap();
    world.check().await;
}

// The flush has settled what there was, and waits for a merge: what is altered then must not be
// recorded after the file that has the new schema's rows.
#[tokio::test]
async fn what_is_altered_while_a_flush_waits_is_recorded_before_its_file() {
    let mut world = world().await;
    let region = world.region.clone();
    world.alter(&[added("first")]);
    let merging = region.merging.lock().await;
    let mut flush = Box::pin(region.flush());
    // Once the first one is settled, the lock is the next thing that it waits for.
    while !region.obligations().is_empty() {
        assert!(futures::poll!(&mut flush).is_pending());
        tokio::task::yield_now().await;
    }
    world.alter(&[added("second")]);
    world.put(&some_rows(&world, 12));
    drop(merging);
    let report = flush.await.unwrap();
    assert_eq!(report.flushed_sequence, region.last_sequence());
    assert_eq!(region.obligations(), [], "the flush goes after what its rows were written under");
    let state = region.manifest.state();
    let recorded = state.table.as_ref().unwrap().schema.version();
    assert_eq!(recorded, world.spec.schema.version());
    assert!(state.files().all(|file| file.schema_version <= recorded));
    assert!(state.files().any(|file| file.schema_version == recorded));
    world.check().await;
    world.compact(Scope::Whole).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_new_owner_finishes_what_the_old_one_began() {
    let mut world = world().await;
    world.alter(&[added("extra")]);
    world.truncate();
    world.put(&some_rows(&world, 40));
    let old = world.region.clone();
    let (sequence, pending) = (old.last_sequence(), old.obligations());
    assert_eq!(pending.len(), 2);
    world.region = world.snapshot_replica();
    world.region.restore(old.unflushed());
    world.term += 1;
    world.region.take_ownership(owner(world.term), GROUP).await.unwrap();
    assert_eq!(world.region.obligations(), pending);
    world.region.flush().await.unwrap();
    assert_eq!(world.region.obligations(), []);
    assert_eq!(world.region.done_through(), pending[1].cause.sequence);
    assert!(world.region.done_through() < sequence);
    world.check().await;
    // The old one comes late.
    assert!(matches!(
        old.settle().await,
        Err(EngineError::Fenced { .. } | EngineError::NotOwner { .. })
    ));
}

#[tokio::test]
async fn what_was_recorded_is_not_recorded_again() {
    for fault in [Fault::ErrorAfter, Fault::StoredConflict, Fault::ErrorBefore] {
        let store = FaultyStore::new();
        let mut world = World::new(store.storage(), WriteMode::Upsert, false).await;
        world.put(&some_rows(&world, 0));
        world.truncate();
        let before = world.region.stats().manifest_version;
        store.plan(move |call| match call.path.as_ref().ends_with(".delta") {
            true => fault,
            false => Fault::None,
        });
        let _ = world.region.settle().await;
        store.plan(|_| Fault::None);
        world.region.settle().await.unwrap();
        assert_eq!(world.region.stats().manifest_version.get(), before.get() + 1, "{fault:?}");
        // Told again by a replay of the log.
        world.region.truncate(cause(world.region.done_through())).unwrap();
        assert_eq!(world.region.obligations(), []);
    }
}

#[tokio::test]
async fn a_region_that_is_put_down_is_not_changed() {
    let world = world().await;
    world.region.close();
    let closed = world.region.truncate(cause(Sequence(1_000)));
    assert!(matches!(closed, Err(EngineError::Closed { .. })));
    let (schema, options) = (world.spec.schema.clone(), world.spec.options.clone());
    let closed = world.region.alter(cause(Sequence(1_000)), schema, options);
    assert!(matches!(closed, Err(EngineError::Closed { .. })));
}
