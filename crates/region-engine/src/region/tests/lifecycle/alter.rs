//! Alter and truncate: effect in the log, record in the manifest, completion by a new owner.

use std::sync::Arc;

use tidewater_common::ids::Sequence;
use tidewater_common::schema::{SchemaChange, WriteMode};

use crate::compaction::Scope;
use crate::region::PointReadOptions;
use crate::region::tests::fixture::*;
use crate::storage::Storage;
use crate::storage::testing::{Fault, FaultyStore};
use crate::{CompareOp, EngineError, Predicate, RegionSpec, ScanMeter, ScanOptions, TableShape};

fn some_rows(fixture: &RegionFixture, from: i32) -> Vec<Row> {
    let at = fixture.log.len();
    (from..from + 10)
        .map(|n| (("k".to_owned(), n), Some(i64::from(n)), format!("{at}/{n}")))
        .collect()
}

async fn fixture() -> RegionFixture {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    fixture.put(&some_rows(&fixture, 0));
    fixture.region.flush().await.unwrap();
    fixture.put(&some_rows(&fixture, 5));
    fixture
}

#[tokio::test]
async fn new_column_shows_default_in_older_files_and_runs() {
    let mut fixture = fixture().await;
    fixture.alter(&[added("extra")]);
    fixture.check().await;
    fixture.put(&some_rows(&fixture, 12));
    fixture.region.merge_runs().await.unwrap();
    fixture.check().await;
    fixture.region.flush().await.unwrap();
    fixture.check().await;
    fixture.reopen().await.unwrap();
    fixture.check().await;
}

#[tokio::test]
async fn readded_column_does_not_show_old_values() {
    let mut fixture = fixture().await;
    fixture.alter(&[added("extra")]);
    fixture.put(&some_rows(&fixture, 0));
    fixture.region.flush().await.unwrap();
    let first = fixture.spec.schema.column_named("extra").unwrap().id;
    fixture.alter(&[SchemaChange::DropColumn { name: "extra".to_owned() }, added("extra")]);
    let second = fixture.spec.schema.column_named("extra").unwrap().id;
    assert_ne!(first, second);
    // The check expects the default of the second column for all rows.
    fixture.check().await;
    let dropped = fixture.region.scan(&ScanOptions::all(vec![first]));
    assert!(matches!(dropped, Err(EngineError::BadRows { .. })));
}

// R10.
#[tokio::test]
async fn read_of_an_earlier_version_has_its_columns() {
    let mut fixture = fixture().await;
    let earlier = |fixture: &RegionFixture| {
        let RegionSpec { schema, options, .. } = fixture.spec.clone();
        Some(Arc::new(TableShape::new(schema, options).unwrap()))
    };
    let drop = |name: &str| SchemaChange::DropColumn { name: name.to_owned() };
    let shape = earlier(&fixture);
    let read = ScanOptions { shape: shape.clone(), ..all() };
    let rows = scan(&fixture.region, &all()).await.unwrap();
    fixture.alter(&[added("extra"), drop("value")]);
    assert!(matches!(fixture.region.scan(&all()), Err(EngineError::BadRows { .. })));
    assert_eq!(scan(&fixture.region, &read).await.unwrap(), rows);
    let keys = key_batch(&[rows[3].0.clone()], fixture.region.spec());
    let (projection, meter) = (all().projection, ScanMeter::default());
    let point = PointReadOptions { shape, ..PointReadOptions::default() };
    let found = fixture.region.get_charged(&keys, &projection, point, &meter).await.unwrap();
    assert_eq!(rows_of(&found.rows), rows[3..4]);
    // Rewritten files have no values of it.
    fixture.region.flush().await.unwrap();
    fixture.compact(Scope::Whole).await.unwrap();
    let cleared: Vec<Row> = rows.into_iter().map(|(key, _, note)| (key, None, note)).collect();
    assert_eq!(scan(&fixture.region, &read).await.unwrap(), cleared);
    assert_eq!(fixture.region.count(&read).await.unwrap(), cleared.len() as u64);
    let valued = Predicate { column: VALUE, op: CompareOp::IsNotNull, values: Vec::new() };
    let valued = ScanOptions { predicates: vec![valued], ..read };
    assert_eq!(scan(&fixture.region, &valued).await.unwrap(), []);
}

// R10.
#[tokio::test]
async fn dropped_column_without_a_default_is_refused() {
    let mut fixture = fixture().await;
    let RegionSpec { schema, options, .. } = fixture.spec.clone();
    let shape = Some(Arc::new(TableShape::new(schema, options).unwrap()));
    let read = ScanOptions { shape, ..all() };
    fixture.alter(&[SchemaChange::DropColumn { name: "note".to_owned() }]);
    assert_eq!(scan(&fixture.region, &read).await.unwrap().len(), 15);
    fixture.region.flush().await.unwrap();
    fixture.compact(Scope::Whole).await.unwrap();
    let refused = scan(&fixture.region, &read).await;
    assert!(
        matches!(refused, Err(EngineError::ColumnDropped { column }) if column == NOTE),
        "{refused:?}"
    );
    let others = ScanOptions { projection: vec![NAME, NUMBER], ..read };
    assert_eq!(fixture.region.count(&others).await.unwrap(), 15);
}

