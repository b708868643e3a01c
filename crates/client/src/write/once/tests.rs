mod noted;

use std::sync::Arc;

use arrow::array::RecordBatch;
use tidewater_common::ids::ProducerId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, RowOp};
use uuid::Uuid;

use super::{OnceOutcome, OnceWrite, OnceWriter, PutAs, ResumeError};
use crate::catalog::TableInfo;
use crate::client::Client;
use crate::error::ClientError;
use crate::fake::{Answer, FakeCluster, altered_schema, rows, table_info};
use crate::write::convert;

/// Client of a process. It makes few attempts, so that an outcome stays unknown.
async fn process(cluster: &FakeCluster, attempts: u32) -> (Client, OnceWriter) {
    let mut options = cluster.options();
    options.max_attempts = attempts;
    let client = Client::connect(options).await.unwrap();
    let writer = client.once_writer();
    (client, writer)
}

async fn table(client: &Client) -> Arc<TableInfo> {
    client.table("t").await.unwrap()
}

async fn open(process: &(Client, OnceWriter), batch: RecordBatch) -> OnceWrite {
    process.1.open(table(&process.0).await, batch).await.unwrap()
}

/// A process that sends rows 1 to 3 once, with this answer from each region, and ends; returns its note.
async fn ended_process(cluster: &FakeCluster, answer: Answer) -> Vec<u8> {
    cluster.state.lock().answers = vec![answer; 2].into();
    let process = process(cluster, 1).await;
    let write = open(&process, rows(1..=3)).await;
    let note = write.note();
    let error = process.1.send(write).await.unwrap_err();
    cluster.state.lock().answers.clear();
    assert!(matches!(error, ClientError::Unknown { unknown: 3, .. }), "{error}");
    note
}

/// Repeats a write of rows 1 to 3 in another process.
async fn repeat(cluster: &FakeCluster, note: &[u8]) -> (OnceWriter, OnceOutcome) {
    let (client, writer) = process(cluster, 1_000).await;
    let write = writer.resume(table(&client).await, note, &rows([3, 1, 2])).unwrap();
    let outcome = writer.send(write).await.unwrap();
    (writer, outcome)
}

#[tokio::test]
async fn write_with_lost_answer_is_repeated_after_restart() {
    for answer in [Answer::DoAndLose, Answer::Lose] {
        let cluster = FakeCluster::start(&[2], 1).await;
        let note = ended_process(&cluster, answer).await;
        for _ in 0..2 {
            let (_, outcome) = repeat(&cluster, &note).await;
            assert!(matches!(outcome, OnceOutcome::Written(_)), "{outcome:?}");
        }
        assert_eq!(cluster.state.lock().ids(), [1, 2, 3]);
    }
}

#[tokio::test]
async fn write_that_was_only_noted_is_sent_after_restart() {
    let cluster = FakeCluster::start(&[2], 1).await;
    let note = open(&process(&cluster, 1).await, rows(1..=3)).await.note();
    assert!(cluster.state.lock().ids().is_empty());
    let (_, outcome) = repeat(&cluster, &note).await;
    assert!(matches!(outcome, OnceOutcome::Written(report) if report.acknowledged == 3));
    assert_eq!(cluster.state.lock().ids(), [1, 2, 3]);
}

#[tokio::test]
async fn later_writes_continue_the_streams() {
    let cluster = FakeCluster::start(&[2], 1).await;
    let process = process(&cluster, 1_000).await;
    for _ in 0..3 {
        let write = open(&process, rows(1..=3)).await;
        assert!(matches!(process.1.send(write).await.unwrap(), OnceOutcome::Written(_)));
    }
    // A write that is never sent uses up the streams.
    drop(open(&process, rows(1..=3)).await);
    let write = open(&process, rows(1..=3)).await;
    assert!(matches!(process.1.send(write).await.unwrap(), OnceOutcome::Written(_)));
    let state = cluster.state.lock();
    let mut serials: Vec<_> = state.writes.iter().map(|write| write.serial).collect();
    serials.sort_unstable();
    assert_eq!(serials, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4]);
    assert_eq!(state.ids().len(), 12);
}

