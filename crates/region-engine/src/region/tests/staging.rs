//! Staging areas: what is in one is invisible until it is published, in one step, by whoever owns
//! the region then.

use std::sync::atomic::{AtomicU32, Ordering};

use tidewater_common::clock::Clock;
use tidewater_common::schema::WriteMode;

use super::world::*;
use crate::EngineError;
use crate::bulk::AdoptError;
use crate::gc::{GarbageCollector, GcRequest};
use crate::manifest::{AreaId, Void};
use crate::region::Content;
use crate::storage::testing::{Fault, FaultyStore};
use crate::storage::{Operation, Storage};

fn rows(numbers: std::ops::Range<i32>) -> Vec<Row> {
    numbers.map(|n| (("k".to_owned(), n), Some(i64::from(n)), format!("row {n}"))).collect()
}

async fn world() -> World {
    World::new(Storage::memory(), WriteMode::Upsert, false).await
}

async fn stage(world: &World, area: AreaId, rows: &[Row]) -> Result<usize, AdoptError> {
    let files = bulk_files(&world.storage, &world.spec, rows).await;
    Ok(world.region.stage_files(area, &files).await?.files)
}

fn refused(error: &AdoptError) -> Option<&Void> {
    match error {
        AdoptError::Engine(EngineError::Refused { reason, .. }) => Some(reason),
        _ => None,
    }
}

#[tokio::test]
async fn an_area_is_published_in_one_step_after_a_restart() {
    let mut world = world().await;
    world.put(&rows(0..5));
    let area = world.open_area();
    world.region.settle().await.unwrap();
    assert_eq!(stage(&world, area, &rows(3..8)).await.unwrap(), 1);
    world.check().await;
    world.reopen().await.unwrap();
    world.check().await;
    assert_eq!(stage(&world, area, &rows(7..9)).await.unwrap(), 2);
    let [status] = world.region.areas().try_into().unwrap();
    assert_eq!((status.area, status.files, status.overdue), (area, 2, false));
    world.check().await;
    let content = Content::Area { table: None };
    world.publish(area, content, &[rows(3..8), rows(7..9)]);
    world.region.settle().await.unwrap();
    world.check().await;
    assert_eq!(world.region.areas(), []);
    let error = stage(&world, area, &rows(0..1)).await.unwrap_err();
    assert!(matches!(refused(&error), Some(Void::AreaNotOpen { .. })), "{error}");
}

