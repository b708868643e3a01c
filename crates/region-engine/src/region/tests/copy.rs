//! Another region's files: shared where that is safe, refused where it is not.

use std::sync::Arc;

use futures::FutureExt;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use tidewater_common::ids::{Epoch, RegionId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use super::world::*;
use crate::bulk::AdoptError;
use crate::bulk::error::NotShared;
use crate::compaction::Scope;
use crate::layout::RegionDir;
use crate::region::{Content, Publication};
use crate::storage::testing::{Fault, FaultyStore};
use crate::storage::{Operation, Storage};
use crate::{EngineError, Region, RegionSpec, RowOp, RowsWrite};

const BASE: u64 = 1_000;

fn rows(numbers: std::ops::Range<i32>) -> Vec<Row> {
    numbers.map(|n| (("k".to_owned(), n), Some(i64::from(n)), format!("row {n}"))).collect()
}

/// A region with rows in two files.
async fn world(storage: Storage) -> World {
    let mut world = World::new(storage, WriteMode::Upsert, false).await;
    for numbers in [0..20, 10..30] {
        world.put(&rows(numbers));
        world.region.flush().await.unwrap();
    }
    world
}

async fn taker(world: &World, id: u64, base: u64) -> Arc<Region> {
    let spec = RegionSpec { region_id: RegionId(id), ..world.spec.clone() };
    taker_of(world, spec, base).await
}

async fn taker_of(world: &World, spec: RegionSpec, base: u64) -> Arc<Region> {
    // As a host opens it: nothing at or below the base is its own.
    let (env, base) = (env(world.storage.clone()), Sequence(base));
    let region = Region::new(env, spec, base, base).unwrap();
    region.take_ownership(owner(1), GROUP).await.unwrap();
    region
}

fn publish(region: &Region, area: crate::manifest::AreaId, sequence: u64) {
    let publication = Publication { area, epoch: Epoch(9), content: Content::Copies };
    region.publish(cause(Sequence(sequence)), publication).unwrap();
}

async fn why(region: &Region, source: RegionDir) -> NotShared {
    match region.copy_from(source, DEADLINE).await {
        Err(AdoptError::NotShared { from, reason }) => {
            assert_eq!(from, source.region_id);
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_copy_shows_what_the_other_region_shows_and_goes_its_own_way() {
    let mut world = world(Storage::memory()).await;
    let copy = taker(&world, 20, BASE).await;
    let staged = copy.copy_from(world.region.dir, DEADLINE).await.unwrap();
    assert_eq!(staged.files, world.region.files().len());
    assert_eq!(scan(&copy, &all()).await.unwrap(), []);
    publish(&copy, staged.area, BASE + 10);
    copy.settle().await.unwrap();
    assert_eq!(scan(&copy, &all()).await.unwrap(), world.expected_rows());
    let files = copy.files();
    assert!(files.iter().all(|file| file.origin == world.region.dir && file.stamp.is_none()));
    let batch = delete_batch(&[("k".to_owned(), 0)], &world.spec);
    let sequence = Sequence(BASE + 20);
    copy.apply(RowsWrite { sequence, epoch: Epoch(0), op: RowOp::Delete, batch }).unwrap();
    copy.flush().await.unwrap();
    world.check().await;
    world.delete(&[("k".to_owned(), 0)]);
    assert_eq!(scan(&copy, &all()).await.unwrap(), world.expected_rows());
    // It has rows now.
    assert_eq!(why(&copy, world.region.dir).await, NotShared::NotEmpty);
}

#[tokio::test]
async fn a_copy_shows_its_own_range_only() {
    let world = world(Storage::memory()).await;
    let [start, end] = [5, 12].map(|number| row_key(&world.spec, &("k".to_owned(), number)));
    let range = KeyRange::new(start, Some(end));
    let spec = RegionSpec { region_id: RegionId(20), range, ..world.spec.clone() };
    let copy = taker_of(&world, spec, BASE).await;
    let staged = copy.copy_from(world.region.dir, DEADLINE).await.unwrap();
    publish(&copy, staged.area, BASE + 10);
    copy.settle().await.unwrap();
    let expected: Vec<Row> =
        world.expected_rows().into_iter().filter(|row| (5..12).contains(&row.0.1)).collect();
    assert_eq!(scan(&copy, &all()).await.unwrap(), expected);
    assert!(copy.files().iter().all(|file| file.clip == copy.spec().range));
}

#[tokio::test]
async fn what_an_earlier_attempt_has_staged_is_taken_back() {
    let world = world(Storage::memory()).await;
    let copy = taker(&world, 20, BASE).await;
    let first = copy.copy_from(world.region.dir, DEADLINE).await.unwrap();
    let second = copy.copy_from(world.region.dir, DEADLINE).await.unwrap();
    assert_ne!(first.area, second.area);
    let open: Vec<_> = copy.areas().iter().map(|area| area.area).collect();
    assert_eq!(open, [second.area]);
    publish(&copy, second.area, BASE + 10);
    // Decided, if not recorded.
    assert_eq!(why(&copy, world.region.dir).await, NotShared::NotEmpty);
}

#[tokio::test]
async fn a_copy_starts_over_when_a_file_was_compacted_away_before_it_was_named() {
    let inner = Arc::new(InMemory::new());
    let store = FaultyStore::over(inner.clone());
    let world = world(store.storage()).await;
    let copy = taker(&world, 20, BASE).await;
    // A compaction's delta, held back until the copy has named its files.
    let report = world.compact(Scope::Whole).await.unwrap();
    let delta = world.region.dir.delta(report.manifest_version);
    let bytes = world.storage.get(&delta).await.unwrap();
    world.storage.delete(&delta).await.unwrap();
    store.plan(move |call| {
        let names = call.path.as_ref().contains("/r20-") && call.path.as_ref().ends_with(".delta");
        if names && call.operation == Operation::PutIfAbsent {
            let landed = inner.put(&delta, bytes.clone().into()).now_or_never();
            landed.unwrap().unwrap();
        }
        Fault::None
    });
    let staged = copy.copy_from(world.region.dir, DEADLINE).await.unwrap();
    store.plan(|_| Fault::None);
    assert_eq!(staged.files, world.region.files().len());
    assert_eq!(copy.areas().len(), 1);
    publish(&copy, staged.area, BASE + 10);
    copy.settle().await.unwrap();
    let ids =
        |region: &Region| -> Vec<_> { region.files().iter().map(|file| file.file_id).collect() };
    assert_eq!(ids(&copy), ids(&world.region));
    assert_eq!(scan(&copy, &all()).await.unwrap(), world.expected_rows());
}

#[tokio::test]
async fn files_that_cannot_be_shared_are_refused() {
    let world = world(Storage::memory()).await;
    let source = world.region.dir;
    // Garbage is marked in order of ids.
    for id in [5, 12] {
        let spec = RegionSpec { region_id: RegionId(id), ..world.spec.clone() };
        let lower = Region::new(env(world.storage.clone()), spec, Sequence(BASE), Sequence(0));
        assert_eq!(why(&lower.unwrap(), source).await, NotShared::NotLower);
    }
    let low = taker(&world, 21, 15).await;
    let above = NotShared::AboveBase { found: Sequence(20), base: Sequence(15) };
    assert_eq!(why(&low, source).await, above);

    let schema = world.spec.schema.altered(&[added("more")]).unwrap();
    let spec = RegionSpec { region_id: RegionId(22), schema, ..world.spec.clone() };
    let other = taker_of(&world, spec, BASE).await;
    assert_eq!(why(&other, source).await, NotShared::OtherTable);

    let full = taker(&world, 23, BASE).await;
    let batch = put_batch(&rows(0..1), &world.spec);
    let sequence = Sequence(BASE + 1);
    full.apply(RowsWrite { sequence, epoch: Epoch(0), op: RowOp::Put, batch }).unwrap();
    assert_eq!(why(&full, source).await, NotShared::NotEmpty);
    full.truncate(cause(Sequence(BASE + 2))).unwrap();
    full.settle().await.unwrap();
    // What was deleted in it must not come back.
    assert_eq!(why(&full, source).await, NotShared::NotEmpty);

    let empty = taker(&world, 24, BASE).await;
    let unborn = RegionDir { region_id: RegionId(6), ..source };
    assert_eq!(why(&empty, unborn).await, NotShared::ManifestEmpty);
    let error = empty.copy_from(source, 1).await.unwrap_err();
    assert!(matches!(error, AdoptError::Overdue { .. }), "{error}");
    world.region.remove().await.unwrap();
    let error = empty.copy_from(source, DEADLINE).await.unwrap_err();
    let removed =
        matches!(error, AdoptError::Engine(EngineError::Removed { region: RegionId(12) }));
    assert!(removed, "{error}");
    assert_eq!(empty.areas(), []);
}