#[tokio::test]
async fn write_of_a_forgotten_producer_is_reported_and_fenced() {
    let cluster = FakeCluster::start(&[2], 1).await;
    let note = ended_process(&cluster, Answer::DoAndLose).await;
    let applied = cluster.state.lock().ids();
    cluster.state.lock().forget_producers();
    let (writer, outcome) = repeat(&cluster, &note).await;
    let OnceOutcome::Forgotten(forgotten) = outcome else { panic!("{outcome:?}") };
    let late: Vec<_> =
        cluster.state.lock().writes.iter().filter(|write| write.serial > 1).cloned().collect();
    writer.fence(&forgotten).await.unwrap();
    let mut state = cluster.state.lock();
    for write in late {
        let refusal = state.apply(&write).unwrap_err();
        assert_eq!(refusal.reason, Reason::ProducerForgotten);
    }
    assert_eq!(state.ids(), applied);
    // Both regions have another opening of the producer.
    let openings: Vec<_> = state.writes.iter().filter(|write| write.serial == 1).collect();
    assert_eq!(openings.len(), 4);
    for (before, after) in openings[..2].iter().zip(&openings[2..]) {
        assert_eq!(before.producer_id, after.producer_id);
        assert_eq!(before.origin_region_id, after.origin_region_id);
    }
}

#[tokio::test]
async fn fence_is_refused_if_the_region_knows_the_write() {
    let cluster = FakeCluster::start(&[], 1).await;
    let note = ended_process(&cluster, Answer::Lose).await;
    let forgotten = Refusal::new(Reason::ProducerForgotten, "injected");
    cluster.state.lock().answers = [Answer::Refuse(forgotten)].into();
    let (writer, outcome) = repeat(&cluster, &note).await;
    let OnceOutcome::Forgotten(forgotten) = outcome else { panic!("{outcome:?}") };
    let error = writer.fence(&forgotten).await.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { unknown: 3, .. }), "{error}");
}

#[tokio::test]
async fn split_between_note_and_repeat_keeps_rows_once() {
    for answer in [Answer::DoAndLose, Answer::Lose] {
        let cluster = FakeCluster::start(&[], 1).await;
        let note = ended_process(&cluster, answer).await;
        cluster.change(|state| {
            state.split(100, 2, (201, 202));
            state.publish_routes();
        });
        let (_, outcome) = repeat(&cluster, &note).await;
        assert!(matches!(outcome, OnceOutcome::Written(_)), "{outcome:?}");
        assert_eq!(cluster.state.lock().ids(), [1, 2, 3]);
    }
}

#[tokio::test]
async fn split_before_the_first_attempt_keeps_the_identity() {
    let cluster = FakeCluster::start(&[], 1).await;
    let process = process(&cluster, 1_000).await;
    let write = open(&process, rows(1..=3)).await;
    cluster.change(|state| {
        state.split(100, 2, (201, 202));
        state.publish_routes();
    });
    assert!(matches!(process.1.send(write).await.unwrap(), OnceOutcome::Written(_)));
    let state = cluster.state.lock();
    assert_eq!(state.ids(), [1, 2, 3]);
    assert!(state.writes.iter().all(|write| write.producer_id == state.writes[0].producer_id));
}

#[tokio::test]
async fn alter_between_note_and_repeat_keeps_rows_once() {
    for answer in [Answer::DoAndLose, Answer::Lose] {
        let cluster = FakeCluster::start(&[], 1).await;
        let note = ended_process(&cluster, answer).await;
        cluster.change(|state| {
            state.schema = altered_schema();
            state.publish_schema();
        });
        let (client, writer) = process(&cluster, 1_000).await;
        let earlier = table_info().schema;
        let batch = convert(RowOp::Put, &rows(1..=3), &earlier, &altered_schema()).unwrap();
        let write = writer.resume(table(&client).await, &note, &batch).unwrap();
        assert!(matches!(writer.send(write).await.unwrap(), OnceOutcome::Written(_)));
        assert_eq!(cluster.state.lock().ids(), [1, 2, 3]);
    }
}

#[tokio::test]
async fn alter_during_a_noted_write_keeps_its_identity() {
    let cluster = FakeCluster::start(&[], 1).await;
    let (client, writer) = process(&cluster, 1_000).await;
    let write = writer.open(table(&client).await, rows(1..=3)).await.unwrap();
    cluster.state.lock().schema = altered_schema();
    let sending = tokio::spawn(async move { writer.send(write).await });
    cluster.until_writes(2).await;
    cluster.change(|state| state.publish_schema());
    assert!(matches!(sending.await.unwrap().unwrap(), OnceOutcome::Written(_)));
    let state = cluster.state.lock();
    assert_eq!(state.ids(), [1, 2, 3]);
    assert!(state.writes.iter().all(|write| write.producer_id == state.writes[0].producer_id));
}

