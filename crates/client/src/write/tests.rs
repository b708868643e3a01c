use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Decimal128Array, RecordBatch, StringArray};
use tidewater_common::ids::{ColumnId, SchemaVersion};
use tidewater_common::keys::KeyCodec;
use tidewater_common::refusal::Refusal;
use tidewater_common::schema::{Column, ColumnType, TableOptions, TableSchema};
use tidewater_proto::v1::{Reason, RowOp};

use super::prepare::{PieceLimits, check, prepare};
use super::{TableWriter, WriteReport};
use crate::catalog::TableInfo;
use crate::client::Client;
use crate::error::ClientError;
use crate::fake::{Answer, FakeCluster, added_values, altered_schema, keys, rows, table_info};
use crate::options::WriterOptions;

async fn writer(client: &Client) -> TableWriter {
    let options = WriterOptions { lanes: 1, ..WriterOptions::default() };
    client.writer("t", options).await.unwrap()
}

/// Puts rows 1 to 3 while the data node gives these answers.
async fn put_with(answers: Vec<Answer>) -> (FakeCluster, Result<WriteReport, ClientError>) {
    let cluster = FakeCluster::start(&[], 2).await;
    cluster.state.lock().answers = answers.into();
    let client = cluster.client().await;
    let result = writer(&client).await.put_rows(rows(1..=3)).await;
    (cluster, result)
}

fn refuse(reason: Reason) -> Answer {
    Answer::Refuse(Refusal::new(reason, "injected"))
}

/// Returns the serials of the received writes, and `true` if all have the same producer.
fn serials(cluster: &FakeCluster) -> (Vec<u64>, bool) {
    let state = cluster.state.lock();
    let same_producer =
        state.writes.windows(2).all(|pair| pair[0].producer_id == pair[1].producer_id);
    (state.writes.iter().map(|write| write.serial).collect(), same_producer)
}

#[tokio::test]
async fn unsorted_rows_reach_their_regions_in_key_order() {
    let cluster = FakeCluster::start(&[10, 20], 1).await;
    let client = cluster.client().await;
    let writer = writer(&client).await;
    let report = writer.put_rows(rows([25, 3, 12, 20, 10, 1, 19])).await.unwrap();
    assert_eq!(report.acknowledged, 7);
    let state = cluster.state.lock();
    assert_eq!(state.ids(), [1, 3, 10, 12, 19, 20, 25]);
    // An opening write and one with rows for each region.
    assert_eq!(state.writes.len(), 6);
}

#[tokio::test]
async fn producer_is_opened_once_and_its_serials_increase() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let writer = writer(&client).await;
    for id in 0..4 {
        writer.put_rows(rows([id])).await.unwrap();
    }
    assert_eq!(serials(&cluster), (vec![1, 2, 3, 4, 5], true));
}

#[tokio::test]
async fn write_with_lost_answer_is_retried_and_applied_once() {
    let (cluster, result) = put_with(vec![Answer::DoAndLose]).await;
    let report = result.unwrap();
    assert_eq!((report.acknowledged, report.repeated), (3, 3));
    assert_eq!(cluster.state.lock().ids(), [1, 2, 3]);
    // The retry is the same write, byte for byte.
    assert_eq!(serials(&cluster), (vec![1, 2, 2], true));
    let state = cluster.state.lock();
    assert_eq!(state.writes[1].rows, state.writes[2].rows);
}

#[tokio::test]
async fn write_with_lost_request_is_retried() {
    let (cluster, result) = put_with(vec![Answer::Lose, Answer::Lose]).await;
    assert_eq!(result.unwrap().acknowledged, 3);
    assert_eq!(cluster.state.lock().ids(), [1, 2, 3]);
}

#[tokio::test]
async fn write_applied_before_leadership_loss_is_acknowledged_once() {
    let lost = Refusal::new(Reason::LeadershipLost, "stepped down");
    let (cluster, result) = put_with(vec![Answer::DoAndRefuse(lost)]).await;
    assert_eq!(result.unwrap().acknowledged, 3);
    assert_eq!(cluster.state.lock().ids(), [1, 2, 3]);
}

