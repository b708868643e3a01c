//! Copies of another region's files: shared where that is safe, refused otherwise.

use std::sync::Arc;

use futures::FutureExt;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use tidewater_common::ids::{Epoch, RegionId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use crate::bulk::AdoptError;
use crate::bulk::error::NotShared;
use crate::compaction::Scope;
use crate::layout::RegionDir;
use crate::region::tests::fixture::*;
use crate::region::{Publication, PublicationContent};
use crate::storage::testing::{Fault, FaultyStore};
use crate::storage::{Operation, Storage};
use crate::{EngineError, Region, RegionSpec, RowOp, RowsWrite};

const BASE: u64 = 1_000;

fn rows(numbers: std::ops::Range<i32>) -> Vec<Row> {
    numbers.map(|n| (("k".to_owned(), n), Some(i64::from(n)), format!("row {n}"))).collect()
}

/// A region with rows in two files.
async fn fixture(storage: Storage) -> RegionFixture {
    let mut fixture = RegionFixture::new(storage, WriteMode::Upsert, false).await;
    for numbers in [0..20, 10..30] {
        fixture.put(&rows(numbers));
        fixture.region.flush().await.unwrap();
    }
    fixture
}

async fn open_copy(fixture: &RegionFixture, id: u64, base: u64) -> Arc<Region> {
    let spec = RegionSpec { region_id: RegionId(id), ..fixture.spec.clone() };
    open_copy_of_spec(fixture, spec, base).await
}

async fn open_copy_of_spec(fixture: &RegionFixture, spec: RegionSpec, base: u64) -> Arc<Region> {
    // As a host opens it: no row at or below the base is the region's own.
    let env = env(fixture.storage.clone());
    let base = Sequence(base);
    let region = Region::new(env, spec, base, base).unwrap();
    region.take_ownership(owner(1), GROUP).await.unwrap();
    region
}

fn publish(region: &Region, area: crate::manifest::AreaId, sequence: u64) {
    let publication = Publication { area, epoch: Epoch(9), content: PublicationContent::Copies };
    region.publish(cause(Sequence(sequence)), publication).unwrap();
}

async fn refusal_reason(region: &Region, source: RegionDir) -> NotShared {
    match region.copy_from(source, DEADLINE).await {
        Err(AdoptError::NotShared { from, reason }) => {
            assert_eq!(from, source.region_id);
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn copy_shows_source_rows_and_changes_independently() {
    let mut fixture = fixture(Storage::memory()).await;
    let copy = open_copy(&fixture, 20, BASE).await;
    let staged = copy.copy_from(fixture.region.dir, DEADLINE).await.unwrap();
    assert_eq!(staged.files, fixture.region.files().len());
    assert_eq!(scan(&copy, &all()).await.unwrap(), []);
    publish(&copy, staged.area, BASE + 10);
    copy.record_obligations().await.unwrap();
    assert_eq!(scan(&copy, &all()).await.unwrap(), fixture.expected_rows());
    let files = copy.files();
    assert!(files.iter().all(|file| file.origin == fixture.region.dir && file.stamp.is_none()));
    let batch = delete_batch(&[("k".to_owned(), 0)], &fixture.spec);
    let sequence = Sequence(BASE + 20);
    copy.apply(RowsWrite { sequence, epoch: Epoch(0), op: RowOp::Delete, batch }).unwrap();
    copy.flush().await.unwrap();
    fixture.check().await;
    fixture.delete(&[("k".to_owned(), 0)]);
    assert_eq!(scan(&copy, &all()).await.unwrap(), fixture.expected_rows());
    // The copy has rows now.
    assert_eq!(refusal_reason(&copy, fixture.region.dir).await, NotShared::NotEmpty);
}

#[tokio::test]
async fn copy_shows_only_its_own_range() {
    let fixture = fixture(Storage::memory()).await;
    let [start, end] = [5, 12].map(|number| row_key(&fixture.spec, &("k".to_owned(), number)));
    let range = KeyRange::new(start, Some(end));
    let spec = RegionSpec { region_id: RegionId(20), range, ..fixture.spec.clone() };
    let copy = open_copy_of_spec(&fixture, spec, BASE).await;
    let staged = copy.copy_from(fixture.region.dir, DEADLINE).await.unwrap();
    publish(&copy, staged.area, BASE + 10);
    copy.record_obligations().await.unwrap();
    let expected: Vec<Row> =
        fixture.expected_rows().into_iter().filter(|row| (5..12).contains(&row.0.1)).collect();
    assert_eq!(scan(&copy, &all()).await.unwrap(), expected);
    assert!(copy.files().iter().all(|file| file.clip == copy.spec().range));
}

#[tokio::test]
async fn copy_withdraws_files_staged_by_earlier_attempt() {
    let fixture = fixture(Storage::memory()).await;
    let copy = open_copy(&fixture, 20, BASE).await;
    let first = copy.copy_from(fixture.region.dir, DEADLINE).await.unwrap();
    let second = copy.copy_from(fixture.region.dir, DEADLINE).await.unwrap();
    assert_ne!(first.area, second.area);
    let open: Vec<_> = copy.staging_areas().iter().map(|area| area.area).collect();
    assert_eq!(open, [second.area]);
    publish(&copy, second.area, BASE + 10);
    // Published by the log, but not recorded yet.
    assert_eq!(refusal_reason(&copy, fixture.region.dir).await, NotShared::NotEmpty);
}

#[tokio::test]
async fn copy_retries_when_source_file_is_compacted_before_staging() {
    let inner = Arc::new(InMemory::new());
    let store = FaultyStore::over(inner.clone());
    let fixture = fixture(store.storage()).await;
    let copy = open_copy(&fixture, 20, BASE).await;
    // The delta of a compaction, held back until the copy stages its files.
    let report = fixture.compact(Scope::Whole).await.unwrap();
    let delta = fixture.region.dir.delta(report.manifest_version);
    let bytes = fixture.storage.get(&delta).await.unwrap();
    fixture.storage.delete(&delta).await.unwrap();
    store.plan(move |call| {
        let stages = call.path.as_ref().contains("/r20-") && call.path.as_ref().ends_with(".delta");
        if stages && call.operation == Operation::PutIfAbsent {
            let stored = inner.put(&delta, bytes.clone().into()).now_or_never();
            stored.unwrap().unwrap();
        }
        Fault::None
    });
    let staged = copy.copy_from(fixture.region.dir, DEADLINE).await.unwrap();
    store.plan(|_| Fault::None);
    assert_eq!(staged.files, fixture.region.files().len());
    assert_eq!(copy.staging_areas().len(), 1);
    publish(&copy, staged.area, BASE + 10);
    copy.record_obligations().await.unwrap();
    let ids =
        |region: &Region| -> Vec<_> { region.files().iter().map(|file| file.file_id).collect() };
    assert_eq!(ids(&copy), ids(&fixture.region));
    assert_eq!(scan(&copy, &all()).await.unwrap(), fixture.expected_rows());
}

#[tokio::test]
async fn copy_refuses_files_that_cannot_be_shared() {
    let fixture = fixture(Storage::memory()).await;
    let source = fixture.region.dir;
    // Garbage collection marks regions in order of ids.
    for id in [5, 12] {
        let spec = RegionSpec { region_id: RegionId(id), ..fixture.spec.clone() };
        let lower = Region::new(env(fixture.storage.clone()), spec, Sequence(BASE), Sequence(0));
        assert_eq!(refusal_reason(&lower.unwrap(), source).await, NotShared::NotLower);
    }
    let low = open_copy(&fixture, 21, 15).await;
    let above = NotShared::AboveBase { found: Sequence(20), base: Sequence(15) };
    assert_eq!(refusal_reason(&low, source).await, above);

    let schema = fixture.spec.schema.altered(&[added("more")]).unwrap();
    let spec = RegionSpec { region_id: RegionId(22), schema, ..fixture.spec.clone() };
    let other = open_copy_of_spec(&fixture, spec, BASE).await;
    assert_eq!(refusal_reason(&other, source).await, NotShared::OtherTable);

    let full = open_copy(&fixture, 23, BASE).await;
    let batch = put_batch(&rows(0..1), &fixture.spec);
    let sequence = Sequence(BASE + 1);
    full.apply(RowsWrite { sequence, epoch: Epoch(0), op: RowOp::Put, batch }).unwrap();
    assert_eq!(refusal_reason(&full, source).await, NotShared::NotEmpty);
    full.truncate(cause(Sequence(BASE + 2))).unwrap();
    full.record_obligations().await.unwrap();
    // Rows that were deleted in the region must not reappear.
    assert_eq!(refusal_reason(&full, source).await, NotShared::NotEmpty);

    let empty = open_copy(&fixture, 24, BASE).await;
    let unborn = RegionDir { region_id: RegionId(6), ..source };
    assert_eq!(refusal_reason(&empty, unborn).await, NotShared::ManifestEmpty);
    let error = empty.copy_from(source, 1).await.unwrap_err();
    assert!(matches!(error, AdoptError::Overdue { .. }), "{error}");
    // Some rows of a region that is divided are in memory, or in its children.
    for range in [sealed_range(), KeyRange::new([9], None)] {
        fixture.region.set_range(range, None).await.unwrap();
        assert_eq!(refusal_reason(&empty, source).await, NotShared::OtherRange);
    }
    fixture.region.set_range(KeyRange::whole(), None).await.unwrap();
    fixture.region.remove().await.unwrap();
    let error = empty.copy_from(source, DEADLINE).await.unwrap_err();
    let removed =
        matches!(error, AdoptError::Engine(EngineError::Removed { region: RegionId(12) }));
    assert!(removed, "{error}");
    assert_eq!(empty.staging_areas(), []);
}