#[tokio::test]
async fn truncated_rows_disappear_immediately_and_permanently() {
    let mut fixture = fixture().await;
    let follower = fixture.log_replica();
    fixture.replay(&follower);
    follower.load().await.unwrap();
    fixture.truncate();
    fixture.check().await;
    assert_eq!(fixture.region.stats().memtable_bytes, 0);
    fixture.put(&some_rows(&fixture, 3));
    // The follower knows the truncation from the log, not from the manifest.
    fixture.replay(&follower);
    follower.load().await.unwrap();
    assert_eq!(scan(&follower, &all()).await.unwrap(), fixture.expected_rows());
    assert!(
        fixture.region.manifest.state().truncated < fixture.region.obligations()[0].cause.sequence
    );
    fixture.region.record_obligations().await.unwrap();
    assert_eq!(fixture.region.manifest.state().live.len(), 0);
    fixture.check().await;
    fixture.reopen().await.unwrap();
    fixture.check().await;
    assert_eq!(fixture.region.obligations(), []);
}

#[tokio::test]
async fn rows_truncated_during_flush_do_not_reappear() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    fixture.put(&some_rows(&fixture, 0));
    let region = fixture.region.clone();
    // The flush has chosen its rows and waits for a worker to encode them.
    let workers = region.env.options.workers as u32;
    let busy = region.env.workers.clone().acquire_many_owned(workers).await.unwrap();
    let mut flush = Box::pin(region.flush());
    while fixture.region.contents.lock().frozen.is_none() {
        assert!(futures::poll!(&mut flush).is_pending());
        tokio::task::yield_now().await;
    }
    drop(busy);
    fixture.truncate();
    flush.await.unwrap();
    fixture.check().await;
    fixture.region.record_obligations().await.unwrap();
    fixture.check().await;
    fixture.reopen().await.unwrap();
    fixture.check().await;
}

// The flush has recorded all obligations and waits for a merge. An alter at this point must be recorded
// before the file that contains rows of the new schema.
#[tokio::test]
async fn alter_during_waiting_flush_is_recorded_before_its_file() {
    let mut fixture = fixture().await;
    let region = fixture.region.clone();
    fixture.alter(&[added("first")]);
    let merging = region.merging.lock().await;
    let mut flush = Box::pin(region.flush());
    // Once the first alter is recorded, the flush waits for the merge lock next.
    while !region.obligations().is_empty() {
        assert!(futures::poll!(&mut flush).is_pending());
        tokio::task::yield_now().await;
    }
    fixture.alter(&[added("second")]);
    fixture.put(&some_rows(&fixture, 12));
    drop(merging);
    let report = flush.await.unwrap();
    assert_eq!(report.flushed_sequence, region.last_sequence());
    assert_eq!(region.obligations(), [], "the alters are recorded before the flush");
    let state = region.manifest.state();
    let recorded = state.table.as_ref().unwrap().schema.version();
    assert_eq!(recorded, fixture.spec.schema.version());
    assert!(state.files().all(|file| file.schema_version <= recorded));
    assert!(state.files().any(|file| file.schema_version == recorded));
    fixture.check().await;
    fixture.compact(Scope::Whole).await.unwrap();
    fixture.check().await;
}

#[tokio::test]
async fn new_owner_records_obligations_of_old_owner() {
    let mut fixture = fixture().await;
    fixture.alter(&[added("extra")]);
    fixture.truncate();
    fixture.put(&some_rows(&fixture, 40));
    let old = fixture.region.clone();
    let sequence = old.last_sequence();
    let pending = old.obligations();
    assert_eq!(pending.len(), 2);
    fixture.region = fixture.snapshot_replica();
    fixture.region.restore(old.unflushed());
    fixture.term += 1;
    fixture.region.take_ownership(owner(fixture.term), GROUP).await.unwrap();
    assert_eq!(fixture.region.obligations(), pending);
    fixture.region.flush().await.unwrap();
    assert_eq!(fixture.region.obligations(), []);
    assert_eq!(fixture.region.done_through(), pending[1].cause.sequence);
    assert!(fixture.region.done_through() < sequence);
    fixture.check().await;
    // The old owner is fenced.
    assert!(matches!(
        old.record_obligations().await,
        Err(EngineError::Fenced { .. } | EngineError::NotOwner { .. })
    ));
}

#[tokio::test]
async fn recorded_obligation_is_not_recorded_again() {
    for fault in [Fault::ErrorAfter, Fault::StoredConflict, Fault::ErrorBefore] {
        let store = FaultyStore::new();
        let mut fixture = RegionFixture::new(store.storage(), WriteMode::Upsert, false).await;
        fixture.put(&some_rows(&fixture, 0));
        fixture.truncate();
        let before = fixture.region.stats().manifest_version;
        store.plan(
            move |call| {
                if call.path.as_ref().ends_with(".delta") { fault } else { Fault::None }
            },
        );
        let _ = fixture.region.record_obligations().await;
        store.plan(|_| Fault::None);
        fixture.region.record_obligations().await.unwrap();
        assert_eq!(fixture.region.stats().manifest_version.get(), before.get() + 1, "{fault:?}");
        // The same obligation, from a replay of the log.
        fixture.region.truncate(cause(fixture.region.done_through())).unwrap();
        assert_eq!(fixture.region.obligations(), []);
    }
}

#[tokio::test]
async fn closed_region_refuses_changes() {
    let fixture = fixture().await;
    fixture.region.close();
    let closed = fixture.region.truncate(cause(Sequence(1_000)));
    assert!(matches!(closed, Err(EngineError::Closed { .. })));
    let schema = fixture.spec.schema.clone();
    let options = fixture.spec.options.clone();
    let closed = fixture.region.alter(cause(Sequence(1_000)), schema, options);
    assert!(matches!(closed, Err(EngineError::Closed { .. })));
}