#[tokio::test]
async fn writer_follows_the_hint_to_the_leader() {
    let cluster = FakeCluster::start(&[], 3).await;
    let client = cluster.client().await;
    // The catalog still names node 11.
    cluster.state.lock().leader = 13;
    let writer = writer(&client).await;
    writer.put_rows(rows([1])).await.unwrap();
    assert_eq!(cluster.state.lock().ids(), [1]);
}

#[tokio::test]
async fn writer_waits_the_retry_time_of_overloaded_nodes() {
    let wait = Duration::from_millis(80);
    let full = Refusal::new(Reason::Overloaded, "full").retry_after(wait);
    let cluster = FakeCluster::start(&[], 1).await;
    cluster.state.lock().answers.push_back(Answer::Refuse(full));
    let client = cluster.client().await;
    let started = tokio::time::Instant::now();
    writer(&client).await.put_rows(rows([1])).await.unwrap();
    assert!(started.elapsed() >= wait);
    assert_eq!(serials(&cluster), (vec![1, 2, 2], true));
}

#[tokio::test]
async fn write_with_definite_error_is_failed() {
    let (cluster, result) = put_with(vec![refuse(Reason::SchemaMismatch)]).await;
    let error = result.unwrap_err();
    assert!(matches!(error, ClientError::Failed { rows: 3, .. }), "{error}");
    assert!(!error.maybe_done());
    assert!(cluster.state.lock().ids().is_empty());
}

#[tokio::test]
async fn definite_error_after_unknown_effect_leaves_write_unknown() {
    for first in [Answer::Lose, Answer::DoAndLose] {
        let (_cluster, result) = put_with(vec![first, refuse(Reason::SchemaMismatch)]).await;
        let error = result.unwrap_err();
        assert!(matches!(error, ClientError::Unknown { unknown: 3, .. }), "{error}");
        assert!(error.maybe_done());
    }
}

#[tokio::test]
async fn forgotten_producer_is_replaced_without_unknown_attempts() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let writer = writer(&client).await;
    writer.put_rows(rows([1])).await.unwrap();
    cluster.state.lock().answers.push_back(Answer::Forget);
    writer.put_rows(rows([2])).await.unwrap();
    assert_eq!(cluster.state.lock().ids(), [1, 2]);
    assert_eq!(serials(&cluster), (vec![1, 2, 3, 1, 2], false));
}

#[tokio::test]
async fn forgotten_producer_after_unknown_attempt_leaves_write_unknown() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let writer = writer(&client).await;
    cluster.state.lock().answers = [Answer::DoAndLose, Answer::Forget].into();
    let error = writer.put_rows(rows([1])).await.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { unknown: 1, .. }), "{error}");
    // A retry under a new producer would have taken effect twice.
    assert_eq!(cluster.state.lock().ids(), [1]);
    // Later writes have a new producer.
    writer.put_rows(rows([2])).await.unwrap();
    assert_eq!(cluster.state.lock().ids(), [1, 2]);
    let report = writer.flush().await.unwrap();
    assert_eq!((report.acknowledged, report.failed, report.unknown), (1, 0, 1));
}

#[tokio::test]
async fn producer_reopened_by_a_late_opening_write_stays_forgotten() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let writer = writer(&client).await;
    cluster.state.lock().answers = [Answer::DoAndLose, Answer::ForgetAndReopen].into();
    let error = writer.put_rows(rows([1])).await.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { unknown: 1, .. }), "{error}");
    assert_eq!(cluster.state.lock().ids(), [1], "once");
    // No attempt has an unknown effect: the rows are sent under a new producer.
    cluster.state.lock().answers = [Answer::ForgetAndReopen].into();
    writer.put_rows(rows([2])).await.unwrap();
    assert_eq!(cluster.state.lock().ids(), [1, 2]);
}

