//! Expiry of events.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::{Result, wait};
use tokio::time::Instant;

use super::recorder::Recorder;
use super::table::{EVENTS, EventTable, now_ns};
use crate::garbage::data_files;
use crate::support::{SETTLED_WITHIN, live_files, wait_for_level};

/// Time to live of the events.
const TTL: Duration = Duration::from_secs(60 * 60);

/// Time after which an expired file is deleted: more than a clock may differ from another one.
const DELETED_AFTER: Duration = Duration::from_secs(11 * 60);

/// Time for which the second event is visible: longer than the table takes to have it.
const VISIBLE: Duration = Duration::from_secs(15);

/// Time of an event of a type, `before` now.
fn timed(event_type: &str, before: Duration) -> Value {
    let before = i64::try_from(before.as_nanos()).unwrap_or(i64::MAX);
    json!({ "type": event_type, "timestamp_ns": now_ns().saturating_sub(before) })
}

/// Flushes the events until a flush writes rows: a scan does not show an expired event. Returns the files that are new in
/// the store.
async fn flush_expired(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let before = data_files(cluster)?;
    let region = cluster.region(EVENTS).await?.region_id.to_string();
    let flush = ["region", "flush", &region, "--output", "json"];
    wait::until("the expired event is flushed", SETTLED_WITHIN, || async {
        let flushed = cluster.run(&flush).await.and_then(|output| output.ok()?.json());
        let flushed = flushed.map_err(|error| error.to_string())?;
        let has_rows = flushed[0]["rows"].as_u64().is_some_and(|rows| rows > 0);
        if has_rows { Ok(()) } else { Err(flushed.to_string()) }
    })
    .await?;
    Ok(data_files(cluster)?.difference(&before).cloned().collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_expire_by_their_ttl() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 0).events();
    let ttl = format!("{}s", TTL.as_secs());
    let plan = plan.env("TIDEWATER_EVENT_TTL", &ttl).env("TIDEWATER_COMPACTION_EVERY", "1s");
    // The files are seen in the store before they are deleted.
    let plan = plan.env("TIDEWATER_GC_GRACE", "10s").env("TIDEWATER_GC_EVERY", "2s");
    // Later events of the nodes would be in the files of those that expire.
    let cluster = plan.env("TIDEWATER_EVENT_TYPES", "node_up").start().await?;
    wait_for_level(&cluster).await?;
    let table = EventTable::connect(&cluster).await?;
    // The nodes create the table, with their time to live.
    table.wait_for("a first event", |_| true).await?;
    cluster.flush(EVENTS).await?.ok()?;

    let mut recorder = Recorder::start(&cluster, &cluster.directory().join("recorder"))?;
    recorder.record(&timed("old", TTL + DELETED_AFTER)).await?;
    let begun = Instant::now();
    recorder.record(&timed("short", TTL - VISIBLE)).await?;
    table.wait_for("the event", |row| row["type"] == "short").await?;
    wait::until("the event is not read any more", SETTLED_WITHIN, || async {
        let rows = table.rows().await?;
        assert!(rows.iter().all(|row| row["type"] != "old"), "an expired event is read");
        let is_read = rows.iter().any(|row| row["type"] == "short");
        if is_read { Err(format!("{} rows", rows.len())) } else { Ok(()) }
    })
    .await?;
    assert!(begun.elapsed() >= VISIBLE, "expired after {:?}", begun.elapsed());

    // The second event keeps the file of both. The next file has expired events only.
    cluster.flush(EVENTS).await?.ok()?;
    recorder.record(&timed("old", TTL + DELETED_AFTER)).await?;
    recorder.end().await?;
    let expired = flush_expired(&cluster).await?;
    assert!(!expired.is_empty(), "the expired event has no file");
    wait::until("the files of the expired event are deleted", SETTLED_WITHIN, || async {
        let stored = data_files(&cluster).map_err(|error| error.to_string())?;
        let left: Vec<_> = stored.intersection(&expired).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await?;
    assert!(
        !live_files(&cluster, EVENTS).await?.is_empty(),
        "files with events in time are deleted"
    );
    cluster.finish().await
}
