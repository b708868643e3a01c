//! A full spool: the counter and the summaries have the number of dropped events, `cluster status` reports them, and
//! nothing else is held up.

use std::ops::Range;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tidewater_client::{Client, ClientError};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::workload::{LoadOptions, Workload, options};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

use super::numbers::expect_unique_ids;
use super::table::{EVENTS, EventTable, WRITTEN_WITHIN};
use crate::support::{SETTLED_WITHIN, conclude, wait_for_kind, wait_for_level};

/// Size of the spools: the smallest.
const SPOOL: &str = "2MiB";
const SPOOL_BYTES: u64 = 2 << 20;
/// Bytes that summaries may take above it.
const SUMMARY_BYTES: u64 = 64 << 10;
/// Begin of the names of tables that do not exist.
const FLOOD: &str = "flood_";
/// Failing calls between two looks at the counter.
const ROUND: u64 = 500;
/// Most rounds: far fewer fill a spool.
const MOST_ROUNDS: u64 = 60;
/// Calls in progress.
const CONCURRENT: usize = 32;
/// Fewest dropped events.
const FEWEST_DROPPED: u64 = 300;
/// Longest time of a call, and between two acknowledged writes: far shorter than the pauses and timeouts of a recorder.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Replaces the events table by one that cannot hold events, so that they stay in the spools.
async fn occupy_name(cluster: &Cluster) -> Result<()> {
    let create = ["table", "create", EVENTS, "--columns", "id int64", "--primary-key", "id"];
    wait::until("another table has the name", SETTLED_WITHIN, || async {
        // A node may have created its table again since the last attempt.
        let _ = cluster.run(&["table", "drop", EVENTS]).await;
        let created = cluster.run(&create).await.and_then(|output| output.ok());
        created.map(drop).map_err(|error| error.to_string())
    })
    .await
}

/// Drops tables that do not exist, each of which is an event. Returns the longest time of a call.
async fn flood(client: &Client, numbers: Range<u64>) -> Result<Duration> {
    let calls = numbers.map(|number| async move {
        let begun = Instant::now();
        // The longest name of a table.
        let name = format!("{FLOOD}{number:0>122}");
        let refused = client.drop_table(&name).await.err();
        let reason = refused.as_ref().and_then(ClientError::refusal).map(|refusal| refusal.reason);
        if reason == Some(Reason::TableNotFound) {
            return Ok(begun.elapsed());
        }
        Err(HarnessError::violated(format!("table {name} was dropped: {refused:?}")))
    });
    let times: Vec<Duration> =
        stream::iter(calls).buffer_unordered(CONCURRENT).try_collect().await?;
    Ok(times.into_iter().max().unwrap_or_default())
}

/// Floods the meta node until it drops events. Returns the number of calls.
async fn flood_until_dropped(cluster: &Cluster, client: &Client) -> Result<u64> {
    for round in 0..MOST_ROUNDS {
        let longest = flood(client, round * ROUND..(round + 1) * ROUND).await?;
        if longest > ANSWERED_WITHIN {
            return Err(HarnessError::violated(format!("a call took {longest:?}")));
        }
        if dropped(cluster).await? >= FEWEST_DROPPED {
            return Ok((round + 1) * ROUND);
        }
    }
    Err(HarnessError::violated("the spool is not full"))
}

/// Number of events that the nodes have dropped.
async fn dropped(cluster: &Cluster) -> Result<u64> {
    let mut dropped = 0;
    for node in cluster.meta.iter().chain(&cluster.data) {
        let metrics = Metrics::fetch(node.spec.listen).await?;
        dropped += metrics.sum("tidewater_events_dropped_total");
    }
    Ok(dropped)
}

/// Number of dropped events that summaries report.
fn reported(rows: &[Value]) -> u64 {
    let summaries = rows.iter().filter(|row| row["type"] == "events_dropped");
    summaries.filter_map(|row| row["payload"]["dropped"].as_u64()).sum()
}

// V4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_spool_counts_drops_and_holds_up_nothing() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 0).events();
    let cluster = plan.env("TIDEWATER_EVENT_SPOOL", SPOOL).start().await?;
    wait_for_level(&cluster).await?;
    cluster.create_log_table().await?;
    let table = EventTable::connect(&cluster).await?;
    table.wait_for("a first event", |_| true).await?;
    occupy_name(&cluster).await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let client = Client::connect(options(&cluster)).await;
    let client = client.map_err(|error| HarnessError::violated(error.to_string()))?;

    load.mark();
    let sent = flood_until_dropped(&cluster, &client).await?;
    load.progress(40).await?;
    let gap = load.longest_gap();
    assert!(gap < ANSWERED_WITHIN, "no write was acknowledged for {gap:?}");
    let metrics = Metrics::fetch(cluster.meta[0].spec.listen).await?;
    let bytes = metrics.sum("tidewater_event_spool_bytes");
    let is_full = bytes.abs_diff(SPOOL_BYTES) <= SUMMARY_BYTES;
    assert!(is_full, "the spool has {bytes} bytes");
    let is_of_drops = |problem: &Value| {
        problem["node_id"] == 1 && problem["detail"].to_string().contains("were dropped")
    };
    wait_for_kind(&cluster, "events_not_recorded", is_of_drops).await?;

    cluster.run(&["table", "drop", EVENTS]).await?.ok()?;
    let rows = wait::until("the summaries add up to the counter", WRITTEN_WITHIN, || async {
        let dropped = dropped(&cluster).await.map_err(|error| error.to_string())?;
        let rows = table.rows().await?;
        let reported = reported(&rows);
        if reported == dropped { Ok(rows) } else { Err(format!("{reported} of {dropped}")) }
    })
    .await?;
    expect_unique_ids(&rows)?;
    let is_of_flood =
        |row: &&Value| row["subject"].as_str().is_some_and(|subject| subject.starts_with(FLOOD));
    let kept = rows.iter().filter(is_of_flood).count() as u64;
    let reported = reported(&rows);
    println!("{sent} calls, {kept} events of them, {reported} dropped, {bytes} bytes in the spool");
    let lost = sent.saturating_sub(kept);
    assert!(lost > 0 && lost <= reported, "{lost} calls have no event");
    conclude(cluster, load).await.map(drop)
}