#[tokio::test]
async fn serial_of_an_unknown_write_is_never_reused() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let writer = writer(&client).await;
    cluster.state.lock().answers = [Answer::DoAndLose, refuse(Reason::SchemaMismatch)].into();
    writer.put_rows(rows(1..=3)).await.unwrap_err();
    // Under the same serial, the node would take this write for a retry and skip it.
    writer.put_rows(rows([2])).await.unwrap();
    assert_eq!(cluster.state.lock().ids(), [1, 2, 2, 3]);
}

#[tokio::test]
async fn write_follows_a_region_split() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let split = Answer::Split { region: 100, at: 2, children: (201, 202) };
    {
        let mut state = cluster.state.lock();
        state.answers = [split].into();
    }
    let writer = writer(&client).await;
    let writing = tokio::spawn(async move { writer.put_rows(rows(1..=3)).await });
    // The catalog has the split only after the first error.
    cluster.until_writes(2).await;
    cluster.change(|state| state.publish_routes());
    assert_eq!(writing.await.unwrap().unwrap().acknowledged, 3);
    assert_eq!(cluster.state.lock().ids(), [1, 2, 3]);
}

#[tokio::test]
async fn unknown_write_keeps_its_identity_when_cut() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    // The write takes effect, the answer is lost, then the region splits.
    let split = Answer::Split { region: 100, at: 2, children: (201, 202) };
    cluster.state.lock().answers = [Answer::DoAndLose, split].into();
    let writer = writer(&client).await;
    let writing = tokio::spawn(async move { writer.put_rows(rows(1..=3)).await });
    cluster.until_writes(3).await;
    cluster.change(|state| state.publish_routes());
    let report = writing.await.unwrap().unwrap();
    assert_eq!((report.acknowledged, report.unknown), (3, 0));
    // Once, although each row was sent at least twice.
    assert_eq!(cluster.state.lock().ids(), [1, 2, 3]);
    let state = cluster.state.lock();
    let children = state.writes.iter().filter(|write| write.region_id > 200);
    for write in children {
        assert_eq!((write.serial, write.origin_region_id), (2, 100));
        assert_eq!(write.producer_id, state.writes[0].producer_id);
    }
}

/// Returns the values of `w` in the last write.
fn last_defaults(cluster: &FakeCluster) -> Vec<i64> {
    let state = cluster.state.lock();
    let write = state.writes.last().unwrap();
    added_values(write.schema_version, &write.rows)
}

#[tokio::test]
async fn writer_continues_after_an_alter() {
    let cluster = FakeCluster::start(&[10], 1).await;
    let client = cluster.client().await;
    let writer = writer(&client).await;
    writer.put_rows(rows([1, 11])).await.unwrap();
    cluster.change(|state| {
        state.schema = altered_schema();
        state.publish_schema();
    });
    assert_eq!(writer.put_rows(rows([2, 12, 13])).await.unwrap().acknowledged, 3);
    writer.delete_rows(keys(&[11])).await.unwrap();
    assert_eq!(writer.put_rows(rows([3])).await.unwrap().acknowledged, 1);
    assert_eq!(last_defaults(&cluster), [7]);
    let whole = tidewater_common::keys::KeyRange::whole();
    assert_eq!(cluster.state.lock().contents(&whole), [1, 2, 3, 12, 13]);
}

/// Puts rows 2 and 3 while the region is altered, with this first answer, and then the catalog.
async fn put_during_alter(first: Answer) -> (FakeCluster, Result<WriteReport, ClientError>) {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let writer = writer(&client).await;
    writer.put_rows(rows([1])).await.unwrap();
    let before = {
        let mut state = cluster.state.lock();
        state.schema = altered_schema();
        state.answers = [first].into();
        state.writes.len()
    };
    let writing = tokio::spawn(async move { writer.put_rows(rows([2, 3])).await });
    cluster.until_writes(before + 2).await;
    cluster.change(|state| state.publish_schema());
    let result = writing.await.unwrap();
    (cluster, result)
}

