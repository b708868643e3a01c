//! Who may flush, and what the others are told.

use tidewater_common::ids::{OwnerEpoch, Sequence};
use tidewater_common::schema::WriteMode;

use super::world::*;
use crate::region::Phase;
use crate::storage::Storage;
use crate::{EngineError, Region};

fn some_rows(from: i32) -> Vec<Row> {
    (from..from + 10).map(|n| (("k".to_owned(), n), Some(i64::from(n)), "n".to_owned())).collect()
}

#[tokio::test]
async fn a_loading_region_takes_writes_and_refuses_reads() {
    let world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    let region = World::fresh(&world.storage, &world.spec);
    let mut writer = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    writer.put(&some_rows(0));
    region.apply(writer.log[0].clone()).unwrap();
    assert!(matches!(region.scan(&all()), Err(EngineError::Loading { .. })));
    assert!(matches!(region.flush().await, Err(EngineError::NotOwner { .. })));
    region.load().await.unwrap();
    assert_eq!(scan(&region, &all()).await.unwrap(), writer.expected_rows());
}

#[tokio::test]
async fn a_fenced_owner_commits_nothing_and_says_who_came() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    world.put(&some_rows(0));
    let new = World::fresh(&world.storage, &world.spec);
    new.take_ownership(owner(2), GROUP).await.unwrap();
    let version = new.stats().manifest_version;
    let error = world.region.flush().await.unwrap_err();
    assert!(
        matches!(error, EngineError::Fenced { later, .. } if later == owner(2))
            || matches!(error, EngineError::NotOwner { .. }),
        "{error}"
    );
    assert_eq!(world.region.stats().phase, Phase::Fenced(owner(2)));
    assert!(matches!(world.region.flush().await, Err(EngineError::NotOwner { .. })));
    assert_eq!(new.load().await.unwrap(), version);
    // Its rows are still there, and it goes on as a follower.
    world.check().await;
    let late = world.region.take_ownership(owner(1), GROUP).await;
    assert!(
        matches!(late, Err(EngineError::Fenced { .. } | EngineError::NotOwner { .. })),
        "{late:?}"
    );
}

#[tokio::test]
async fn taking_ownership_again_changes_nothing() {
    let world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    let version = world.region.stats().manifest_version;
    world.region.take_ownership(owner(1), GROUP).await.unwrap();
    assert_eq!(world.region.stats().manifest_version, version);
    let moved = OwnerEpoch { move_epoch: 1, ..owner(1) };
    world.region.take_ownership(moved, GROUP).await.unwrap();
    assert_eq!(world.region.stats().phase, Phase::Owning(moved));
}

#[tokio::test]
async fn a_removed_region_says_so_to_everybody() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    world.put(&some_rows(0));
    let follower = World::fresh(&world.storage, &world.spec);
    follower.load().await.unwrap();
    assert!(matches!(follower.remove().await, Err(EngineError::NotOwner { .. })));
    world.region.remove().await.unwrap();
    world.region.remove().await.unwrap();
    assert!(matches!(world.region.scan(&all()), Err(EngineError::Removed { .. })));
    assert_eq!(world.region.stats().memtable_bytes, 0);
    assert!(matches!(follower.load().await, Err(EngineError::Removed { .. })));
    let write = world.log[0].clone();
    assert!(matches!(follower.apply(write), Err(EngineError::Removed { .. })));
}

#[tokio::test]
async fn a_closed_region_gives_its_memory_back() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    world.put(&some_rows(0));
    assert!(world.region.stats().memtable_bytes > 0);
    world.region.close();
    assert_eq!(world.region.stats().memtable_bytes, 0);
    assert!(matches!(world.region.scan(&all()), Err(EngineError::Closed { .. })));
    assert!(matches!(world.region.apply(world.log[0].clone()), Err(EngineError::Closed { .. })));
}

#[tokio::test]
async fn writes_that_were_applied_or_flushed_are_skipped() {
    let mut world = World::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    world.put(&some_rows(0));
    world.replay(&world.region);
    world.check().await;
    world.region.flush().await.unwrap();
    world.replay(&world.region);
    assert_eq!(world.region.stats().memtable_rows, 0);
    let known = Region::new(
        env(world.storage.clone()),
        world.spec.clone(),
        Sequence(0),
        world.region.flushed_sequence(),
    )
    .unwrap();
    world.replay(&known);
    assert_eq!(known.stats().memtable_rows, 0);
    known.load().await.unwrap();
    assert_eq!(scan(&known, &all()).await.unwrap(), world.expected_rows());
}
