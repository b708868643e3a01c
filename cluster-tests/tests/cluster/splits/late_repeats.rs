//! A write that is repeated late: its region was split, one half has forgotten its stream, and the halves were merged.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use futures::{StreamExt, TryStreamExt, stream};
use tidewater_client::{Client, ForgottenRows, OnceOutcome, OnceWriter, TableInfo};
use tidewater_cluster_tests::cluster::{ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::workload::options;
use tidewater_cluster_tests::{HarnessError, Result};

use super::{routes, split_before};
use crate::support::{keep_routes, wait_for_level};

/// More streams than a region remembers (4,096).
const STREAMS: i64 = 4_200;
/// Writes in progress.
const CONCURRENT: usize = 64;
/// Writers of the rows of the first half, which forgets, and of the second one.
const WRITERS: [i64; 2] = [1, 2];

fn failed(error: impl ToString) -> HarnessError {
    HarnessError::violated(error.to_string())
}

/// Returns a row of each of these writers.
fn rows(table: &TableInfo, writers: &[i64], serial: i64) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(writers.to_vec())),
        Arc::new(Int64Array::from(vec![serial; writers.len()])),
        Arc::new(StringArray::from(vec!["late"; writers.len()])),
    ];
    RecordBatch::try_new(table.schema.arrow(), columns).map_err(failed)
}

/// Writes rows under a new stream; returns the note of the write.
async fn write(client: &Client, table: &Arc<TableInfo>, rows: RecordBatch) -> Result<Vec<u8>> {
    let writer = client.once_writer();
    let write = writer.open(Arc::clone(table), rows).await.map_err(failed)?;
    let note = write.note();
    match writer.send(write).await.map_err(failed)? {
        OnceOutcome::Written(_) => Ok(note),
        forgotten => Err(failed(format!("a new write: {forgotten:?}"))),
    }
}

/// Writes a row of the first half under a new stream.
async fn write_first(client: &Client, table: &Arc<TableInfo>, serial: i64) -> Result<()> {
    write(client, table, rows(table, &WRITERS[..1], serial)?).await.map(drop)
}

/// Repeats a write from its note, of which a region has forgotten the stream.
async fn repeat(
    writer: &OnceWriter,
    table: &Arc<TableInfo>,
    note: &[u8],
    rows: &RecordBatch,
) -> Result<ForgottenRows> {
    let write = writer.resume(Arc::clone(table), note, rows).map_err(failed)?;
    match writer.send(write).await.map_err(failed)? {
        OnceOutcome::Forgotten(forgotten) => Ok(forgotten),
        written => Err(failed(format!("a write of a forgotten stream: {written:?}"))),
    }
}

// R5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_repeat_over_split_and_merge_adds_nothing() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    cluster.create_log_table().await?;
    let client = Client::connect(options(&cluster)).await.map_err(failed)?;
    let table = client.table(LOG_TABLE).await.map_err(failed)?;
    let both = rows(&table, &WRITERS, 1)?;
    let note = write(&client, &table, both.clone()).await?;

    // Both halves know the stream.
    split_before(&cluster, 2, 0).await?;
    let others = (2..2 + STREAMS).map(|serial| write_first(&client, &table, serial));
    stream::iter(others).buffer_unordered(CONCURRENT).try_collect::<Vec<()>>().await?;
    // The first half has forgotten it. The second one has used it last, so that the merge keeps the stream among its others.
    let writer = client.once_writer();
    let _ = repeat(&writer, &table, &note, &both).await?;
    let halves = routes(&cluster, LOG_TABLE).await?;
    let halves: Vec<_> = halves.iter().map(|route| route["route_id"].to_string()).collect();
    let [first, second] = &halves[..] else { return Err(failed(format!("{halves:?}"))) };
    cluster.run(&["route", "merge", first, second]).await?.ok()?;

    let forgotten = repeat(&writer, &table, &note, &both).await?;
    writer.fence(&forgotten).await.map_err(failed)?;
    let _ = repeat(&writer, &table, &note, &both).await?;
    for number in WRITERS {
        let condition = format!("writer = {number} and serial = 1");
        assert_eq!(cluster.count_where(LOG_TABLE, Some(&condition)).await?, 1, "{condition}");
    }
    assert_eq!(i64::try_from(cluster.count(LOG_TABLE).await?), Ok(STREAMS + 2));
    cluster.finish().await
}