#[tokio::test]
async fn write_during_an_alter_is_converted() {
    let (cluster, result) = put_during_alter(Answer::Normal).await;
    assert_eq!(result.unwrap().acknowledged, 2);
    assert_eq!(cluster.state.lock().ids(), [1, 2, 3]);
    assert_eq!(last_defaults(&cluster), [7, 7]);
}

#[tokio::test]
async fn unknown_write_is_not_converted() {
    // As a new write, it could take effect a second time.
    let (cluster, result) = put_during_alter(Answer::Lose).await;
    let error = result.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { unknown: 2, .. }), "{error}");
    assert_eq!(cluster.state.lock().ids(), [1]);
}

#[tokio::test]
async fn writer_leaves_frozen_leader_once_a_successor_is_known() {
    let cluster = FakeCluster::start(&[], 2).await;
    let mut options = cluster.options();
    // Far longer than the test may take.
    options.attempt_timeout = Duration::from_secs(600);
    options.deadline = Duration::from_secs(600);
    let client = Client::connect(options).await.unwrap();
    cluster.state.lock().answers.push_back(Answer::Freeze);
    let writer = writer(&client).await;
    let writing = tokio::spawn(async move { writer.put_rows(rows([1])).await });
    cluster.until_writes(2).await;
    cluster.change(|state| {
        state.leader = 12;
        state.catalog.groups[0].leader = 12;
        state.catalog.revision += 1;
    });
    let written = tokio::time::timeout(Duration::from_secs(60), writing).await.unwrap();
    assert_eq!(written.unwrap().unwrap().acknowledged, 1);
    assert_eq!(cluster.state.lock().ids(), [1]);
    assert_eq!(serials(&cluster), (vec![1, 2, 2], true));
}

#[tokio::test]
async fn write_is_unknown_if_all_answers_are_lost() {
    let cluster = FakeCluster::start(&[], 1).await;
    let mut options = cluster.options();
    options.max_attempts = 3;
    cluster.state.lock().answers = vec![Answer::Lose; 10].into();
    let client = Client::connect(options).await.unwrap();
    let error = writer(&client).await.put_rows(rows([1])).await.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { .. }), "{error}");
}

#[tokio::test]
async fn write_retries_are_bounded() {
    let cluster = FakeCluster::start(&[], 1).await;
    let mut options = cluster.options();
    options.max_attempts = 4;
    cluster.state.lock().answers = vec![refuse(Reason::Overloaded); 10].into();
    let client = Client::connect(options).await.unwrap();
    let error = writer(&client).await.put_rows(rows([1])).await.unwrap_err();
    assert!(matches!(error, ClientError::Failed { rows: 1, .. }), "{error}");
    assert_eq!(cluster.state.lock().answers.len(), 6);
}

#[tokio::test]
async fn write_that_fails_in_one_region_is_partial() {
    let cluster = FakeCluster::start(&[10], 1).await;
    let client = cluster.client().await;
    let writer = writer(&client).await;
    cluster.state.lock().answers = [refuse(Reason::SchemaMismatch)].into();
    let error = writer.put_rows(rows([1, 11])).await.unwrap_err();
    assert!(matches!(error, ClientError::Partial { acknowledged: 1, failed: 1, .. }), "{error}");
}

#[tokio::test]
async fn concurrent_lanes_write_every_row_once_despite_errors() {
    let cluster = FakeCluster::start(&[250, 500, 750], 1).await;
    cluster.state.lock().answers = vec![
        Answer::Normal,
        Answer::DoAndLose,
        refuse(Reason::Overloaded),
        Answer::Lose,
        Answer::Normal,
        Answer::DoAndLose,
    ]
    .into();
    let client = cluster.client().await;
    let options = WriterOptions { max_write_rows: 20, ..WriterOptions::default() };
    let writer = client.writer("t", options).await.unwrap();
    for batch in 0..20 {
        // Every 20th id, so that each batch spans all regions.
        writer.write(rows((0..50).map(|row| row * 20 + batch))).await.unwrap();
    }
    let report = writer.close().await.unwrap();
    assert_eq!((report.acknowledged, report.failed, report.unknown), (1_000, 0, 0));
    assert_eq!(cluster.state.lock().ids(), (0..1_000).collect::<Vec<_>>());
}

