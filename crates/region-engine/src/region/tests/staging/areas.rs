//! Staging areas: their content is invisible until an owner publishes it atomically.

use std::sync::atomic::{AtomicU32, Ordering};

use tidewater_common::clock::Clock;
use tidewater_common::schema::WriteMode;

use crate::EngineError;
use crate::bulk::AdoptError;
use crate::gc::{GarbageCollector, GcRequest};
use crate::manifest::{AreaId, Void};
use crate::region::PublicationContent;
use crate::region::tests::fixture::*;
use crate::storage::testing::{Fault, FaultyStore};
use crate::storage::{Operation, Storage};

fn rows(numbers: std::ops::Range<i32>) -> Vec<Row> {
    numbers.map(|n| (("k".to_owned(), n), Some(i64::from(n)), format!("row {n}"))).collect()
}

async fn fixture() -> RegionFixture {
    RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await
}

async fn stage(fixture: &RegionFixture, area: AreaId, rows: &[Row]) -> Result<usize, AdoptError> {
    let files = bulk_files(&fixture.storage, &fixture.spec, rows).await;
    Ok(fixture.region.stage_files(area, &files).await?.files)
}

fn refused(error: &AdoptError) -> Option<&Void> {
    match error {
        AdoptError::Engine(EngineError::Refused { reason, .. }) => Some(reason),
        _ => None,
    }
}

#[tokio::test]
async fn staging_area_is_published_atomically_after_restart() {
    let mut fixture = fixture().await;
    fixture.put(&rows(0..5));
    let area = fixture.open_area();
    fixture.region.record_obligations().await.unwrap();
    assert_eq!(stage(&fixture, area, &rows(3..8)).await.unwrap(), 1);
    fixture.check().await;
    fixture.reopen().await.unwrap();
    fixture.check().await;
    assert_eq!(stage(&fixture, area, &rows(7..9)).await.unwrap(), 2);
    let [status] = fixture.region.staging_areas().try_into().unwrap();
    assert_eq!((status.area, status.files, status.overdue), (area, 2, false));
    fixture.check().await;
    let content = PublicationContent::Area { table: None };
    fixture.publish(area, content, &[rows(3..8), rows(7..9)]);
    fixture.region.record_obligations().await.unwrap();
    fixture.check().await;
    assert_eq!(fixture.region.staging_areas(), []);
    let error = stage(&fixture, area, &rows(0..1)).await.unwrap_err();
    assert!(matches!(refused(&error), Some(Void::AreaNotOpen { .. })), "{error}");
}