#[tokio::test]
async fn note_of_other_rows_is_refused() {
    let cluster = FakeCluster::start(&[2], 1).await;
    let process = process(&cluster, 1).await;
    let note = open(&process, rows(1..=3)).await.note();
    let current = table(&process.0).await;
    let resume = |table: &Arc<TableInfo>, note: &[u8], batch: RecordBatch| {
        process.1.resume(Arc::clone(table), note, &batch)
    };
    for other in [rows(1..=2), rows(1..=4), rows([1, 2, 4]), rows([1, 1, 3]), rows([])] {
        let error = resume(&current, &note, other).unwrap_err();
        assert!(matches!(error, ResumeError::OtherRows { .. }), "{error}");
    }
    for damaged in [&note[..note.len() - 1], b""] {
        let error = resume(&current, damaged, rows(1..=3)).unwrap_err();
        assert!(matches!(error, ResumeError::Damaged(_)), "{error}");
    }
    let recreated = Arc::new(TableInfo { id: 8.into(), ..table_info() });
    let error = resume(&recreated, &note, rows(1..=3)).unwrap_err();
    assert!(matches!(error, ResumeError::OtherTable { .. }), "{error}");
    assert!(resume(&current, &note, rows([2, 3, 1])).is_ok());
}

const SHARED: ProducerId = ProducerId(Uuid::from_u128(9));

async fn put_as(cluster: &FakeCluster) -> Result<PutAs, ClientError> {
    let client = cluster.client().await;
    let table = table(&client).await;
    client.put_as(table, rows([1]), SHARED).await
}

#[tokio::test]
async fn nodes_put_a_shared_row_once() {
    let cluster = FakeCluster::start(&[], 1).await;
    assert_eq!(put_as(&cluster).await.unwrap(), PutAs::Written);
    assert_eq!(put_as(&cluster).await.unwrap(), PutAs::Present);
    assert_eq!(cluster.state.lock().ids(), [1]);
}

#[tokio::test]
async fn nodes_put_a_shared_row_at_the_same_time() {
    let cluster = FakeCluster::start(&[], 1).await;
    for lost in [false, true] {
        if lost {
            cluster.state.lock().answers = [Answer::DoAndLose, Answer::Lose].into();
        }
        let puts = (0..4).map(|_| put_as(&cluster));
        for put in futures::future::join_all(puts).await {
            put.unwrap();
        }
        assert_eq!(cluster.state.lock().ids(), [1]);
        let mut state = cluster.state.lock();
        state.effects.clear();
        state.forget_producers();
    }
}

#[tokio::test]
async fn shared_row_of_a_forgotten_producer_is_found() {
    let cluster = FakeCluster::start(&[], 1).await;
    put_as(&cluster).await.unwrap();
    cluster.state.lock().forget_producers();
    assert_eq!(put_as(&cluster).await.unwrap(), PutAs::Present);
    assert_eq!(cluster.state.lock().ids(), [1]);
}

#[tokio::test]
async fn shared_row_is_once_in_a_split_region() {
    let cluster = FakeCluster::start(&[], 1).await;
    put_as(&cluster).await.unwrap();
    cluster.change(|state| {
        state.split(100, 2, (201, 202));
        state.publish_routes();
    });
    assert_eq!(put_as(&cluster).await.unwrap(), PutAs::Present);
    assert_eq!(cluster.state.lock().ids(), [1]);
}

#[tokio::test]
async fn producer_forgotten_before_its_row_is_opened_again() {
    for answers in [vec![Answer::Forget], vec![Answer::DoAndLose, Answer::Forget]] {
        let cluster = FakeCluster::start(&[], 1).await;
        cluster.state.lock().answers = answers.into();
        put_as(&cluster).await.unwrap();
        assert_eq!(cluster.state.lock().ids(), [1]);
    }
}

#[tokio::test]
async fn shared_write_takes_one_row() {
    let cluster = FakeCluster::start(&[], 1).await;
    let client = cluster.client().await;
    let table = table(&client).await;
    for other in [rows([]), rows([1, 2])] {
        let error = client.put_as(Arc::clone(&table), other, SHARED).await.unwrap_err();
        assert!(matches!(error, ClientError::BadInput(_)), "{error}");
    }
    assert!(cluster.state.lock().writes.is_empty());
}