/// Returns rows with these ids and this value.
fn rows_with_value(ids: impl IntoIterator<Item = i64>, value: &str) -> RecordBatch {
    let batch = rows(ids);
    let values = Arc::new(StringArray::from(vec![value; batch.num_rows()]));
    RecordBatch::try_new(batch.schema(), vec![batch.column(0).clone(), values]).unwrap()
}

#[tokio::test]
async fn last_row_of_a_key_wins_with_several_lanes() {
    let cluster = FakeCluster::start(&[20], 1).await;
    // Some writes are delayed, so that later ones would be applied first if lanes did not keep the order.
    let wait = Duration::from_millis(25);
    let full = || Refusal::new(Reason::Overloaded, "full").retry_after(wait);
    cluster.state.lock().answers = (0..90)
        .map(|turn| if turn % 3 == 0 { Answer::Refuse(full()) } else { Answer::Normal })
        .collect();
    let client = cluster.client().await;
    let options = WriterOptions { lanes: 4, max_write_rows: 30, ..WriterOptions::default() };
    let writer = client.writer("t", options).await.unwrap();
    for batch in 0..25 {
        // Each key has a different row index in each batch.
        let ids = (0..40).map(|row| (row + batch) % 40);
        writer.write(rows_with_value(ids, &batch.to_string())).await.unwrap();
    }
    let report = writer.close().await.unwrap();
    assert_eq!((report.acknowledged, report.failed, report.unknown), (1_000, 0, 0));
    let state = cluster.state.lock();
    let mut last = std::collections::BTreeMap::new();
    for (id, value) in &state.effects {
        last.insert(*id, value.clone());
    }
    let stale: Vec<_> = last.iter().filter(|(_, value)| value.as_deref() != Some("24")).collect();
    assert!(last.len() == 40 && stale.is_empty(), "{stale:?}");
}

#[tokio::test]
async fn report_of_a_partitioned_batch_covers_all_its_rows() {
    let cluster = FakeCluster::start(&[20], 1).await;
    let client = cluster.client().await;
    let writer = client.writer("t", WriterOptions::default()).await.unwrap();
    writer.write(rows(0..10)).await.unwrap();
    assert_eq!(writer.put_rows(rows(0..40)).await.unwrap().acknowledged, 40);
    assert_eq!(writer.put_rows(rows(0..0)).await.unwrap().acknowledged, 0);
    assert_eq!(writer.delete_rows(keys(&[3, 30])).await.unwrap().acknowledged, 2);
    assert_eq!(writer.close().await.unwrap().acknowledged, 52);
    let whole = tidewater_common::keys::KeyRange::whole();
    let left: Vec<i64> = (0..40).filter(|id| ![3, 30].contains(id)).collect();
    assert_eq!(cluster.state.lock().contents(&whole), left);
}

#[tokio::test]
async fn deletes_remove_rows_by_key() {
    let cluster = FakeCluster::start(&[10], 1).await;
    let client = cluster.client().await;
    writer(&client).await.put_rows(rows([1, 2, 11, 12])).await.unwrap();
    let report = client.delete("t", keys(&[12, 1])).await.unwrap();
    assert_eq!(report.acknowledged, 2);
    let whole = tidewater_common::keys::KeyRange::whole();
    assert_eq!(cluster.state.lock().contents(&whole), [2, 11]);
}

