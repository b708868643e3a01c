//! Ownership, fencing, removal and closing of a region.

use tidewater_common::ids::{OwnerEpoch, Sequence};
use tidewater_common::schema::WriteMode;

use crate::region::Phase;
use crate::region::tests::fixture::*;
use crate::storage::Storage;
use crate::{EngineError, Region};

fn some_rows(from: i32) -> Vec<Row> {
    (from..from + 10).map(|n| (("k".to_owned(), n), Some(i64::from(n)), "n".to_owned())).collect()
}

#[tokio::test]
async fn loading_region_accepts_writes_and_refuses_reads() {
    let fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    let region = RegionFixture::fresh(&fixture.storage, &fixture.spec);
    let mut writer = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    writer.put(&some_rows(0));
    region.apply(writer.log[0].clone()).unwrap();
    assert!(matches!(region.scan(&all()), Err(EngineError::Loading { .. })));
    assert!(matches!(region.flush().await, Err(EngineError::NotOwner { .. })));
    region.load().await.unwrap();
    assert_eq!(scan(&region, &all()).await.unwrap(), writer.expected_rows());
}

#[tokio::test]
async fn fenced_owner_commits_nothing_and_names_later_owner() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    fixture.put(&some_rows(0));
    let new = RegionFixture::fresh(&fixture.storage, &fixture.spec);
    new.take_ownership(owner(2), GROUP).await.unwrap();
    let version = new.stats().manifest_version;
    let error = fixture.region.flush().await.unwrap_err();
    assert!(
        matches!(error, EngineError::Fenced { later, .. } if later == owner(2))
            || matches!(error, EngineError::NotOwner { .. }),
        "{error}"
    );
    assert_eq!(fixture.region.stats().phase, Phase::Fenced(owner(2)));
    assert!(matches!(fixture.region.flush().await, Err(EngineError::NotOwner { .. })));
    assert_eq!(new.load().await.unwrap(), version);
    // Its rows stay readable, and it continues as a follower.
    fixture.check().await;
    let late = fixture.region.take_ownership(owner(1), GROUP).await;
    assert!(
        matches!(late, Err(EngineError::Fenced { .. } | EngineError::NotOwner { .. })),
        "{late:?}"
    );
}

#[tokio::test]
async fn taking_ownership_twice_is_idempotent() {
    let fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    let version = fixture.region.stats().manifest_version;
    fixture.region.take_ownership(owner(1), GROUP).await.unwrap();
    assert_eq!(fixture.region.stats().manifest_version, version);
    let moved = OwnerEpoch { move_epoch: 1, ..owner(1) };
    fixture.region.take_ownership(moved, GROUP).await.unwrap();
    assert_eq!(fixture.region.stats().phase, Phase::Owning(moved));
}

#[tokio::test]
async fn removed_region_refuses_reads_writes_and_loads() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    fixture.put(&some_rows(0));
    let follower = RegionFixture::fresh(&fixture.storage, &fixture.spec);
    follower.load().await.unwrap();
    assert!(matches!(follower.remove().await, Err(EngineError::NotOwner { .. })));
    fixture.region.remove().await.unwrap();
    fixture.region.remove().await.unwrap();
    assert!(matches!(fixture.region.scan(&all()), Err(EngineError::Removed { .. })));
    assert_eq!(fixture.region.stats().memtable_bytes, 0);
    assert!(matches!(follower.load().await, Err(EngineError::Removed { .. })));
    let write = fixture.log[0].clone();
    assert!(matches!(follower.apply(write), Err(EngineError::Removed { .. })));
}

#[tokio::test]
async fn closed_region_releases_its_memory() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    fixture.put(&some_rows(0));
    assert!(fixture.region.stats().memtable_bytes > 0);
    fixture.region.close();
    assert_eq!(fixture.region.stats().memtable_bytes, 0);
    assert!(matches!(fixture.region.scan(&all()), Err(EngineError::Closed { .. })));
    assert!(matches!(
        fixture.region.apply(fixture.log[0].clone()),
        Err(EngineError::Closed { .. })
    ));
}

#[tokio::test]
async fn applied_or_flushed_writes_are_skipped() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    fixture.put(&some_rows(0));
    fixture.replay(&fixture.region);
    fixture.check().await;
    fixture.region.flush().await.unwrap();
    fixture.replay(&fixture.region);
    assert_eq!(fixture.region.stats().memtable_rows, 0);
    let known = Region::new(
        env(fixture.storage.clone()),
        fixture.spec.clone(),
        Sequence(0),
        fixture.region.flushed_sequence(),
    )
    .unwrap();
    fixture.replay(&known);
    assert_eq!(known.stats().memtable_rows, 0);
    known.load().await.unwrap();
    assert_eq!(scan(&known, &all()).await.unwrap(), fixture.expected_rows());
}
