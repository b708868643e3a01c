//! Time to live: an expired row counts as a delete, immediately for reads and after a delay for compactions.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::TimeUnit;
use tidewater_common::clock::Clock;
use tidewater_common::ids::{ColumnId, Epoch, SchemaVersion, Sequence};
use tidewater_common::schema::{ColumnType, TableOptions, TableSchema, WriteMode};

use crate::compaction::{Attempt, CompactionReason, Scope};
use crate::region::tests::fixture::{FixedClock, GROUP, column, env, owner, spec};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{CompactionReport, CompareOp, Predicate, Region, RegionSpec, RowsWrite, ScanOptions};

const ID: ColumnId = ColumnId(1);
const AT: ColumnId = ColumnId(2);
const HOUR: i64 = 3_600_000;

struct TtlFixture {
    region: Arc<Region>,
    spec: RegionSpec,
    sequence: u64,
}

impl TtlFixture {
    /// Creates a region with a time to live of two hours.
    async fn new(mode: WriteMode, time_in_key: bool) -> Self {
        let at = ColumnType::Timestamp(TimeUnit::Millisecond, None);
        let columns = vec![
            column(ID, "id", ColumnType::Int64, false),
            column(AT, "at", at, !time_in_key && mode == WriteMode::Upsert),
        ];
        let key = if time_in_key { vec![ID, AT] } else { vec![ID] };
        let schema =
            TableSchema::new(SchemaVersion(1), columns, key, Some(AT), ColumnId(3)).unwrap();
        let options = TableOptions {
            write_mode: mode,
            ttl_ms: Some(2 * HOUR as u64),
            ..TableOptions::upsert()
        };
        let spec = RegionSpec { schema, options, ..spec(mode, false) };
        let env = env(Storage::memory());
        let region = Region::new(env, spec.clone(), Sequence(0), Sequence(0)).unwrap();
        region.take_ownership(owner(1), GROUP).await.unwrap();
        Self { region, spec, sequence: 0 }
    }

    /// Writes and flushes rows: ids with their ages in hours.
    async fn put(&mut self, rows: &[(i64, Option<i64>)]) {
        self.put_unflushed(rows);
        self.region.flush().await.unwrap();
    }

    fn put_unflushed(&mut self, rows: &[(i64, Option<i64>)]) {
        let now = FixedClock.now_ms() as i64;
        let times = rows.iter().map(|(_, age)| age.map(|age| now - age * HOUR));
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(id, _)| *id))),
            Arc::new(TimestampMillisecondArray::from_iter(times)),
        ];
        let batch = RecordBatch::try_new(self.spec.schema.arrow(), arrays).unwrap();
        self.sequence += 10;
        let sequence = Sequence(self.sequence);
        let epoch = Epoch(0);
        self.region.apply(RowsWrite { sequence, epoch, op: RowOp::Put, batch }).unwrap();
    }

    /// Returns the ages, in hours, of the newest and the oldest time of the region.
    fn ages(&self) -> Option<(i64, i64)> {
        let age = |time: i64| (FixedClock.now_ms() as i64 - time) / HOUR;
        self.region.time_range().unwrap().map(|range| (age(range.max), age(range.min)))
    }

    async fn compact(&self, scope: Scope) -> Option<CompactionReport> {
        self.region.compact(scope, Epoch(0), &Attempt::default()).await.unwrap()
    }

    async fn check(&self, ids: &[i64]) {
        use arrow::array::AsArray;
        use arrow::datatypes::Int64Type;
        // The time column is not projected, but still checked for expiry.
        let stream = self.region.scan(&ScanOptions::all(vec![ID])).unwrap();
        let batches: Vec<RecordBatch> = futures::TryStreamExt::try_collect(stream).await.unwrap();
        let found: Vec<i64> = batches
            .iter()
            .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect();
        assert_eq!(found, ids);
        let all = ScanOptions::all(vec![]);
        assert_eq!(self.region.count(&all).await.unwrap(), ids.len() as u64);
        let first = Predicate { column: ID, op: CompareOp::Eq, values: vec!["1".to_owned()] };
        let filtered = ScanOptions { predicates: vec![first], ..ScanOptions::all(vec![ID]) };
        let expected = ids.iter().filter(|id| **id == 1).count() as u64;
        assert_eq!(self.region.count(&filtered).await.unwrap(), expected);
    }

    fn file_rows(&self) -> u64 {
        self.region.files().iter().map(|file| file.rows).sum()
    }
}

#[tokio::test]
async fn expired_row_hides_older_versions() {
    let mut fixture = TtlFixture::new(WriteMode::Upsert, false).await;
    // The older version of id 1 has not expired; the newest one has.
    fixture.put(&[(1, Some(0)), (2, Some(1)), (3, None)]).await;
    fixture.put(&[(1, Some(1)), (4, Some(1))]).await;
    fixture.compact(Scope::Due).await.unwrap();
    fixture.put(&[(1, Some(5)), (2, Some(0))]).await;
    fixture.check(&[2, 3, 4]).await;
    fixture.put(&[(2, Some(0)), (4, Some(0))]).await;
    // Compacted above older rows, it stays, as a delete would, ...
    let report = fixture.compact(Scope::Due).await.unwrap();
    assert_eq!((report.files_in, report.done.rows_written), (2, 3));
    fixture.check(&[2, 3, 4]).await;
    // ... until no older rows exist.
    fixture.compact(Scope::Whole).await.unwrap();
    fixture.check(&[2, 3, 4]).await;
    assert_eq!(fixture.file_rows(), 3);
    assert!(fixture.compact(Scope::Whole).await.is_none());
}