#[tokio::test]
async fn mismatched_columns_are_rejected_before_sending() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let writer = writer(&client).await;
    let error = writer.put_rows(keys(&[1])).await.unwrap_err();
    assert!(error.to_string().contains("has 1 columns, but 2"), "{error}");
    let swapped = rows([1]).project(&[1, 0]).unwrap();
    let error = writer.write(swapped).await.unwrap_err();
    assert!(matches!(error, ClientError::BadInput(_)), "{error}");
    assert!(cluster.state.lock().writes.is_empty());
    let error = client.writer("nope", WriterOptions::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::TableNotFound(_)), "{error}");
    let none = WriterOptions { lanes: 0, ..WriterOptions::default() };
    assert!(matches!(client.writer("t", none).await, Err(ClientError::BadInput(_))));
}

#[test]
fn decimals_beyond_their_precision_are_rejected() {
    let column = |id, name: &str| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type: ColumnType::Decimal128(9, 2),
        nullable: false,
        default: None,
    };
    let columns = vec![column(1, "key"), column(2, "price")];
    let schema =
        TableSchema::new(SchemaVersion(1), columns, vec![ColumnId(1)], None, ColumnId(3)).unwrap();
    let codec = KeyCodec::new(&schema, &TableOptions::upsert()).unwrap();
    let table = TableInfo { schema, codec, ..table_info() };
    let check = |op, values: &[i128]| {
        let schema = match op {
            RowOp::Put => table.schema.arrow(),
            RowOp::Delete => table.schema.key_arrow(),
        };
        let array = |value: &i128| -> ArrayRef {
            let array = Decimal128Array::from(vec![*value]);
            Arc::new(array.with_precision_and_scale(9, 2).unwrap())
        };
        let batch = RecordBatch::try_new(schema, values.iter().map(array).collect()).unwrap();
        check(&table, op, &batch)
    };
    let most = 999_999_999;
    assert!(check(RowOp::Put, &[most, -most]).is_ok());
    assert!(check(RowOp::Delete, &[-most]).is_ok());
    let cases = [
        (RowOp::Put, vec![0, 1_000_000_000_000], "\"price\""),
        (RowOp::Put, vec![-most - 1, 0], "\"key\""),
        (RowOp::Delete, vec![most + 1], "\"key\""),
    ];
    for (op, values, column) in cases {
        let error = check(op, &values).unwrap_err();
        assert!(matches!(error, ClientError::BadInput(_)), "{error}");
        assert!(error.to_string().contains(column), "{error}");
    }
}

#[tokio::test]
async fn pieces_respect_their_limits() {
    let cluster = FakeCluster::start(&[10], 1).await;
    let catalog = cluster.client().await.catalog();
    let table = catalog.table_named("t").unwrap().clone();
    let op = tidewater_proto::v1::RowOp::Put;
    let limits = PieceLimits { rows: 4, bytes: usize::MAX };
    let pieces = prepare(&table, &catalog, op, &rows((0..15).rev()), limits).unwrap();
    let shape: Vec<_> = pieces.iter().map(|piece| (piece.region.get(), piece.count)).collect();
    assert_eq!(shape, [(100, 4), (100, 4), (100, 2), (101, 4), (101, 1)]);
    // A few large rows among small ones.
    let limits = PieceLimits { rows: usize::MAX, bytes: 64 << 10 };
    let mut texts = vec!["small".to_owned(); 1_000];
    for text in &mut texts[500..508] {
        *text = "x".repeat(20 << 10);
    }
    let keys = rows(0..1_000);
    let columns = vec![keys.column(0).clone(), Arc::new(StringArray::from(texts)) as ArrayRef];
    let mixed = RecordBatch::try_new(keys.schema(), columns).unwrap();
    let pieces = prepare(&table, &catalog, op, &mixed, limits).unwrap();
    assert_eq!(pieces.iter().map(|piece| piece.count).sum::<u32>(), 1_000);
    let largest = pieces.iter().map(|piece| piece.rows.len()).max().unwrap();
    assert!(largest < 100 << 10, "{largest}");
    // A piece has at least one row, even with a smaller limit.
    let limits = PieceLimits { rows: 4, bytes: 1 };
    let pieces = prepare(&table, &catalog, op, &rows(0..3), limits).unwrap();
    assert!(pieces.iter().all(|piece| piece.count == 1));
}