#[tokio::test]
async fn files_and_schema_of_staging_area_become_live_together() {
    let mut fixture = fixture().await;
    fixture.put(&rows(0..5));
    let area = fixture.open_area();
    fixture.region.record_obligations().await.unwrap();
    let before = fixture.spec.clone();
    let after = before.schema.altered(&[added("more")]).unwrap();
    let options = before.options.clone();
    for _ in 0..2 {
        fixture.region.stage_alter(area, after.clone(), options.clone()).await.unwrap();
    }
    let older = fixture.region.stage_alter(area, before.schema.clone(), options.clone()).await;
    let error = older.unwrap_err();
    assert!(matches!(refused(&error), Some(Void::SchemaNotNewer { .. })), "{error}");
    fixture.spec.schema = after.clone();
    stage(&fixture, area, &rows(3..8)).await.unwrap();
    let manifest = fixture.region.manifest.state();
    assert_eq!(manifest.table.as_ref().unwrap().schema, before.schema);
    let table = Some(Box::new((after.clone(), options)));
    fixture.publish(area, PublicationContent::Area { table }, &[rows(3..8)]);
    fixture.region.record_obligations().await.unwrap();
    assert_eq!(fixture.region.manifest.state().table.as_ref().unwrap().schema, after);
    // Older rows show the default of the new column.
    fixture.check().await;
    let column = after.columns()[4].id;
    let stream = fixture.region.scan(&crate::ScanOptions::all(vec![column])).unwrap();
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
async fn new_owner_completes_publication_interrupted_between_its_deltas() {
    let store = FaultyStore::new();
    let mut fixture = RegionFixture::new(store.storage(), WriteMode::Upsert, false).await;
    let area = fixture.open_area();
    fixture.region.record_obligations().await.unwrap();
    stage(&fixture, area, &rows(0..5)).await.unwrap();
    fixture.publish(area, PublicationContent::Area { table: None }, &[rows(0..5)]);
    let puts = AtomicU32::new(0);
    store.plan(move |call| {
        let delta = call.path.as_ref().ends_with(".delta");
        let commits = delta && call.operation == Operation::PutIfAbsent;
        if commits && puts.fetch_add(1, Ordering::SeqCst) > 0 {
            Fault::ErrorBefore
        } else {
            Fault::None
        }
    });
    assert!(fixture.region.record_obligations().await.is_err());
    store.plan(|_| Fault::None);
    fixture.reopen().await.unwrap();
    let state = fixture.region.manifest.state();
    assert!(state.closed_areas.get(&area).is_some());
    assert_eq!(fixture.region.obligations().len(), 1);
    fixture.region.record_obligations().await.unwrap();
    assert_eq!(fixture.region.obligations(), []);
    assert_eq!(fixture.region.manifest.state().version, state.version.next());
    fixture.check().await;
}

#[tokio::test]
async fn abandoned_area_leaves_nothing_and_cannot_be_reopened() {
    let mut fixture = fixture().await;
    fixture.put(&rows(0..3));
    let area = fixture.open_area();
    fixture.region.record_obligations().await.unwrap();
    stage(&fixture, area, &rows(1..5)).await.unwrap();
    fixture.abandon(area);
    fixture.abandon(area);
    fixture.region.record_obligations().await.unwrap();
    assert_eq!((fixture.region.staging_areas(), fixture.region.obligations()), (vec![], vec![]));
    fixture.check().await;
    let result = fixture.region.check_published(area).await;
    assert!(matches!(result, Err(AdoptError::Abandoned { .. })), "{result:?}");
    let error = fixture.region.open_unlogged_area(area, DEADLINE).await.unwrap_err();
    let used = matches!(error, EngineError::Refused { reason: Void::AreaUsed { .. }, .. });
    assert!(used, "{error}");
    let error = fixture.region.stage_alter(
        area,
        fixture.spec.schema.altered(&[added("more")]).unwrap(),
        fixture.spec.options.clone(),
    );
    let error = error.await.unwrap_err();
    assert!(matches!(refused(&error), Some(Void::AreaNotOpen { .. })), "{error}");
}

#[tokio::test]
async fn unlogged_area_is_dropped_with_its_owner() {
    let mut fixture = fixture().await;
    let unlogged = new_area();
    let logged = fixture.open_area();
    let version = fixture.region.open_unlogged_area(unlogged, DEADLINE).await.unwrap();
    assert_eq!(fixture.region.open_unlogged_area(unlogged, DEADLINE).await.unwrap(), version);
    assert_eq!(fixture.region.staging_areas().len(), 2);
    fixture.reopen().await.unwrap();
    let left: Vec<AreaId> = fixture.region.staging_areas().iter().map(|area| area.area).collect();
    assert_eq!(left, [logged]);
}

#[tokio::test]
async fn staging_fails_after_the_deadline() {
    let fixture = fixture().await;
    let area = new_area();
    // The fixed clock of these tests is long after this deadline.
    fixture.region.open_unlogged_area(area, 1).await.unwrap();
    let [status] = fixture.region.staging_areas().try_into().unwrap();
    assert!(status.overdue && !status.logged, "{status:?}");
    let error = stage(&fixture, area, &rows(0..1)).await.unwrap_err();
    assert!(matches!(error, AdoptError::Overdue { .. }), "{error}");
    let error = fixture.region.stage_alter(
        area,
        fixture.spec.schema.altered(&[added("more")]).unwrap(),
        fixture.spec.options.clone(),
    );
    assert!(matches!(error.await, Err(AdoptError::Overdue { .. })));
}

#[tokio::test]
async fn staging_requires_ownership() {
    let mut fixture = fixture().await;
    let area = fixture.open_area();
    let follower = fixture.log_replica();
    follower.load().await.unwrap();
    let error = follower.adopt(area, &[], DEADLINE).await.unwrap_err();
    assert!(matches!(error, AdoptError::Engine(EngineError::NotOwner { .. })), "{error}");
    let error = follower.stage_files(area, &[]).await.unwrap_err();
    assert!(matches!(error, AdoptError::Engine(EngineError::NotOwner { .. })), "{error}");
}

#[tokio::test]
async fn gc_keeps_staged_files_and_deletes_abandoned_ones() {
    let mut fixture = fixture().await;
    let abandoned = fixture.open_area();
    let kept = fixture.open_area();
    fixture.region.record_obligations().await.unwrap();
    let lost = bulk_files(&fixture.storage, &fixture.spec, &rows(0..3)).await;
    let left = bulk_files(&fixture.storage, &fixture.spec, &rows(3..6)).await;
    fixture.region.stage_files(abandoned, &lost).await.unwrap();
    fixture.region.stage_files(kept, &left).await.unwrap();
    fixture.abandon(abandoned);
    fixture.region.record_obligations().await.unwrap();
    // The ids of both files are older than the floor.
    let floor_ms = FixedClock.now_ms() + 1;
    let request = GcRequest { floor_ms, dry_run: false, table: None, max_deletions: 10 };
    let (found, _) = tokio::sync::mpsc::channel(1);
    GarbageCollector::new(env(fixture.storage.clone())).collect(&request, &found).await.unwrap();
    assert!(fixture.storage.head(&fixture.region.dir.data(lost[0])).await.is_err());
    fixture.publish(kept, PublicationContent::Area { table: None }, &[rows(3..6)]);
    fixture.region.record_obligations().await.unwrap();
    fixture.check().await;
}
