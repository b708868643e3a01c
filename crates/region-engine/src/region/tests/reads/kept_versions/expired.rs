//! Counts of rows that have expired by a time to live.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::TimeUnit;
use tidewater_common::clock::Clock;
use tidewater_common::ids::{ColumnId, Epoch, SchemaVersion, Sequence};
use tidewater_common::schema::{ColumnType, TableOptions, TableSchema, WriteMode};

use super::kept;
use crate::compaction::{Attempt, Scope};
use crate::region::tests::fixture::{FixedClock, GROUP, column, env, owner, spec};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{Region, RegionSpec, RowsWrite, ScanOptions};

const ID: ColumnId = ColumnId(1);
const AT: ColumnId = ColumnId(2);
const HOUR: i64 = 3_600_000;

/// A table whose rows expire after two hours. Versions of a row may have different times.
fn table() -> RegionSpec {
    let at = ColumnType::Timestamp(TimeUnit::Millisecond, None);
    let columns = vec![column(ID, "id", ColumnType::Int64, false), column(AT, "at", at, false)];
    let schema =
        TableSchema::new(SchemaVersion(1), columns, vec![ID], Some(AT), ColumnId(3)).unwrap();
    let options = TableOptions { ttl_ms: Some(2 * HOUR as u64), ..TableOptions::upsert() };
    RegionSpec { schema, options, ..spec(WriteMode::Upsert, false) }
}

/// Writes and flushes rows of an epoch: ids with their ages in hours.
async fn put(region: &Region, epoch: u64, rows: &[(i64, i64)]) {
    let now = FixedClock.now_ms() as i64;
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(TimestampMillisecondArray::from_iter_values(
            rows.iter().map(|row| now - row.1 * HOUR),
        )),
    ];
    let batch = RecordBatch::try_new(region.spec().schema.arrow(), arrays).unwrap();
    let sequence = Sequence(10 + 10 * epoch);
    region.apply(RowsWrite { sequence, epoch: Epoch(epoch), op: RowOp::Put, batch }).unwrap();
    region.flush().await.unwrap();
}

#[tokio::test]
async fn expired_rows_count_until_they_are_dropped() {
    let env = env(Storage::memory());
    let region = Region::new(env, table(), Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(owner(1), GROUP).await.unwrap();
    put(&region, 0, &[(1, 0), (2, 9)]).await;
    put(&region, 1, &[(1, 9), (3, 1)]).await;
    // Reads return row 3 only.
    assert_eq!(region.count(&ScanOptions::all(vec![])).await.unwrap(), 1);
    assert_eq!(kept(&region, [0, 1]).await, [4, 3]);
    // As of epoch 0, row 2 has expired; as of epoch 1, row 1 too.
    for (since, expected) in [(0, [3, 2]), (1, [1, 1])] {
        region.advance_since(Epoch(since));
        region.compact(Scope::Whole, Epoch(since), &Attempt::default()).await.unwrap().unwrap();
        assert_eq!(kept(&region, [0, 1]).await, expected, "compacted as of {since}");
        assert_eq!(region.stats().file_rows, expected[0], "compacted as of {since}");
    }
}