#[tokio::test]
async fn compaction_drops_expired_rows_when_time_is_in_key() {
    for mode in [WriteMode::Upsert, WriteMode::AppendOnly] {
        let mut fixture = TtlFixture::new(mode, true).await;
        fixture.put(&[(1, Some(0)), (2, Some(9))]).await;
        fixture.put(&[(1, Some(1)), (3, Some(9))]).await;
        fixture.check(&[1, 1]).await;
        let report = fixture.compact(Scope::Whole).await.unwrap();
        assert_eq!(report.done.rows_written, 2);
        fixture.check(&[1, 1]).await;
        // Files that have expired as a whole are dropped without being read.
        fixture.put(&[(5, Some(8)), (6, Some(9))]).await;
        assert_eq!(fixture.region.compactions_due()[0].why, CompactionReason::Expired);
        let report = fixture.compact(Scope::Due).await.unwrap();
        assert_eq!((report.files_in, report.files_out, report.done.rows_read), (1, 0, 0));
        fixture.check(&[1, 1]).await;
    }
}

#[tokio::test]
async fn newly_expired_row_is_hidden_but_kept() {
    let mut fixture = TtlFixture::new(WriteMode::Upsert, true).await;
    fixture.put(&[(1, Some(2))]).await;
    fixture.check(&[1]).await;
    let mut late = TtlFixture::new(WriteMode::Upsert, true).await;
    late.sequence = 5;
    let now = FixedClock.now_ms() as i64;
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1])),
        Arc::new(TimestampMillisecondArray::from(vec![now - 2 * HOUR - 1])),
    ];
    let batch = RecordBatch::try_new(late.spec.schema.arrow(), arrays).unwrap();
    let write = RowsWrite { sequence: Sequence(7), epoch: Epoch(0), op: RowOp::Put, batch };
    late.region.apply(write).unwrap();
    late.check(&[]).await;
    late.region.flush().await.unwrap();
    late.check(&[]).await;
    // Another node's clock may be behind, so compaction does not drop the row yet.
    assert!(late.compact(Scope::Due).await.is_none());
    assert_eq!(late.file_rows(), 1);
}

#[tokio::test]
async fn old_delete_still_hides_older_rows() {
    let mut fixture = TtlFixture::new(WriteMode::Upsert, true).await;
    fixture.put(&[(1, Some(0)), (5, Some(0))]).await;
    fixture.put(&[(1, Some(1)), (5, Some(0))]).await;
    fixture.compact(Scope::Whole).await.unwrap();
    fixture.put(&[(3, Some(0)), (4, Some(0))]).await;
    let now = FixedClock.now_ms() as i64;
    let keys: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![3, 4])),
        Arc::new(TimestampMillisecondArray::from(vec![now - 9 * HOUR, now - 9 * HOUR])),
    ];
    let batch = RecordBatch::try_new(fixture.spec.schema.key_arrow(), keys).unwrap();
    fixture.sequence += 10;
    let sequence = Sequence(fixture.sequence);
    let epoch = Epoch(0);
    fixture.region.apply(RowsWrite { sequence, epoch, op: RowOp::Delete, batch }).unwrap();
    fixture.put(&[(3, Some(0)), (4, Some(0))]).await;
    let deletes = |fixture: &TtlFixture| -> u64 {
        fixture.region.files().iter().map(|file| file.deletes).sum()
    };
    assert_eq!(deletes(&fixture), 2);
    // Two flushes are compacted above level 1, which may contain the deleted keys.
    let report = fixture.compact(Scope::Due).await.unwrap();
    assert!(report.done.rows_read > 0 && deletes(&fixture) == 2, "{report:?}");
    fixture.check(&[1, 1, 3, 4, 5]).await;
}

#[tokio::test]
async fn time_range_spans_files_and_memory() {
    let mut fixture = TtlFixture::new(WriteMode::Upsert, false).await;
    assert_eq!(fixture.ages(), None);
    fixture.put_unflushed(&[(1, None)]);
    assert_eq!(fixture.ages(), None, "no row has a time");
    fixture.put(&[(2, Some(3)), (3, Some(5))]).await;
    assert_eq!(fixture.ages(), Some((3, 5)));
    fixture.put_unflushed(&[(4, Some(1)), (5, Some(4)), (6, None)]);
    assert_eq!(fixture.ages(), Some((1, 5)));
    fixture.put_unflushed(&[(7, Some(8))]);
    assert_eq!(fixture.ages(), Some((1, 8)));
}