#[tokio::test]
async fn files_and_schema_of_an_area_come_together() {
    let mut world = world().await;
    world.put(&rows(0..5));
    let area = world.open_area();
    world.region.settle().await.unwrap();
    let before = world.spec.clone();
    let after = before.schema.altered(&[added("more")]).unwrap();
    let options = before.options.clone();
    for _ in 0..2 {
        world.region.stage_alter(area, after.clone(), options.clone()).await.unwrap();
    }
    let older = world.region.stage_alter(area, before.schema.clone(), options.clone()).await;
    let error = older.unwrap_err();
    assert!(matches!(refused(&error), Some(Void::SchemaNotNewer { .. })), "{error}");
    world.spec.schema = after.clone();
    stage(&world, area, &rows(3..8)).await.unwrap();
    let manifest = world.region.manifest.state();
    assert_eq!(manifest.table.as_ref().unwrap().schema, before.schema);
    let table = Some(Box::new((after.clone(), options)));
    world.publish(area, Content::Area { table }, &[rows(3..8)]);
    world.region.settle().await.unwrap();
    assert_eq!(world.region.manifest.state().table.as_ref().unwrap().schema, after);
    // Rows that were there before show the default of the new column.
    world.check().await;
    let column = after.columns()[4].id;
    let stream = world.region.scan(&crate::ScanOptions::all(vec![column])).unwrap();
    let batches: Vec<_> = futures::TryStreamExt::try_collect::<Vec<_>>(stream).await.unwrap();
    let values: Vec<i64> = batches
        .iter()
        .flat_map(|batch| {
            use arrow::array::AsArray;
            batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
        })
        .collect();
    assert_eq!(values, [DEFAULT, DEFAULT, DEFAULT, WRITTEN, WRITTEN, WRITTEN, WRITTEN, WRITTEN]);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_dies_between_the_two_deltas_is_followed_by_one_that_records_the_rest() {
    let store = FaultyStore::new();
    let mut world = World::new(store.storage(), WriteMode::Upsert, false).await;
    let area = world.open_area();
    world.region.settle().await.unwrap();
    stage(&world, area, &rows(0..5)).await.unwrap();
    world.publish(area, Content::Area { table: None }, &[rows(0..5)]);
    let puts = AtomicU32::new(0);
    store.plan(move |call| {
        let delta = call.path.as_ref().ends_with(".delta");
        match delta && call.operation == Operation::PutIfAbsent {
            true if puts.fetch_add(1, Ordering::SeqCst) > 0 => Fault::ErrorBefore,
            _ => Fault::None,
        }
    });
    assert!(world.region.settle().await.is_err());
    store.plan(|_| Fault::None);
    world.reopen().await.unwrap();
    let state = world.region.manifest.state();
    assert!(state.closed_areas.get(&area).is_some());
    assert_eq!(world.region.obligations().len(), 1);
    world.region.settle().await.unwrap();
    assert_eq!(world.region.obligations(), []);
    assert_eq!(world.region.manifest.state().version, state.version.next());
    world.check().await;
}

#[tokio::test]
async fn an_abandoned_area_leaves_nothing_and_is_not_opened_again() {
    let mut world = world().await;
    world.put(&rows(0..3));
    let area = world.open_area();
    world.region.settle().await.unwrap();
    stage(&world, area, &rows(1..5)).await.unwrap();
    world.abandon(area);
    world.abandon(area);
    world.region.settle().await.unwrap();
    assert_eq!((world.region.areas(), world.region.obligations()), (vec![], vec![]));
    world.check().await;
    let asked = world.region.published(area).await;
    assert!(matches!(asked, Err(AdoptError::Abandoned { .. })), "{asked:?}");
    let error = world.region.open_own_area(area, DEADLINE).await.unwrap_err();
    let used = matches!(error, EngineError::Refused { reason: Void::AreaUsed { .. }, .. });
    assert!(used, "{error}");
    let error = world.region.stage_alter(
        area,
        world.spec.schema.altered(&[added("more")]).unwrap(),
        world.spec.options.clone(),
    );
    let error = error.await.unwrap_err();
    assert!(matches!(refused(&error), Some(Void::AreaNotOpen { .. })), "{error}");
}

#[tokio::test]
async fn an_area_that_no_entry_opened_ends_with_its_owner() {
    let mut world = world().await;
    let (own, logged) = (new_area(), world.open_area());
    let version = world.region.open_own_area(own, DEADLINE).await.unwrap();
    assert_eq!(world.region.open_own_area(own, DEADLINE).await.unwrap(), version);
    assert_eq!(world.region.areas().len(), 2);
    world.reopen().await.unwrap();
    let left: Vec<AreaId> = world.region.areas().iter().map(|area| area.area).collect();
    assert_eq!(left, [logged]);
}

#[tokio::test]
async fn nothing_is_staged_past_the_deadline() {
    let world = world().await;
    let area = new_area();
    // The clock of these tests stands still, long after this.
    world.region.open_own_area(area, 1).await.unwrap();
    let [status] = world.region.areas().try_into().unwrap();
    assert!(status.overdue && !status.logged, "{status:?}");
    let error = stage(&world, area, &rows(0..1)).await.unwrap_err();
    assert!(matches!(error, AdoptError::Overdue { .. }), "{error}");
    let error = world.region.stage_alter(
        area,
        world.spec.schema.altered(&[added("more")]).unwrap(),
        world.spec.options.clone(),
    );
    assert!(matches!(error.await, Err(AdoptError::Overdue { .. })));
}

#[tokio::test]
async fn only_the_owner_stages() {
    let mut world = world().await;
    let area = world.open_area();
    let follower = world.log_replica();
    follower.load().await.unwrap();
    let error = follower.adopt(area, &[], DEADLINE).await.unwrap_err();
    assert!(matches!(error, AdoptError::Engine(EngineError::NotOwner { .. })), "{error}");
    let error = follower.stage_files(area, &[]).await.unwrap_err();
    assert!(matches!(error, AdoptError::Engine(EngineError::NotOwner { .. })), "{error}");
}

#[tokio::test]
async fn garbage_collection_spares_what_is_staged_and_takes_what_was_abandoned() {
    let mut world = world().await;
    let (given_up, kept) = (world.open_area(), world.open_area());
    world.region.settle().await.unwrap();
    let lost = bulk_files(&world.storage, &world.spec, &rows(0..3)).await;
    let left = bulk_files(&world.storage, &world.spec, &rows(3..6)).await;
    world.region.stage_files(given_up, &lost).await.unwrap();
    world.region.stage_files(kept, &left).await.unwrap();
    world.abandon(given_up);
    world.region.settle().await.unwrap();
    // Both names are older.
    let floor_ms = FixedClock.now_ms() + 1;
    let request = GcRequest { floor_ms, dry_run: false, table: None, max_deletions: 10 };
    let (found, _) = tokio::sync::mpsc::channel(1);
    GarbageCollector::new(env(world.storage.clone())).collect(&request, &found).await.unwrap();
    assert!(world.storage.head(&world.region.dir.data(lost[0])).await.is_err());
    world.publish(kept, Content::Area { table: None }, &[rows(3..6)]);
    world.region.settle().await.unwrap();
    world.check().await;
}
