//! Seals, and the first deltas of children.

use std::sync::Arc;

use tidewater_common::ids::{RegionId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use super::world::*;
use crate::bulk::AdoptError;
use crate::bulk::error::NotShared;
use crate::manifest::{ProcedureStep, Void};
use crate::storage::Storage;
use crate::{EngineError, Region, RegionSpec};

fn rows(numbers: std::ops::Range<i32>) -> Vec<Row> {
    numbers.map(|n| (("k".to_owned(), n), Some(i64::from(n)), format!("row {n}"))).collect()
}

async fn world() -> World {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    world.put(&rows(0..20));
    world.region.flush().await.unwrap();
    world
}

fn child(world: &World, id: u64, range: KeyRange) -> Arc<Region> {
    let spec = RegionSpec { region_id: RegionId(id), range, ..world.spec.clone() };
    Region::new(env(world.storage.clone()), spec, Sequence(100), Sequence(0)).unwrap()
}

async fn why(child: &Region, parent: &Region) -> NotShared {
    match child.begin_from(&[parent.dir]).await {
        Err(AdoptError::NotShared { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_is_added_to_a_sealed_region_until_its_range_is_set_back() {
    let mut world = world().await;
    world.truncate();
    world.put(&rows(5..8));
    let step = |number| Some(ProcedureStep { number, step: 1 });
    let version = world.region.set_range(sealed(), step(3)).await.unwrap();
    assert_eq!(world.region.obligations(), []);
    // Again, also by a step that is told twice.
    assert_eq!(world.region.set_range(sealed(), step(3)).await.unwrap(), version);
    world.check().await;
    let error = world.region.flush().await.unwrap_err();
    let refused = matches!(error, EngineError::Refused { reason: Void::Sealed, .. });
    assert!(refused, "{error}");
    world.check().await;
    let late = world.region.set_range(KeyRange::whole(), step(2)).await.unwrap_err();
    let stale = matches!(late, EngineError::Refused { reason: Void::StaleStep { .. }, .. });
    assert!(stale, "{late}");
    world.region.set_range(KeyRange::whole(), step(4)).await.unwrap();
    world.region.flush().await.unwrap();
    world.check().await;
    let follower = world.log_replica();
    follower.load().await.unwrap();
    let error = follower.set_range(sealed(), None).await.unwrap_err();
    assert!(matches!(error, EngineError::NotOwner { .. }), "{error}");
}

#[tokio::test]
async fn children_begin_with_their_parts_of_the_parents_files_and_the_first_delta_counts() {
    let world = world().await;
    world.region.set_range(sealed(), None).await.unwrap();
    let cut = row_key(&world.spec, &("k".to_owned(), 7));
    let low = child(&world, 20, KeyRange::new(Vec::new(), Some(cut.clone())));
    let high = child(&world, 21, KeyRange::new(cut, None));
    for (child, numbers) in [(low, 0..7), (high, 7..20)] {
        let version = child.begin_from(&[world.region.dir]).await.unwrap();
        assert_eq!(version.get(), 1);
        assert_eq!(child.begin_from(&[world.region.dir]).await.unwrap(), version);
        let late = Region::new(
            env(world.storage.clone()),
            child.spec().clone(),
            Sequence(100),
            Sequence(0),
        )
        .unwrap();
        assert_eq!(late.begin_from(&[world.region.dir]).await.unwrap(), version);
        child.take_ownership(owner(1), GROUP).await.unwrap();
        assert_eq!(child.flushed_sequence(), world.region.flushed_sequence());
        assert_eq!(scan(&child, &all()).await.unwrap(), rows(numbers));
        let clips = child.files().into_iter().all(|file| file.clip == child.spec().range);
        assert!(clips);
    }
}

#[tokio::test]
async fn a_child_of_two_parents_has_the_files_of_both() {
    let parent = world().await;
    let cut = row_key(&parent.spec, &("k".to_owned(), 7));
    let low = child(&parent, 20, KeyRange::new(Vec::new(), Some(cut.clone())));
    let high = child(&parent, 21, KeyRange::new(cut, None));
    parent.region.set_range(sealed(), None).await.unwrap();
    for half in [&low, &high] {
        half.begin_from(&[parent.region.dir]).await.unwrap();
        half.take_ownership(owner(1), GROUP).await.unwrap();
        half.set_range(sealed(), None).await.unwrap();
    }
    // The file that is cut is shown twice: each half of it once.
    let whole = child(&parent, 22, KeyRange::whole());
    whole.begin_from(&[low.dir, high.dir]).await.unwrap();
    assert_eq!(whole.files().len(), low.files().len() + high.files().len());
    assert_eq!(scan(&whole, &all()).await.unwrap(), parent.expected_rows());
}

#[tokio::test]
async fn a_child_of_unfit_parents_does_not_begin() {
    let world = world().await;
    let fit = child(&world, 20, KeyRange::whole());
    assert_eq!(why(&fit, &world.region).await, NotShared::NotSealed);
    assert_eq!(why(&fit, &child(&world, 11, KeyRange::whole())).await, NotShared::ManifestEmpty);
    world.region.set_range(sealed(), None).await.unwrap();
    assert_eq!(why(&child(&world, 3, KeyRange::whole()), &world.region).await, NotShared::NotLower);
    let schema = world.spec.schema.altered(&[added("more")]).unwrap();
    let spec = RegionSpec { region_id: RegionId(21), schema, ..world.spec.clone() };
    let other = Region::new(env(world.storage.clone()), spec, Sequence(100), Sequence(0)).unwrap();
    assert_eq!(why(&other, &world.region).await, NotShared::OtherTable);
    world.region.set_range(KeyRange::whole(), None).await.unwrap();
    world.region.remove().await.unwrap();
    let error = fit.begin_from(&[world.region.dir]).await.unwrap_err();
    assert!(matches!(error, AdoptError::Engine(EngineError::Removed { .. })), "{error}");
    assert_eq!(fit.stats().manifest_version.get(), 0);
}
