//! Rows that the contents of a region as of an epoch and its changes until a later one add up to.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, UInt8Type, UInt64Type};
use futures::TryStreamExt;
use tidewater_common::ids::Epoch;
use tidewater_common::schema::WriteMode;

use super::fixture::{Key, Row, rows_of};
use crate::read::memory::ScanAccount;
use crate::region::{EpochChangeOptions, Region};
use crate::{AsOf, RowOp, ScanMeter};

/// A version that a read of changes has returned. `row`: `None` for a delete.
#[derive(Debug, Clone)]
struct ReadVersion {
    key: Key,
    row: Option<Row>,
    epoch: u64,
}

/// Returns the rows as of the later epoch, in ascending order, by the contents as of the earlier epoch and the changes
/// between both.
pub(super) async fn replayed(region: &Region, epochs: [Epoch; 2], upper: Epoch) -> Vec<Row> {
    let [first, last] = epochs;
    let contents = changes(region, None, AsOf { epoch: first, upper }).await;
    assert!(contents.iter().all(|of| of.row.is_some() && of.epoch <= first.get()));
    let later = changes(region, Some(first), AsOf { epoch: last, upper }).await;
    assert!(later.iter().all(|of| (first.get() + 1..=last.get()).contains(&of.epoch)));
    let all = contents.into_iter().chain(later);
    let mut rows: Vec<Row> = match region.spec().options.write_mode {
        WriteMode::AppendOnly => all.filter_map(|of| of.row).collect(),
        WriteMode::Upsert => {
            let by_key: BTreeMap<Key, Option<Row>> = all.map(|of| (of.key, of.row)).collect();
            by_key.into_values().flatten().collect()
        }
    };
    rows.sort();
    rows
}

async fn changes(region: &Region, after: Option<Epoch>, as_of: AsOf) -> Vec<ReadVersion> {
    let account = ScanAccount::default();
    let options = EpochChangeOptions { after, as_of, batch_rows: 5, account };
    let read = region.epoch_changes(&options, &ScanMeter::default()).unwrap();
    let batches: Vec<RecordBatch> = read.rows.try_collect().await.unwrap();
    assert!(batches.iter().all(|batch| batch.schema() == read.schema));
    batches.iter().flat_map(versions).collect()
}

fn versions(batch: &RecordBatch) -> Vec<ReadVersion> {
    let names = batch.column_by_name("name").unwrap().as_string::<i32>();
    let numbers = batch.column_by_name("number").unwrap().as_primitive::<Int32Type>();
    let ops = batch.column_by_name("_tw_op").unwrap().as_primitive::<UInt8Type>();
    let epochs = batch.column_by_name("_tw_epoch").unwrap().as_primitive::<UInt64Type>();
    let version = |row: usize| {
        let is_put = ops.value(row) == RowOp::Put.code();
        ReadVersion {
            key: (names.value(row).to_owned(), numbers.value(row)),
            row: is_put.then(|| rows_of(&batch.slice(row, 1)).remove(0)),
            epoch: epochs.value(row),
        }
    };
    (0..batch.num_rows()).map(version).collect()
}
